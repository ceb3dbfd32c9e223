;; Reads the record `storm` of the namespace `notes`, again and again, whatever the answer is.
(import "alga:storage/records@0.1.0" "get"
  (func $get (param i32 i32 i32 i32 i32 i64 i32)))
{{prelude}}
(data (i32.const 64) "notesstorm")
(func $handle {{request}}
  (local $before i32)
  ;; What a call brought is forgotten before the next one, so that memory is not what ends it.
  (local.set $before (global.get $free))
  (loop $again
    (global.set $free (local.get $before))
    (call $get
      (i32.const 64) (i32.const 5) (i32.const 69) (i32.const 5)
      (i32.const 0) (i64.const 0)
      (i32.const 128))
    (br $again)))
