;; Answers 200 with a header whose name is not UTF-8.
{{prelude}}
(data (i32.const 64) "\ff\fe")
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store (i32.const 20) (i32.const 128))
  (i32.store (i32.const 24) (i32.const 1))
  (i32.store (i32.const 128) (i32.const 64))
  (i32.store (i32.const 132) (i32.const 2)))
