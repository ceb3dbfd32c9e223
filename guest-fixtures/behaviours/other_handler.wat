;; Exports the handler by its name, but as a function that takes and gives something else.
(component
  (core module $module (func (export "handle") (result i32) (i32.const 42)))
  (core instance $instance (instantiate $module))
  (func $handle (result u32) (canon lift (core func $instance "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "alga:extension/handler@0.1.0" (instance $handler)))
