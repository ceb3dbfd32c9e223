//! Sessions of PostgreSQL that end while they are idle, as where a server was restarted.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use alga_model::{ContentHash, Secret, Timestamp};
use alga_postgres::Options;
use alga_registry::{Change, ExtensionKey, NewVersion, PostgresRegistry, Registry as _};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, PgConnection};

/// Ends all sessions of the database but this one.
async fn end_sessions(database: &TestDatabase) {
    const END: &str = "
        SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut session = PgConnection::connect(&database.url).await.unwrap();
    let ended = sqlx::query(END).execute(&mut session).await.unwrap();
    assert!(ended.rows_affected() > 0, "there was none to end");
}

#[tokio::test]
async fn neither_reads_nor_changes_notice_that_idle_sessions_have_ended() {
    let database = TestDatabase::create().await;
    let options = Options::at(Secret::new(database.url.clone()));
    let registry = PostgresRegistry::open(&options).await.unwrap();
    for version in ["1.0.0", "1.0.1", "1.0.2"] {
        registry.switches().await.unwrap();
        end_sessions(&database).await;
        let new = NewVersion {
            name: "com.example.notes".parse().unwrap(),
            publisher: "Example Inc.".to_owned(),
            version: version.to_owned(),
            content_hash: ContentHash::of(version.as_bytes()),
            manifest: "{}".to_owned(),
            size: 5,
        };
        let change = Change {
            actor: "admin",
            request_id: None,
            now: Timestamp::from_millis(1_795_286_981_000),
        };
        // A transaction that has not begun has done nothing.
        let registered = registry.register_version(&new, change).await.unwrap();
        end_sessions(&database).await;
        let key = ExtensionKey::Id(registered.extension.id);
        let found = registry.extension(&key).await.unwrap();
        assert_eq!(found, Some(registered.extension));
    }
}
