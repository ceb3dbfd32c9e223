;; Calls the host while the host asks it for memory.
(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
{{memory}}
{{handler}}
(data (i32.const 64) "inner")
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (call $log (i32.const 2) (i32.const 64) (i32.const 5))
  (i32.const 1024))
(func $handle {{request}})
