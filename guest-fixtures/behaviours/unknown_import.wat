;; Imports an interface that no runner offers.
(import "evil:host/shell" "run" (func $run))
{{prelude}}
(func $handle {{request}}
  (call $run))
