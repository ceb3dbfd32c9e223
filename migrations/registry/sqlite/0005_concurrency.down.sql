ALTER TABLE registry_installs DROP COLUMN concurrency;
