;; Traps if it is given a socket, of TCP or UDP, or can see an environment variable, an argument or a folder;
;; else it answers 200.
(import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $tcp (param i32 i32)))
(import "wasi:sockets/udp-create-socket@0.2.0" "create-udp-socket" (func $udp (param i32 i32)))
(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
(import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
(import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
{{prelude}}
(func $handle {{request}}
  (call $tcp (i32.const 0) (i32.const 128))
  (if (i32.eqz (i32.load8_u (i32.const 128))) (then unreachable))
  (call $udp (i32.const 1) (i32.const 128))
  (if (i32.eqz (i32.load8_u (i32.const 128))) (then unreachable))
  (call $environment (i32.const 128))
  (if (i32.load (i32.const 132)) (then unreachable))
  (call $arguments (i32.const 128))
  (if (i32.load (i32.const 132)) (then unreachable))
  (call $directories (i32.const 128))
  (if (i32.load (i32.const 132)) (then unreachable))
  (i32.store16 (i32.const 16) (i32.const 200)))
