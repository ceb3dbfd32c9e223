//! What only a look into a PostgreSQL, or two of its sessions at once, can show.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod citus;
mod crash;
mod losses;
mod migrations;
mod notices;
mod outage;
mod plans;
mod races;
mod spread;
mod verify;

use std::sync::Arc;

use alga_model::Secret;
use alga_postgres::Options;
use alga_storage::suite::Stage;
use alga_storage::{BulkItem, Guard, Key, PostgresBackend};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, PgConnection};

fn options(database: &TestDatabase) -> Options {
    Options::at(Secret::new(database.url.clone()))
}

async fn stage_on(database: &TestDatabase) -> (Stage, Arc<PostgresBackend>) {
    let clock = Stage::clock();
    let options = options(database);
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _);
    let backend = Arc::new(backend.await.unwrap());
    (Stage::new(Arc::clone(&backend), clock), backend)
}

/// A database of each kind that there is: a plain one, and where there is a Citus, one there.
async fn of_each_kind() -> Vec<TestDatabase> {
    let plain = TestDatabase::create().await;
    [plain]
        .into_iter()
        .chain(TestDatabase::with_citus().await)
        .collect()
}

/// A session of its own in the database.
async fn session(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.unwrap()
}

async fn is_on_citus(session: &mut PgConnection) -> bool {
    const CITUS: &str = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')";
    sqlx::query_scalar(CITUS).fetch_one(session).await.unwrap()
}

fn item(key: &str, ttl_seconds: Option<u64>, guard: Guard) -> BulkItem {
    BulkItem {
        key: Key::parse(key).unwrap(),
        value: "1".to_owned(),
        metadata: None,
        ttl_seconds,
        schema_version: None,
        guard,
    }
}

#[tokio::test]
async fn no_text_for_debugging_shows_a_password() {
    let database = TestDatabase::create().await;
    let url = database.url.replacen("postgres@", "postgres:hunter2@", 1);
    assert!(url.contains("hunter2"), "{url}");
    let backend = PostgresBackend::open(&Options::at(Secret::new(url))).await;
    let text = format!("{:?}", backend.unwrap());
    assert!(!text.contains("hunter2"), "{text}");
}
