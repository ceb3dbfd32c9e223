;; Answers 200 with the path it was asked for as body.
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store8 (i32.const 28) (i32.const 1))
  (i32.store (i32.const 32) (local.get $path))
  (i32.store (i32.const 36) (local.get $path-length)))
