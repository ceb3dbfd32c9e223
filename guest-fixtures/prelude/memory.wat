;; From 16 to 40 lies the answer: status at 16, headers (address, length) at 20, the body's flag at 28 and the body
;; (address, length) at 32. All are zero until `$handle` stores something. From 64 to 1024 is room for data.
(memory (export "memory") 1)
(global $free (mut i32) (i32.const 1024))
