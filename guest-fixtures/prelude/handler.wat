(func (export "alga:extension/handler@0.1.0#handle") {{request}} (result i32)
  (call $handle
    (local.get $method) (local.get $method-length)
    (local.get $path) (local.get $path-length)
    (local.get $has-query) (local.get $query) (local.get $query-length)
    (local.get $headers) (local.get $headers-length)
    (local.get $has-body) (local.get $body) (local.get $body-length))
  (i32.const 16))
