;; Waits so many nanoseconds, then answers 200. Unless a test says otherwise, they never pass.
;;
;; {{nanoseconds}}: 18446744073709551615
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
  (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
{{prelude}}
(func $handle {{request}}
  (call $block (call $subscribe (i64.const {{nanoseconds}})))
  (i32.store16 (i32.const 16) (i32.const 200)))
