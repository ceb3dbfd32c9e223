;; Answers 200, and has a function of many steps that it calls when there is a query.
;;
;; {{steps}}: local.get 0 local.set 0
{{prelude}}
(func $steps (param i32 i32) (result i32)
  {{steps}}
  local.get 0)
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (if (local.get $has-query)
    (then (drop (call $steps (local.get $query) (local.get $query-length))))))
