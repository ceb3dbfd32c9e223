;; Answers 200 with the headers and the body it was given.
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store (i32.const 20) (local.get $headers))
  (i32.store (i32.const 24) (local.get $headers-length))
  (i32.store8 (i32.const 28) (local.get $has-body))
  (i32.store (i32.const 32) (local.get $body))
  (i32.store (i32.const 36) (local.get $body-length)))
