-- What the removed versions consisted of is forgotten: their names and numbers can be published again with
-- other content.
DROP TABLE registry_removed_versions;
