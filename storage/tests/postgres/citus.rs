//! What only a look into a Citus can show. Without one, all of it is skipped.

use std::collections::BTreeSet;

use alga_storage::suite::Stage;
use alga_storage::{
    Maintenance as _, Namespace, PostgresBackend, ShardShare, StorageDatabase as _, StorageGrant,
};
use alga_test_postgres::{ClusterDatabase, TestDatabase};
use sqlx::{Executor as _, Row as _};

use crate::notices::Notices;
use crate::plans::ask_for_everything;
use crate::{options, session, stage_on};

const TABLES: [&str; 4] = [
    "ext_storage_audit",
    "ext_storage_idempotency",
    "ext_storage_records",
    "ext_storage_usage",
];

/// The tables that are distributed, with how, and whether they are where the records are.
async fn distributed_tables(database: &TestDatabase) -> Vec<(String, String, bool)> {
    const DISTRIBUTED: &str = "
        SELECT t.table_name::text AS table_name, t.distribution_column,
               t.colocation_id = r.colocation_id AS with_records
        FROM citus_tables AS t, citus_tables AS r
        WHERE r.table_name = 'ext_storage_records'::regclass
        ORDER BY t.table_name::text";
    let mut session = session(database).await;
    let found = sqlx::query(DISTRIBUTED).fetch_all(&mut session);
    let found = found.await.unwrap();
    let table = |row: &sqlx::postgres::PgRow| (row.get(0), row.get(1), row.get(2));
    found.iter().map(table).collect()
}

/// The functions that are there and not distributed.
async fn functions_left_behind(database: &TestDatabase) -> Vec<String> {
    const LEFT: &str = "
        SELECT p.proname::text FROM pg_proc AS p
        WHERE p.proname LIKE 'ext\\_storage\\_%' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_dist_object AS o
            WHERE o.classid = 'pg_proc'::regclass AND o.objid = p.oid
              AND (o.distribution_argument_index = 0 OR p.proargnames[1] <> 'p_tenant'))
        ORDER BY 1";
    let mut session = session(database).await;
    let left = sqlx::query_scalar(LEFT).fetch_all(&mut session);
    left.await.unwrap()
}

fn all_by_tenant() -> Vec<(String, String, bool)> {
    let table = |name: &str| (name.to_owned(), "tenant_id".to_owned(), true);
    TABLES.map(table).into()
}

