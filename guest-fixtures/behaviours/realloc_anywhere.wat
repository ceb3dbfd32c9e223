;; Has the host put the request where it says: unless a test says otherwise, beyond its memory.
;;
;; {{address}}: 0xfffffff0
{{memory}}
{{handler}}
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {{address}}))
(func $handle {{request}})
