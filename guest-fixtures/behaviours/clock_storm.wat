;; Asks for the time a number of times, then answers 200.
;;
;; {{calls}}: 1000000000
(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
{{prelude}}
(func $handle {{request}}
  (local $left i32)
  (local.set $left (i32.const {{calls}}))
  (loop $again
    (drop (call $now))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store16 (i32.const 16) (i32.const 200)))
