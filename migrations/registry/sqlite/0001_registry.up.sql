-- Ids are the 16 bytes of a UUID, times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE registry_extensions (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name       TEXT    NOT NULL UNIQUE,
    publisher  TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE registry_versions (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    extension_id BLOB    NOT NULL REFERENCES registry_extensions (id),
    version      TEXT    NOT NULL,
    content_hash BLOB    NOT NULL UNIQUE CHECK (length(content_hash) = 32),
    size         INTEGER NOT NULL CHECK (size >= 0),
    created_at   INTEGER NOT NULL,
    manifest     TEXT    NOT NULL,
    UNIQUE (extension_id, version)
) STRICT;

-- Pages the versions of an extension, and lets an install name its extension and version as a pair.
CREATE UNIQUE INDEX registry_versions_of_extension ON registry_versions (extension_id, id);

CREATE TABLE registry_installs (
    id                    BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant_id             BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    extension_id          BLOB    NOT NULL,
    version_id            BLOB    NOT NULL,
    state                 TEXT    NOT NULL CHECK (state IN ('enabled', 'disabled', 'uninstalled')),
    allow_envelope_config INTEGER NOT NULL CHECK (allow_envelope_config IN (0, 1)),
    generation            INTEGER NOT NULL CHECK (generation > 0),
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    quotas                TEXT,
    grants                TEXT    NOT NULL,
    config                TEXT    NOT NULL,
    FOREIGN KEY (extension_id, version_id) REFERENCES registry_versions (extension_id, id)
) STRICT;

CREATE INDEX registry_installs_of_tenant ON registry_installs (tenant_id, id);
CREATE INDEX registry_installs_of_tenant_extension ON registry_installs (tenant_id, extension_id, id);
CREATE INDEX registry_installs_of_extension ON registry_installs (extension_id, id);
CREATE INDEX registry_installs_of_version ON registry_installs (extension_id, version_id);

-- No references to the rows above: the audit outlives what it describes.
-- AUTOINCREMENT, so that a number is never given twice, not even after old records were removed.
CREATE TABLE registry_audit (
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    request_id TEXT,
    action     TEXT    NOT NULL,
    tenant_id  BLOB    CHECK (length(tenant_id) = 16),
    install_id BLOB    CHECK (length(install_id) = 16),
    extension  TEXT,
    details    TEXT    NOT NULL
) STRICT;

CREATE INDEX registry_audit_of_tenant ON registry_audit (tenant_id);
CREATE INDEX registry_audit_of_install ON registry_audit (install_id);
CREATE INDEX registry_audit_of_extension ON registry_audit (extension);
