;; Calls itself until the stack ends.
{{prelude}}
(func $deeper (param $depth i32) (result i32)
  (i32.add (local.get $depth) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))
(func $handle {{request}}
  (drop (call $deeper (i32.const 0))))
