;; Answers with a status that HTTP doesn't have.
;;
;; {{status}}: 9999
{{prelude}}
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const {{status}})))
