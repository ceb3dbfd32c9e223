-- Changes that share a namespace and a commit share a row: of many small writes at once, the row was
-- dearer than the record. SQLite changes no column in place.
CREATE TABLE ext_storage_audit_new (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    audit_id   BLOB    NOT NULL CHECK (length(audit_id) = 16),
    at         INTEGER NOT NULL,
    install_id BLOB    NOT NULL CHECK (length(install_id) = 16),
    -- None where expired records were removed: the store doesn't know whose they were.
    extension  TEXT,
    namespace  TEXT    NOT NULL,
    -- None in a row of several requests, whose changes say it themselves.
    operation  TEXT CHECK (operation IN ('put', 'delete', 'expire')),
    actor      TEXT,
    -- None where nobody asked, too.
    request_id TEXT,
    records    INTEGER NOT NULL CHECK (records > 0),
    bytes      INTEGER NOT NULL,
    -- Each record that was changed: [key, revision before, revision after, bytes, schema version], and in
    -- a row of several requests also operation, actor, request id. None where expired records were removed.
    changes    TEXT,
    PRIMARY KEY (tenant_id, audit_id)
) STRICT, WITHOUT ROWID;

INSERT INTO ext_storage_audit_new SELECT * FROM ext_storage_audit;

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_new RENAME TO ext_storage_audit;

-- Exports and retention go through the audit of all tenants in the order of time.
CREATE INDEX ext_storage_audit_by_time ON ext_storage_audit (audit_id);
