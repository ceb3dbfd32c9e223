-- Summaries of removed records are lost: the older table has no place for them.
CREATE TABLE ext_storage_audit_old (
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

INSERT INTO ext_storage_audit_old
SELECT tenant_id, audit_id, at, install_id, extension, namespace, key, operation,
       revision_before, revision_after, bytes, actor, request_id
FROM ext_storage_audit
WHERE operation <> 'expire';

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_old RENAME TO ext_storage_audit;
