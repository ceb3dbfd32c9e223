-- Which registry this is: what it keeps elsewhere, a store of bundles, is marked with it. One row.
CREATE TABLE registry_identity (
    row INTEGER NOT NULL PRIMARY KEY CHECK (row = 1),
    id  BLOB    NOT NULL CHECK (length(id) = 16)
) STRICT;
INSERT INTO registry_identity (row, id) VALUES (1, randomblob(16));
