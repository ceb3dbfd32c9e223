;; Answers 200 with a letter, and behind it what storage says to the question for a record that isn't there: the
;; number of the error among those of `alga:storage`, as a letter from `a` on.
;;
;; {{letter}}: x
(import "alga:storage/records@0.1.0" "get"
  (func $get (param i32 i32 i32 i32 i32 i64 i32)))
{{prelude}}
(data (i32.const 64) "notesabsent")
(data (i32.const 96) "{{letter}}")
(func $handle {{request}}
  (call $get
    (i32.const 64) (i32.const 5) (i32.const 69) (i32.const 6)
    (i32.const 0) (i64.const 0)
    (i32.const 128))
  (if (i32.eqz (i32.load8_u (i32.const 128))) (then unreachable))
  (i32.store8 (i32.const 97) (i32.add (i32.const 97) (i32.load8_u (i32.const 136))))
  (i32.store16 (i32.const 16) (i32.const 200))
  (i32.store8 (i32.const 28) (i32.const 1))
  (i32.store (i32.const 32) (i32.const 96))
  (i32.store (i32.const 36) (i32.const 2)))
