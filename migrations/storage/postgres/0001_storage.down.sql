DROP FUNCTION ext_storage_verify_1, ext_storage_sweep_1, ext_storage_delete_1, ext_storage_put_one_1, ext_storage_put_1,
    ext_storage_seen_1, ext_storage_pass_by_1, ext_storage_reclaim_1, ext_storage_make_room_1, ext_storage_expire_1, ext_storage_uuid7_1;
DROP TABLE ext_storage_idempotency, ext_storage_audit, ext_storage_usage, ext_storage_records;
