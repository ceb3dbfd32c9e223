;; Never returns, and calls nothing while it runs.
{{prelude}}
(func $handle {{request}}
  (loop $again (br $again)))
