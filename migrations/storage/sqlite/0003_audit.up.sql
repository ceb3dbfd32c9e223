-- A summary of removed records (operation 'expire') has no key, and stands for many; nobody asked for
-- it, so it has no request, and the store doesn't know whose extension it was. SQLite changes no
-- column in place.
CREATE TABLE ext_storage_audit_new (
    tenant_id       BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    audit_id        BLOB    NOT NULL CHECK (length(audit_id) = 16),
    at              INTEGER NOT NULL,
    install_id      BLOB    NOT NULL CHECK (length(install_id) = 16),
    extension       TEXT,
    namespace       TEXT    NOT NULL,
    key             TEXT,
    operation       TEXT    NOT NULL CHECK (operation IN ('put', 'delete', 'expire')),
    revision_before INTEGER,
    revision_after  INTEGER,
    schema_version  INTEGER,
    records         INTEGER NOT NULL DEFAULT 1 CHECK (records > 0),
    bytes           INTEGER NOT NULL,
    actor           TEXT    NOT NULL,
    request_id      TEXT,
    PRIMARY KEY (tenant_id, audit_id),
    CHECK ((key IS NULL) = (operation = 'expire'))
) STRICT, WITHOUT ROWID;

INSERT INTO ext_storage_audit_new
    (tenant_id, audit_id, at, install_id, extension, namespace, key, operation,
     revision_before, revision_after, bytes, actor, request_id)
SELECT tenant_id, audit_id, at, install_id, extension, namespace, key, operation,
       revision_before, revision_after, bytes, actor, request_id
FROM ext_storage_audit;

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_new RENAME TO ext_storage_audit;

-- Exports and retention go through the audit of all tenants in the order of time.
CREATE INDEX ext_storage_audit_by_time ON ext_storage_audit (audit_id);
