-- Bundles on their way into the store, and what became of them. An aid for those who send and follow them: the
-- store alone knows which bytes there are.
CREATE TABLE registry_bundle_uploads (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    actor         TEXT    NOT NULL,
    filename      TEXT    NOT NULL,
    content_type  TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    declared_hash BLOB    CHECK (length(declared_hash) = 32),
    received      INTEGER NOT NULL CHECK (received BETWEEN 0 AND size),
    state         TEXT    NOT NULL CHECK (state IN ('receiving', 'staged', 'failed', 'published', 'aborted')),
    -- The code of the error that it failed with.
    code          TEXT    CHECK (code IS NULL OR state = 'failed'),
    sha256        BLOB    CHECK (length(sha256) = 32),
    etag          TEXT,
    -- What the store calls it, where its parts come in requests of their own.
    store_upload  TEXT,
    -- The ETags of the parts that are there, a JSON array.
    parts         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

-- Finds the oldest ones, which are removed first.
CREATE INDEX registry_bundle_uploads_of_time ON registry_bundle_uploads (updated_at, id);
