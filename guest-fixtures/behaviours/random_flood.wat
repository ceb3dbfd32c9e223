;; Asks for so many random bytes at once, then answers 200.
;;
;; {{bytes}}: 1073741824
(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
{{prelude}}
(func $handle {{request}}
  (call $random (i64.const {{bytes}}) (i32.const 128))
  (i32.store16 (i32.const 16) (i32.const 200)))
