;; Never gets instantiated.
{{prelude}}
(func $start (loop $again (br $again)))
(start $start)
(func $handle {{request}})
