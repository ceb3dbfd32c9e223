;; Never returns, and waits again and again for what is there already: a moment that has passed. In between it
;; counts to a number, which takes it about as many nanoseconds.
;;
;; {{rounds}}: 10000000
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
  (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
(import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
{{prelude}}
(func $handle {{request}}
  (local $left i64) (local $moment i32)
  (loop $forever
    (local.set $left (i64.const {{rounds}}))
    (loop $again
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (local.set $moment (call $subscribe (i64.const 0)))
    (call $block (local.get $moment))
    (call $drop (local.get $moment))
    (br $forever)))
