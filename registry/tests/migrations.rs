//! The schema of the registry goes up, down and up again.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use alga_registry::SqliteRegistry;
use alga_sqlite::{Database, Options};

/// The statements of the schema, without the table in which SQLite keeps the last number of an
/// AUTOINCREMENT column, which can't be dropped.
async fn statements(database: &Database) -> Vec<String> {
    let sql = "SELECT coalesce(sql, name) FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name";
    let statements = sqlx::query_scalar(sql).fetch_all(database.reader()).await;
    statements.unwrap()
}

async fn versions(database: &Database) -> Vec<i64> {
    let status = database.migration_status().await.unwrap();
    status.iter().map(|migration| migration.version).collect()
}

#[tokio::test]
async fn going_down_and_up_again_leaves_the_same_schema() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let database = registry.database();
    let versions = versions(database).await;
    let before = statements(database).await;
    for down_to in versions.iter().rev().skip(1).chain([&0]) {
        database.migrate_down_to(*down_to).await.unwrap();
        let status = database.migration_status().await.unwrap();
        assert!(
            status
                .iter()
                .all(|migration| migration.applied == (migration.version <= *down_to)),
            "{status:#?}"
        );
        assert_ne!(statements(database).await, before);
        database.migrate_up().await.unwrap();
        assert_eq!(statements(database).await, before);
    }
}

#[tokio::test]
async fn going_all_the_way_down_leaves_only_the_history() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let database = registry.database();
    database.migrate_down_to(0).await.unwrap();
    let left = statements(database).await;
    assert_eq!(left.len(), 2, "{left:#?}");
    assert!(
        left.iter()
            .all(|statement| statement.contains("_registry_migrations")),
        "{left:#?}"
    );
}
