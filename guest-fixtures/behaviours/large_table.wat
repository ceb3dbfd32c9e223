;; Has a table of so many elements from the start.
;;
;; {{elements}}: 1000000
{{prelude}}
(table {{elements}} funcref)
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200)))
