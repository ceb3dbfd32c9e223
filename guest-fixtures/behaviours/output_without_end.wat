;; Writes one line of 4 KiB times a number to standard output, without a line end, then answers 200.
;;
;; {{writes}}: 1000
(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $open (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
  (func $write (param i32 i32 i32 i32)))
{{prelude}}
(func $handle {{request}}
  (local $left i32) (local $stream i32)
  (memory.fill (i32.const 8192) (i32.const 0x79) (i32.const 4096))
  (local.set $stream (call $open))
  (local.set $left (i32.const {{writes}}))
  (loop $again
    (call $write (local.get $stream) (i32.const 8192) (i32.const 4096) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then unreachable))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store16 (i32.const 16) (i32.const 200)))
