;; Computes for so long that others must have had their turn, then waits for what never comes.
;;
;; {{rounds}}: 100000000
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
  (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
{{prelude}}
(func $handle {{request}}
  (local $left i64)
  (local.set $left (i64.const {{rounds}}))
  (loop $again
    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
    (br_if $again (i64.ne (local.get $left) (i64.const 0))))
  (call $block (call $subscribe (i64.const -1))))
