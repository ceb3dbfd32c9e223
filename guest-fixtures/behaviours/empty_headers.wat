;; Answers 200 with so many headers, all of them empty. One takes 16 bytes of the guest and more of the host.
;;
;; {{headers}}: 800000
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store (i32.const 20)
    (i32.mul
      (memory.grow (i32.add (i32.div_u (i32.const {{headers}}) (i32.const 4096)) (i32.const 1)))
      (i32.const 65536)))
  (i32.store (i32.const 24) (i32.const {{headers}})))
