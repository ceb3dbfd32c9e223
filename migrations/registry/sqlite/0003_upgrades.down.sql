DROP INDEX registry_installs_of_former_version;
ALTER TABLE registry_installs DROP COLUMN former_grants;
ALTER TABLE registry_installs DROP COLUMN former_version_id;
