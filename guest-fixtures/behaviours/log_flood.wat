;; Logs `flood` at info a number of times, then answers 200.
;;
;; {{lines}}: 10000
(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
{{prelude}}
(data (i32.const 64) "flood")
(func $handle {{request}}
  (local $left i32)
  (local.set $left (i32.const {{lines}}))
  (block $done
    (loop $again
      (br_if $done (i32.eqz (local.get $left)))
      (call $log (i32.const 2) (i32.const 64) (i32.const 5))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $again)))
  (i32.store16 (i32.const 16) (i32.const 200)))
