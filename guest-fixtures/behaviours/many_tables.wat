;; A component of 128 tables in 8 instances.
(component
  (core module $module
    (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)
    (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)
    (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)
    (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module))
  (core instance (instantiate $module)))
