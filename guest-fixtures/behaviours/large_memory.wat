;; Has so many pages of memory from the start.
;;
;; {{pages}}: 65536
(memory (export "memory") {{pages}})
(global $free (mut i32) (i32.const 1024))
{{realloc}}
{{handler}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200)))