#[tokio::test]
async fn tables_and_functions_are_spread_by_tenant_however_often_a_process_starts() {
    let Some(database) = TestDatabase::with_citus().await else {
        return;
    };
    for _ in 0..2 {
        drop(PostgresBackend::open(&options(&database)).await.unwrap());
        assert_eq!(distributed_tables(&database).await, all_by_tenant());
        assert_eq!(functions_left_behind(&database).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_was_stored_before_citus_was_added_is_spread_when_a_process_starts() {
    let Some(cluster) = ClusterDatabase::create().await else {
        return;
    };
    let database = &cluster.coordinator;
    let (stage, backend) = stage_on(database).await;
    let installs: Vec<_> = (0..8).map(|_| stage.install()).collect();
    for install in &installs {
        install.put("k", "\"before\"").await.unwrap();
    }
    let tenants: Vec<_> = installs.iter().map(|install| install.tenant).collect();
    backend.database().close().await;

    cluster.add_citus().await;
    let (stage, backend) = stage_on(database).await;
    assert_eq!(distributed_tables(database).await, all_by_tenant());
    assert_eq!(functions_left_behind(database).await, Vec::<String>::new());
    for (tenant, install) in tenants.into_iter().zip(&installs) {
        let mut same = stage.install_with(tenant, Stage::roomy());
        same.caller.install = install.caller.install;
        same.grant(Some(all()), Stage::roomy(), true);
        assert_eq!(same.get("k").await.unwrap().value.as_str(), "\"before\"");
        assert_eq!(same.put("k", "2").await.unwrap().revision.get(), 2);
        assert_eq!(backend.verify_usage(tenant, false).await.unwrap(), []);
    }
}

fn all() -> StorageGrant {
    let namespaces = ["notes", "cache"];
    StorageGrant::all_of(namespaces.map(|name| Namespace::parse(name).unwrap()))
}

#[tokio::test]
async fn nodes_and_shards_are_told_with_their_tenants() {
    let Some(database) = TestDatabase::with_citus().await else {
        return;
    };
    let (stage, backend) = stage_on(&database).await;
    let installs: Vec<_> = (0..5).map(|_| stage.install()).collect();
    for install in &installs {
        install.put("k", "1").await.unwrap();
    }
    let found = backend.distribution().await.unwrap();
    assert_eq!((found.total.tenants, found.total.records), (5, 5));
    let tables: Vec<_> = found.tables.iter().map(|table| &*table.table).collect();
    assert_eq!(tables, TABLES);
    for (pieces, tenants) in [
        (
            found.nodes.len(),
            found
                .nodes
                .iter()
                .map(|node| node.share.tenants)
                .sum::<u64>(),
        ),
        (
            found.shards.len(),
            found.shards.iter().map(|shard| shard.share.tenants).sum(),
        ),
    ] {
        assert!(pieces > 0);
        assert_eq!(tenants, 5);
    }
    let shards: u64 = found.nodes.iter().map(|node| node.shards).sum();
    assert_eq!(shards, u64::try_from(found.shards.len()).unwrap());
    assert!(found.total.disk_bytes > 0, "{found:?}");
    for tenant in &found.largest_tenants {
        let of_tenant = |shard: &&ShardShare| Some(shard.shard) == tenant.shard;
        let shard = found.shards.iter().find(of_tenant).unwrap();
        assert!(shard.share.tenants > 0, "{tenant:?}");
    }
}

/// Has whoever connects from now on be told what is sent to shards, here or elsewhere.
async fn tell_of_shards(database: &TestDatabase) {
    let mut session = session(database).await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut session)
        .await
        .unwrap();
    // Those who run what is sent would tell of it too.
    session
        .execute("SET citus.enable_ddl_propagation = off")
        .await
        .unwrap();
    for setting in [
        "citus.log_remote_commands = on",
        "citus.log_local_commands = on",
        "client_min_messages = notice",
    ] {
        let alter = format!("ALTER DATABASE {name} SET {setting}");
        session.execute(sqlx::AssertSqlSafe(alter)).await.unwrap();
    }
}

async fn is_alone(database: &TestDatabase) -> bool {
    let nodes: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_dist_node")
        .fetch_one(&mut session(database).await)
        .await
        .unwrap();
    nodes == 1
}

/// The shards that are named, without the tables' own names.
fn shards_in(told: &[String]) -> BTreeSet<&str> {
    let words = told
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let is_shard = |word: &&str| {
        let table = word.trim_end_matches(|c: char| c.is_ascii_digit());
        TABLES
            .iter()
            .any(|name| table.strip_suffix('_') == Some(name))
            && table.len() < word.len()
    };
    words.filter(is_shard).collect()
}

#[tokio::test]
async fn all_that_a_guest_asks_is_for_one_shard_of_each_table() {
    let Some(database) = TestDatabase::with_citus().await else {
        return;
    };
    // Makes the tables.
    drop(stage_on(&database).await);
    tell_of_shards(&database).await;
    let (stage, _backend) = stage_on(&database).await;
    let (told, _until_the_end) = Notices::listen();
    let install = stage.install();
    ask_for_everything(&stage, &install).await;
    let told = told.take();
    let sent = told.iter().filter(|text| text.contains("ext_storage_"));
    assert!(sent.count() > 15, "{told:#?}");
    let shards = shards_in(&told);
    for table in TABLES {
        let of_table = shards.iter().filter(|shard| shard.starts_with(table));
        assert!(of_table.count() <= 1, "{shards:?}");
    }
    // What a function does on a worker isn't heard here; on one server alone all of it is.
    if is_alone(&database).await {
        assert_eq!(shards.len(), TABLES.len(), "{told:#?}");
    } else {
        let passed_on = told
            .iter()
            .filter(|text| text.contains("FROM public.ext_storage_put_"));
        assert!(passed_on.count() > 10, "{told:#?}");
    }
    // A transaction of several steps would be one that waits for the network with its locks held.
    let steps = told.iter().filter(|text| text.contains("issuing BEGIN"));
    assert_eq!(steps.count(), 0, "{told:#?}");
}
