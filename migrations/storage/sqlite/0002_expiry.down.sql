DROP INDEX ext_storage_usage_due_tenants;
DROP INDEX ext_storage_usage_due_namespaces;
DROP INDEX ext_storage_records_expiry;

CREATE INDEX ext_storage_records_expiry
    ON ext_storage_records (tenant_id, install_id, expires_at, bytes)
    WHERE expires_at IS NOT NULL;

ALTER TABLE ext_storage_usage DROP COLUMN next_expiry;
