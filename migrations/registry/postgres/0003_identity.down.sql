-- Another is made up when it comes back; the store of bundles is then taken over with `bundle gc --take-over`.
DROP TABLE registry_identity;
