CREATE TABLE ext_storage_audit_old (
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

INSERT INTO ext_storage_audit_old SELECT * FROM ext_storage_audit WHERE operation IS NOT NULL;

-- A row of several requests becomes a row a change. The first 12 bytes of an id are those of no other
-- one, so the number of the change can stand behind them.
INSERT INTO ext_storage_audit_old
SELECT a.tenant_id, unhex(substr(hex(a.audit_id), 1, 24) || printf('%08x', c.key)), a.at, a.install_id, a.extension,
       a.namespace, c.value ->> 5, c.value ->> 6, c.value ->> 7, 1, c.value ->> 3,
       json_array(json_array(c.value ->> 0, c.value ->> 1, c.value ->> 2, c.value ->> 3, c.value ->> 4))
FROM ext_storage_audit AS a CROSS JOIN json_each(a.changes) AS c
WHERE a.operation IS NULL;

DROP TABLE ext_storage_audit;
ALTER TABLE ext_storage_audit_old RENAME TO ext_storage_audit;

CREATE INDEX ext_storage_audit_by_time ON ext_storage_audit (audit_id);
