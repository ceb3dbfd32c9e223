-- What was answered to writes that may be repeated because their answer was lost. Only what was done: a
-- refused write changed nothing and may be judged again.
CREATE TABLE ext_storage_idempotency (
    tenant_id    BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    install_id   BLOB    NOT NULL CHECK (length(install_id) = 16),
    operation_id BLOB    NOT NULL CHECK (length(operation_id) = 16),
    -- Of what the write asked for: another one with the same id is refused.
    digest       BLOB    NOT NULL CHECK (length(digest) = 16),
    -- After a day; sooner where the answer holds values.
    expires_at   INTEGER NOT NULL,
    result       TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, install_id, operation_id)
) STRICT, WITHOUT ROWID;

-- For their removal.
CREATE INDEX ext_storage_idempotency_by_expiry ON ext_storage_idempotency (expires_at);
