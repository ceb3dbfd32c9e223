//! How the schema is made, by one process or many, and taken away again.

use std::sync::Arc;

use alga_storage::PostgresBackend;
use alga_storage::suite::Stage;
use alga_test_postgres::TestDatabase;
use tokio::task::JoinSet;

use crate::{of_each_kind, options, session};

/// Tables, indexes and functions, with what they are made of.
async fn schema(database: &TestDatabase) -> Vec<String> {
    const SCHEMA: &str = "
        SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        ORDER BY 1";
    let mut session = session(database).await;
    let found = sqlx::query_scalar(SCHEMA).fetch_all(&mut session).await;
    found.unwrap()
}

#[tokio::test]
async fn going_down_and_up_again_leaves_the_same_schema() {
    for database in of_each_kind().await {
        go_down_and_up_again(&database).await;
    }
}

async fn go_down_and_up_again(database: &TestDatabase) {
    let empty = schema(database).await;
    let backend = PostgresBackend::open(&options(database)).await.unwrap();
    let before = schema(database).await;
    assert!(before.len() > empty.len() + 20, "{before:#?}");
    backend.database().migrate_down_to(0).await.unwrap();
    let mut left = schema(database).await;
    left.retain(|it| !it.contains("_storage_migrations"));
    assert_eq!(left, empty, "something is left");
    backend.database().migrate_up().await.unwrap();
    assert_eq!(schema(database).await, before);
}

#[tokio::test]
async fn many_processes_may_start_on_an_empty_database_at_once() {
    for database in of_each_kind().await {
        start_many(&database).await;
    }
}

async fn start_many(database: &TestDatabase) {
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let options = options(database);
        opening.spawn(async move { PostgresBackend::open(&options).await });
    }
    for opened in opening.join_all().await {
        let status = opened.unwrap().database().migration_status().await.unwrap();
        assert!(status.iter().all(|migration| migration.applied));
    }
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let database = TestDatabase::create().await;
    drop(PostgresBackend::open(&options(&database)).await.unwrap());
    let newer =
        "INSERT INTO _storage_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'newer', true, '', 0)";
    sqlx::query(newer)
        .execute(&mut session(&database).await)
        .await
        .unwrap();
    let refused = PostgresBackend::open(&options(&database))
        .await
        .unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("schema version 9999"), "{text}");
}

#[tokio::test]
async fn what_a_pooler_without_prepared_statements_is_given_works_too() {
    let database = TestDatabase::create().await;
    let options = alga_postgres::Options {
        prepared_statements: false,
        ..options(&database)
    };
    let clock = Stage::clock();
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _);
    let stage = Stage::new(Arc::new(backend.await.unwrap()), clock);
    let install = stage.install();
    for round in 1..=20 {
        let written = install.put("k", "1").await.unwrap();
        assert_eq!(written.revision.get(), round);
    }
    assert_eq!(install.get("k").await.unwrap().revision.get(), 20);
}

/// What Citus refuses of the schema of a distributed table, and what it would not pass on to where a tenant is.
#[tokio::test]
async fn the_schema_is_one_that_citus_distributes() {
    const REFUSED: &str = "
        SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'foreign key ' || conname FROM pg_constraint WHERE contype = 'f'
        UNION ALL SELECT 'sequence ' || relname FROM pg_class
            WHERE relkind = 'S' AND relname LIKE 'ext_storage_%'
        UNION ALL SELECT 'unique index without the tenant: ' || i.indexrelid::regclass
            FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
            WHERE i.indisunique AND t.relname LIKE 'ext_storage_%' AND NOT EXISTS (
                SELECT FROM pg_attribute AS a
                WHERE a.attrelid = t.oid AND a.attname = 'tenant_id' AND a.attnum = ANY (i.indkey))
        UNION ALL SELECT 'table without a tenant: ' || t.relname FROM pg_class AS t
            WHERE t.relkind = 'r' AND t.relname LIKE 'ext_storage_%' AND NOT EXISTS (
                SELECT FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attname = 'tenant_id')
        UNION ALL SELECT 'function that does not begin with the tenant: ' || p.proname FROM pg_proc AS p
            WHERE p.proname LIKE 'ext_storage_%' AND p.prosrc LIKE '%ext_storage_%'
              AND p.proargnames[1] <> 'p_tenant'";
    let database = TestDatabase::create().await;
    drop(PostgresBackend::open(&options(&database)).await.unwrap());
    let refused: Vec<String> = sqlx::query_scalar(REFUSED)
        .fetch_all(&mut session(&database).await)
        .await
        .unwrap();
    assert_eq!(refused, Vec::<String>::new());
}
