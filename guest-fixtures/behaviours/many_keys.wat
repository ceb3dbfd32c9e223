;; Asks storage for so many records at once, all with the empty key, then answers 200. A key takes 8 bytes of
;; the guest and more of the host.
;;
;; {{keys}}: 1500000
(import "alga:storage/records@0.1.0" "get-many" (func $get-many (param i32 i32 i32 i32 i32)))
{{prelude}}
(data (i32.const 64) "notes")
(func $handle {{request}}
  (local $start i32)
  (local.set $start
    (i32.mul
      (memory.grow (i32.add (i32.div_u (i32.const {{keys}}) (i32.const 8192)) (i32.const 1)))
      (i32.const 65536)))
  (call $get-many
    (i32.const 64) (i32.const 5) (local.get $start) (i32.const {{keys}}) (i32.const 128))
  (i32.store16 (i32.const 16) (i32.const 200)))
