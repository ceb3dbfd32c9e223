;; Traps while it is instantiated.
{{prelude}}
(func $start unreachable)
(start $start)
(func $handle {{request}})
