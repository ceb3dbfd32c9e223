;; Writes `flood` and a line end to `stdout` or `stderr` a number of times, then answers 200.
;;
;; {{stream}}: stdout
;; {{lines}}: 10000
(import "wasi:cli/{{stream}}@0.2.0" "get-{{stream}}" (func $open (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
  (func $write (param i32 i32 i32 i32)))
{{prelude}}
(data (i32.const 64) "flood\n")
(func $handle {{request}}
  (local $left i32) (local $stream i32)
  (local.set $stream (call $open))
  (local.set $left (i32.const {{lines}}))
  (loop $again
    (call $write (local.get $stream) (i32.const 64) (i32.const 6) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then unreachable))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store16 (i32.const 16) (i32.const 200)))
