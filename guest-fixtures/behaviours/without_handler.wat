;; A good component that exports something else than the handler.
(component
  (core module $module (func (export "greet") (result i32) (i32.const 42)))
  (core instance $instance (instantiate $module))
  (func $greet (result u32) (canon lift (core func $instance "greet")))
  (instance $greeter (export "greet" (func $greet)))
  (export "other:guest/greeter" (instance $greeter)))
