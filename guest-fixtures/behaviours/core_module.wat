;; WebAssembly, but no component.
(module
  (func (export "handle") (result i32) (i32.const 200)))
