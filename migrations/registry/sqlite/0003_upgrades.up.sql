-- What an install was before its last upgrade, for as long as it can go back to that.
ALTER TABLE registry_installs ADD COLUMN former_version_id BLOB REFERENCES registry_versions (id);
ALTER TABLE registry_installs ADD COLUMN former_grants TEXT;

-- Finds who would go back to a version.
CREATE INDEX registry_installs_of_former_version ON registry_installs (former_version_id)
    WHERE former_version_id IS NOT NULL;
