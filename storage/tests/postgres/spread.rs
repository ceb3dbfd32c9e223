//! Where what is stored is, and whose.

use alga_storage::{Distribution, StorageDatabase as _};
use alga_test_postgres::TestDatabase;
use sqlx::Executor as _;

use crate::{session, stage_on};

fn disk_bytes(found: &Distribution) -> u64 {
    found.tables.iter().map(|table| table.disk_bytes).sum()
}

#[tokio::test]
async fn tables_and_the_largest_tenants_are_told() {
    let database = TestDatabase::create().await;
    let (stage, backend) = stage_on(&database).await;
    let empty = backend.distribution().await.unwrap();
    assert_eq!((empty.total.tenants, empty.largest_tenants.len()), (0, 0));

    let (small, large) = (stage.install(), stage.install());
    small.put("a", "1").await.unwrap();
    for key in ["a", "b", "c"] {
        large.put(key, "12345").await.unwrap();
    }
    let found = backend.distribution().await.unwrap();
    let tenants: Vec<_> = found
        .largest_tenants
        .iter()
        .map(|tenant| (tenant.tenant_id, tenant.records, tenant.shard))
        .collect();
    assert_eq!(tenants, [(large.tenant, 3, None), (small.tenant, 1, None)]);
    assert_eq!((found.total.tenants, found.total.records), (2, 4));
    let bytes: u64 = found
        .largest_tenants
        .iter()
        .map(|tenant| tenant.bytes)
        .sum();
    assert_eq!(found.total.bytes, bytes);
    let tables: Vec<_> = found.tables.iter().map(|table| &*table.table).collect();
    let expected = ["audit", "idempotency", "records", "usage"];
    assert_eq!(tables, expected.map(|table| format!("ext_storage_{table}")));
    assert_eq!(found.total.disk_bytes, disk_bytes(&found));
    assert!(disk_bytes(&found) > disk_bytes(&empty));
    assert!(found.nodes.is_empty() && found.shards.is_empty());
}

/// There is no Citus here: tables and a function stand in for what it has, by the names and types of its
/// source.
#[tokio::test]
async fn shards_are_told_by_what_citus_says_of_them() {
    const STAND_IN: &str = "
        SET allow_system_table_mods = on;
        INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
            VALUES (99999, 'citus', 10, 'public'::regnamespace, false, '13.0');
        CREATE TABLE pg_dist_shard (logicalrelid regclass, shardid bigint, shardminvalue text);
        CREATE TABLE citus_shards
            (table_name regclass, shardid bigint, nodename text, nodeport integer, shard_size bigint);
        INSERT INTO pg_dist_shard VALUES
            ('ext_storage_records', 1, '-2147483648'), ('ext_storage_records', 2, '0'),
            ('ext_storage_audit', 3, '-2147483648'), ('ext_storage_audit', 4, '0'),
            ('_storage_migrations', 5, '0');
        INSERT INTO citus_shards VALUES
            ('ext_storage_records', 1, 'one.example', 5432, 100), ('ext_storage_records', 2, 'two.example', 5432, 300),
            ('ext_storage_audit', 3, 'one.example', 5432, 10), ('ext_storage_audit', 4, 'two.example', 5432, NULL),
            ('_storage_migrations', 5, 'two.example', 5432, 1000);
        CREATE FUNCTION get_shard_id_for_distribution_column(regclass, uuid) RETURNS bigint
            LANGUAGE sql AS 'SELECT 2::bigint';";
    let database = TestDatabase::create().await;
    let (stage, backend) = stage_on(&database).await;
    let install = stage.install();
    install.put("a", "1").await.unwrap();
    session(&database).await.execute(STAND_IN).await.unwrap();

    let found = backend.distribution().await.unwrap();
    let shards: Vec<_> = found
        .shards
        .iter()
        .map(|shard| {
            (
                shard.shard,
                &*shard.node,
                shard.share.tenants,
                shard.share.disk_bytes,
            )
        })
        .collect();
    assert_eq!(
        shards,
        [
            (1, "one.example:5432", 0, 110),
            (2, "two.example:5432", 1, 300)
        ]
    );
    assert_eq!(found.largest_tenants[0].tenant_id, install.tenant);
    assert_eq!(found.largest_tenants[0].shard, Some(2));
    assert_eq!((found.nodes.len(), found.total.disk_bytes), (2, 410));
}
