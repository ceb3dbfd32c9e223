-- How many calls of an install run at once, where that is not what the configuration says.
ALTER TABLE registry_installs ADD COLUMN concurrency INTEGER CHECK (concurrency > 0);
