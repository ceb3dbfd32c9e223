//! What only a look into the tables, or a fault in them, can show.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod failures;
mod groups;
mod upgrade;
mod verify;

use std::sync::Arc;

use alga_sqlite::{DriverError, Options};
use alga_storage::suite::Stage;
use alga_storage::{BulkItem, Error, Guard, Key, Namespace, PutRequest, SqliteBackend, Written};
use rusqlite::Connection;
use rusqlite::types::FromSql;

async fn stage() -> (Stage, Arc<SqliteBackend>) {
    stage_with(Options::memory()).await
}

async fn stage_with(options: Options) -> (Stage, Arc<SqliteBackend>) {
    let clock = Stage::clock();
    let backend = SqliteBackend::open(options, Arc::clone(&clock) as _)
        .await
        .unwrap();
    let backend = Arc::new(backend);
    (Stage::new(Arc::clone(&backend), clock), backend)
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

async fn put_to(
    install: &alga_storage::suite::Install<'_>,
    namespace: &str,
    guard: Guard,
) -> Result<Written, Error> {
    let request = PutRequest {
        namespace: Namespace::parse(namespace).unwrap(),
        item: item("k", None, guard),
        return_previous: false,
        return_current: false,
    };
    install.gate().put(&install.caller, request).await
}

/// Runs statements that no gate would let through.
async fn tamper(backend: &SqliteBackend, statements: &'static str) {
    backend
        .database()
        .with_writer(|connection| Ok::<_, DriverError>(connection.execute_batch(statements)?))
        .await
        .unwrap();
}

/// The first columns of the rows that a statement finds.
async fn column<T: FromSql + Send + 'static>(
    backend: &SqliteBackend,
    statement: &'static str,
) -> Vec<T> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare(statement)?;
        let rows = statement.query_map((), |row| row.get(0))?;
        Ok::<_, DriverError>(rows.collect::<Result<_, _>>()?)
    };
    backend.database().read(read).await.unwrap()
}
