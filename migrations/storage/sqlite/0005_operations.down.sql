DROP TABLE ext_storage_idempotency;
