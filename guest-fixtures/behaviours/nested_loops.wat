;; Answers 200, and has a function of loops within one another that it calls when there is a query.
;;
;; {{locals}}: i32
;; {{begin}}: loop
;; {{changes}}: nop
;; {{end}}: local.get 0 br_if 0 end
{{prelude}}
(func $nested (result i32) (local {{locals}})
  {{begin}} {{changes}} {{end}}
  local.get 0)
(func $handle {{request}}
  (if (local.get $has-query) (then (drop (call $nested))))
  (i32.store16 (i32.const 16) (i32.const 200)))
