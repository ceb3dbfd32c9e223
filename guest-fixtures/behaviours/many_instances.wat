;; A component of 128 core instances.
(component
  (component $one
    (core module $module )
    (core instance (instantiate $module)))
  (component $two
    (alias outer 1 $one (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $four
    (alias outer 1 $two (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $eight
    (alias outer 1 $four (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $sixteen
    (alias outer 1 $eight (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $thirtytwo
    (alias outer 1 $sixteen (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $sixtyfour
    (alias outer 1 $thirtytwo (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (component $hundredtwentyeight
    (alias outer 1 $sixtyfour (component $half))
    (instance (instantiate $half))
    (instance (instantiate $half)))
  (instance (instantiate $hundredtwentyeight)))
