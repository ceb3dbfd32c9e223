;; Says that its answer lies at an address where none can lie.
;;
;; {{address}}: 17
{{memory}}
{{realloc}}
(func (export "alga:extension/handler@0.1.0#handle") {{request}} (result i32)
  (i32.const {{address}}))
