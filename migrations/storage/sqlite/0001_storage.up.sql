-- The tenant leads every key, as it is the distribution column on Citus; both databases keep the
-- same shape. Ids are the 16 bytes of a UUID, times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE ext_storage_records (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    install_id BLOB    NOT NULL CHECK (length(install_id) = 16),
    namespace  TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    revision   INTEGER NOT NULL CHECK (revision > 0),
    -- value and metadata together, in bytes: what quotas count.
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    encoding   TEXT    NOT NULL DEFAULT 'json' CHECK (encoding IN ('json', 'bytes')),
    metadata   TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, install_id, namespace, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX ext_storage_records_expiry
    ON ext_storage_records (tenant_id, install_id, expires_at, bytes)
    WHERE expires_at IS NOT NULL;

-- One row a namespace. The totals of an install stand under the empty namespace, those of a tenant
-- under the empty install: neither is a valid name, and a write so reads all it needs by key.
CREATE TABLE ext_storage_usage (
    tenant_id      BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    install_id     BLOB    NOT NULL CHECK (length(install_id) IN (0, 16)),
    namespace      TEXT    NOT NULL,
    keys           INTEGER NOT NULL CHECK (keys >= 0),
    bytes          INTEGER NOT NULL CHECK (bytes >= 0),
    -- Of an install: its namespaces that hold records.
    namespaces     INTEGER NOT NULL DEFAULT 0 CHECK (namespaces >= 0),
    -- Of a namespace: the greatest revision ever removed from it, and how often it was changed.
    revision_floor INTEGER NOT NULL DEFAULT 0 CHECK (revision_floor >= 0),
    change_seq     INTEGER NOT NULL DEFAULT 0 CHECK (change_seq >= 0),
    PRIMARY KEY (tenant_id, install_id, namespace)
) STRICT, WITHOUT ROWID;

-- One row a mutation, written in its transaction. Never values. audit_id is a UUID of version 7, so
-- the rows that one process writes stand in the order of their making.
CREATE TABLE ext_storage_audit (
    tenant_id       BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    audit_id        BLOB    NOT NULL CHECK (length(audit_id) = 16),
    at              INTEGER NOT NULL,
    install_id      BLOB    NOT NULL CHECK (length(install_id) = 16),
    extension       TEXT    NOT NULL,
    namespace       TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    operation       TEXT    NOT NULL CHECK (operation IN ('put', 'delete')),
    revision_before INTEGER,
    revision_after  INTEGER,
    bytes           INTEGER NOT NULL,
    actor           TEXT    NOT NULL,
    request_id      TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, audit_id)
) STRICT, WITHOUT ROWID;
