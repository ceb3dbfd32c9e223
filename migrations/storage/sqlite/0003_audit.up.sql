-- One row a request: a write of many records told its tenant, actor and so on once for each of them,
-- and cost more in the audit than in the records. SQLite changes no column in place.
CREATE TABLE ext_storage_audit_new (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    audit_id   BLOB    NOT NULL CHECK (length(audit_id) = 16),
    at         INTEGER NOT NULL,
    install_id BLOB    NOT NULL CHECK (length(install_id) = 16),
    -- None where expired records were removed: the store doesn't know whose they were.
    extension  TEXT,
    namespace  TEXT    NOT NULL,
    operation  TEXT    NOT NULL CHECK (operation IN ('put', 'delete', 'expire')),
    actor      TEXT    NOT NULL,
    -- None where nobody asked.
    request_id TEXT,
    records    INTEGER NOT NULL CHECK (records > 0),
    bytes      INTEGER NOT NULL,
    -- Each record that was changed: [key, revision before, revision after, bytes, schema version].
    -- None where expired records were removed.
    changes    TEXT,
    PRIMARY KEY (tenant_id, audit_id)
) STRICT, WITHOUT ROWID;

INSERT INTO ext_storage_audit_new
SELECT tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id, 1, bytes,
       json_array(json_array(key, revision_before, revision_after, bytes, NULL))
FROM ext_storage_audit;

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_new RENAME TO ext_storage_audit;

-- Exports and retention go through the audit of all tenants in the order of time.
CREATE INDEX ext_storage_audit_by_time ON ext_storage_audit (audit_id);
