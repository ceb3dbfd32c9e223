;; Counts to a number, which takes it about as many nanoseconds, then answers 200.
;;
;; {{rounds}}: 1000000
{{prelude}}
(func $handle {{request}}
  (local $left i64)
  (local.set $left (i64.const {{rounds}}))
  (loop $again
    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
    (br_if $again (i64.ne (local.get $left) (i64.const 0))))
  (i32.store16 (i32.const 16) (i32.const 200)))
