;; Traps.
{{prelude}}
(func $handle {{request}}
  unreachable)
