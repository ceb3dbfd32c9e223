;; Opens standard output a number of times and closes none, then answers 200.
;;
;; {{streams}}: 2000
(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $open (result i32)))
{{prelude}}
(func $handle {{request}}
  (local $left i32)
  (local.set $left (i32.const {{streams}}))
  (loop $again
    (drop (call $open))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store16 (i32.const 16) (i32.const 200)))
