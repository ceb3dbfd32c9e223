-- Which registry this is: what it keeps elsewhere, a store of bundles, is marked with it. One row.
CREATE TABLE registry_identity (
    row integer PRIMARY KEY CHECK (row = 1),
    id  uuid    NOT NULL
);
INSERT INTO registry_identity (row, id) VALUES (1, gen_random_uuid());
