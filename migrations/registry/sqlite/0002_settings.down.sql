DROP INDEX registry_audit_of_time;
UPDATE registry_audit SET action = 'install.quotas' WHERE action = 'install.limits';
ALTER TABLE registry_installs RENAME COLUMN limits TO quotas;
DROP TABLE registry_tenants;
DROP TABLE registry_switches;
