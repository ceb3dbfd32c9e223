;; Answers 200 with a body that lies where it has no memory.
;;
;; {{address}}: 0xffff0000
;; {{length}}: 0xffffffff
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store8 (i32.const 28) (i32.const 1))
  (i32.store (i32.const 32) (i32.const {{address}}))
  (i32.store (i32.const 36) (i32.const {{length}})))
