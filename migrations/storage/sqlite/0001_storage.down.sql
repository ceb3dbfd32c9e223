DROP TABLE ext_storage_audit;
DROP TABLE ext_storage_usage;
DROP TABLE ext_storage_records;
