-- Uploads whose parts come in requests of their own can't go on; the store is swept of them. All others can be published.
DROP TABLE registry_bundle_uploads;
