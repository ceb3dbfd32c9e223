;; Answers 200 with headers that lie in its memory from 1024 on: first their text, then from `entries` to `end`
;; the list of where each name and value is.
;;
;; {{text}}: "x-okyes"
;; {{entries}}: 1032
;; {{list}}: "\00\04\00\00\04\00\00\00\04\04\00\00\03\00\00\00"
;; {{count}}: 1
;; {{end}}: 1048
{{prelude}}
(data (i32.const 1024) {{text}})
(data (i32.const {{entries}}) {{list}})
(func $keep (global.set $free (i32.const {{end}})))
(start $keep)
(func $handle {{request}}
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store (i32.const 20) (i32.const {{entries}}))
  (i32.store (i32.const 24) (i32.const {{count}})))
