-- What applies to the whole deployment. No row until it is first changed, and never another one.
CREATE TABLE registry_switches (
    id                 INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    storage            INTEGER NOT NULL CHECK (storage IN (0, 1)),
    generation         INTEGER NOT NULL CHECK (generation > 0),
    updated_at         INTEGER NOT NULL,
    -- A JSON array of names; NULL allows all.
    allowed_extensions TEXT
) STRICT;

-- What applies to all installs of a tenant. No row until it is first changed.
CREATE TABLE registry_tenants (
    tenant_id  BLOB    NOT NULL PRIMARY KEY CHECK (length(tenant_id) = 16),
    storage    INTEGER NOT NULL CHECK (storage IN (0, 1)),
    generation INTEGER NOT NULL CHECK (generation > 0),
    updated_at INTEGER NOT NULL,
    limits     TEXT
) STRICT;

-- They always could hold limits of requests and rates too. A filter must find both names' records.
ALTER TABLE registry_installs RENAME COLUMN quotas TO limits;
UPDATE registry_audit SET action = 'install.limits' WHERE action = 'install.quotas';

-- Finds the oldest records, which are removed first.
CREATE INDEX registry_audit_of_time ON registry_audit (at, seq);
