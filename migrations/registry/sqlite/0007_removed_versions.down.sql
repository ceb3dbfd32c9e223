DROP TABLE registry_removed_versions;
