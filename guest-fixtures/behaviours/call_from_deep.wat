;; Calls itself until the stack ends, and calls the host from every depth, so also from the very end. Its
;; frames are large, for the stack to end before the host calls do.
(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
{{prelude}}
(data (i32.const 64) "deep")
(func $deeper (param $a i64) (param $b i64) (param $c i64) (param $d i64) (param $e i64) (param $f i64) (param $g i64) (param $h i64) (result i64)
  (local $below i64)
  (call $log (i32.const 2) (i32.const 64) (i32.const 4))
  (local.set $below
    (call $deeper
      (i64.add (local.get $a) (i64.const 1)) (i64.add (local.get $b) (i64.const 2))
      (i64.add (local.get $c) (i64.const 3)) (i64.add (local.get $d) (i64.const 4))
      (i64.add (local.get $e) (i64.const 5)) (i64.add (local.get $f) (i64.const 6))
      (i64.add (local.get $g) (i64.const 7)) (i64.add (local.get $h) (i64.const 8))))
  (i64.xor (local.get $below)
    (i64.xor
      (i64.xor (i64.mul (local.get $a) (local.get $b)) (i64.mul (local.get $c) (local.get $d)))
      (i64.xor (i64.mul (local.get $e) (local.get $f)) (i64.mul (local.get $g) (local.get $h))))))
(func $handle {{request}}
  (drop
    (call $deeper
      (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)
      (i64.const 5) (i64.const 6) (i64.const 7) (i64.const 8))))
