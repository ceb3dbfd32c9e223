-- What the versions that were removed consisted of: the name and number of a version stand for one content for ever.
CREATE TABLE registry_removed_versions (
    extension_id BLOB    NOT NULL REFERENCES registry_extensions (id),
    version      TEXT    NOT NULL,
    content_hash BLOB    NOT NULL CHECK (length(content_hash) = 32),
    removed_at   INTEGER NOT NULL,
    PRIMARY KEY (extension_id, version)
) STRICT, WITHOUT ROWID;
