-- No record of a namespace, or of a tenant in the row of its totals, expires before this instant.
-- Later than that one may have, or may have been overwritten since.
ALTER TABLE ext_storage_usage ADD COLUMN next_expiry INTEGER;

DROP INDEX ext_storage_records_expiry;

-- Finds what is expired in a namespace, and counts it without touching the records.
CREATE INDEX ext_storage_records_expiry
    ON ext_storage_records (tenant_id, install_id, namespace, expires_at, bytes)
    WHERE expires_at IS NOT NULL;

UPDATE ext_storage_usage SET next_expiry = (
    SELECT min(expires_at) FROM ext_storage_records AS r
    WHERE r.tenant_id = ext_storage_usage.tenant_id
      AND r.install_id = ext_storage_usage.install_id
      AND r.namespace = ext_storage_usage.namespace
      AND expires_at IS NOT NULL
) WHERE namespace <> '';

UPDATE ext_storage_usage SET next_expiry = (
    SELECT min(n.next_expiry) FROM ext_storage_usage AS n
    WHERE n.tenant_id = ext_storage_usage.tenant_id AND n.namespace <> ''
) WHERE install_id = x'';

-- The namespaces of a tenant that may hold expired records.
CREATE INDEX ext_storage_usage_due_namespaces
    ON ext_storage_usage (tenant_id, next_expiry)
    WHERE next_expiry IS NOT NULL AND namespace <> '';

-- The tenants that may. The only index that doesn't begin with the tenant: a sweep asks for all.
CREATE INDEX ext_storage_usage_due_tenants
    ON ext_storage_usage (next_expiry)
    WHERE next_expiry IS NOT NULL AND namespace = '';
