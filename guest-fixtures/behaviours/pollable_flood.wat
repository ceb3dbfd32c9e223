;; Subscribes to a moment that never comes, again and again, and forgets none.
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
  (func $subscribe (param i64) (result i32)))
{{prelude}}
(func $handle {{request}}
  (loop $again
    (drop (call $subscribe (i64.const -1)))
    (br $again)))
