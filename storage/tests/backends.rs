//! A backend is finished when its lines here are green.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use alga_model::Secret;
use alga_sqlite::Options;
use alga_storage::suite::Stage;
use alga_storage::{PostgresBackend, SqliteBackend, contract_suite};
use alga_test_postgres::TestDatabase;

contract_suite!(sqlite_in_memory, stage(Options::memory()));
contract_suite!(
    sqlite_file,
    stage(Options::file(new_folder().join("storage.sqlite3")))
);

contract_suite!(postgres, on_postgres());

async fn on_postgres() -> Stage {
    let clock = Stage::clock();
    let database = TestDatabase::create().await;
    let options = alga_postgres::Options::at(Secret::new(database.url));
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _)
        .await
        .unwrap();
    Stage::new(Arc::new(backend), clock)
}

async fn stage(options: Options) -> Stage {
    let clock = Stage::clock();
    let backend = SqliteBackend::open(options, Arc::clone(&clock) as _)
        .await
        .unwrap();
    Stage::new(Arc::new(backend), clock)
}

fn new_folder() -> std::path::PathBuf {
    // Left to the cleaning of the temporary folder: the database outlives this function.
    tempfile::tempdir().unwrap().keep()
}
