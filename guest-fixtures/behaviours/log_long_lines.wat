;; Logs lines of so many `x` at info, then answers 200.
;;
;; {{lines}}: 1
;; {{bytes}}: 1048576
(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
{{prelude}}
(func $handle {{request}}
  (local $left i32)
  (drop (memory.grow (i32.div_u (i32.add (i32.const {{bytes}}) (i32.const 65535)) (i32.const 65536))))
  (memory.fill (i32.const 65536) (i32.const 0x78) (i32.const {{bytes}}))
  (local.set $left (i32.const {{lines}}))
  (loop $again
    (call $log (i32.const 2) (i32.const 65536) (i32.const {{bytes}}))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store16 (i32.const 16) (i32.const 200)))
