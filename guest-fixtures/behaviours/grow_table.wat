;; Grows a table until it is refused, then traps.
{{prelude}}
(table $grown 1 funcref)
(func $handle {{request}}
  (loop $again
    (br_if $again
      (i32.ne (table.grow $grown (ref.null func) (i32.const 1024)) (i32.const -1))))
  unreachable)
