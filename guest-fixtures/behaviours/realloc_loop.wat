;; Never gives the host memory for the request.
{{memory}}
{{handler}}
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (loop $again (br $again))
  unreachable)
(func $handle {{request}})
