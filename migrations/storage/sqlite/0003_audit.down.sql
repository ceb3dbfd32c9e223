-- What was told of removed records is lost: the older table has no place for it.
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

-- A row of many records becomes many rows. The first 12 bytes of an id are its time and a counter, so
-- the number of the record can stand behind them.
INSERT INTO ext_storage_audit_old
SELECT a.tenant_id,
       iif(a.records = 1, a.audit_id, unhex(substr(hex(a.audit_id), 1, 24) || printf('%08x', c.key))),
       a.at, a.install_id, a.extension, a.namespace, c.value ->> 0, a.operation,
       c.value ->> 1, c.value ->> 2, c.value ->> 3, a.actor, a.request_id
FROM ext_storage_audit AS a CROSS JOIN json_each(a.changes) AS c
WHERE a.operation <> 'expire';

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_old RENAME TO ext_storage_audit;
