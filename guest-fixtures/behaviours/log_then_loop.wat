;; Logs `LOOPING` at info, then never returns, and calls nothing more.
(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
{{prelude}}
(data (i32.const 64) "now it loops")
(func $handle {{request}}
  (call $log (i32.const 2) (i32.const 64) (i32.const 12))
  (loop $again (br $again)))
