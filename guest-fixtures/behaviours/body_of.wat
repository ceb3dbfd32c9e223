;; Answers 200 with a body of so many zeros. Unless a test says otherwise, it is one more than is allowed.
;;
;; {{bytes}}: 10485761
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store8 (i32.const 28) (i32.const 1))
  (i32.store (i32.const 32)
    (i32.mul
      (memory.grow (i32.div_u (i32.add (i32.const {{bytes}}) (i32.const 65535)) (i32.const 65536)))
      (i32.const 65536)))
  (i32.store (i32.const 36) (i32.const {{bytes}})))
