-- Bundles on their way into the store, and what became of them. An aid for those who send and follow them: the
-- store alone knows which bytes there are.
--
-- A plain table as the others are, also where the database has Citus.
CREATE TABLE registry_bundle_uploads (
    id            uuid        PRIMARY KEY,
    actor         text        NOT NULL,
    filename      text        NOT NULL,
    content_type  text        NOT NULL,
    size          bigint      NOT NULL,
    declared_hash bytea       CHECK (octet_length(declared_hash) = 32),
    received      bigint      NOT NULL CHECK (received BETWEEN 0 AND size),
    state         text        COLLATE "C" NOT NULL
        CHECK (state IN ('receiving', 'staged', 'failed', 'published', 'aborted')),
    -- The code of the error that it failed with.
    code          text        COLLATE "C" CHECK (code IS NULL OR state = 'failed'),
    sha256        bytea       CHECK (octet_length(sha256) = 32),
    etag          text,
    -- What the store calls it, where its parts come in requests of their own.
    store_upload  text,
    -- The ETags of the parts that are there, a JSON array.
    parts         json        NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- Finds the oldest ones, which are removed first.
CREATE INDEX registry_bundle_uploads_of_time ON registry_bundle_uploads (updated_at, id);
