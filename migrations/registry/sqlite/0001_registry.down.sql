DROP TABLE registry_audit;
DROP TABLE registry_installs;
DROP TABLE registry_versions;
DROP TABLE registry_extensions;
