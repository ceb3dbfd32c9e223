//! A backend is finished when its lines here are green.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use alga_model::Secret;
use alga_sqlite::Options;
use alga_storage::suite::Stage;
use alga_storage::{PostgresBackend, SqliteBackend, contract_suite};
use alga_test_postgres::{NewerPgBouncer, PgBouncer, TestDatabase};

contract_suite!(sqlite_in_memory, stage(Options::memory()));
contract_suite!(
    sqlite_file,
    stage(Options::file(new_folder().join("storage.sqlite3")))
);

contract_suite!(postgres, on_postgres());
contract_suite!(pgbouncer, through_pgbouncer());
contract_suite!(
    pgbouncer_that_keeps_statements,
    through_pgbouncer_that_keeps_statements()
);
contract_suite!(citus, on_citus());
contract_suite!(citus_pgbouncer, on_citus_through_pgbouncer());

async fn on_postgres() -> Stage {
    let database = TestDatabase::create().await;
    stage_on(&alga_postgres::Options::at(Secret::new(database.url))).await
}

/// Of a pooler: fewer than clients, so that no session is anybody's own.
const SESSIONS: u32 = 4;

async fn through_pgbouncer() -> Stage {
    stage_behind_pgbouncer(&TestDatabase::create().await).await
}

/// Where functions are not passed on to where a tenant is, as each statement is in a transaction.
async fn on_citus_through_pgbouncer() -> Option<Stage> {
    let database = TestDatabase::with_citus().await?;
    Some(stage_behind_pgbouncer(&database).await)
}

async fn stage_behind_pgbouncer(database: &TestDatabase) -> Stage {
    let pooler = PgBouncer::before(database, SESSIONS);
    let options = alga_postgres::Options {
        direct_url: Some(Secret::new(database.url.clone())),
        prepared_statements: false,
        ..alga_postgres::Options::at(Secret::new(pooler.url_of(database)))
    };
    // It ends with the process of the test.
    std::mem::forget(pooler);
    stage_on(&options).await
}

/// None, which is told, where there is no `PgBouncer` that is new enough.
async fn through_pgbouncer_that_keeps_statements() -> Option<Stage> {
    const STATEMENTS: u32 = 200;
    let program = NewerPgBouncer::find()?;
    let database = TestDatabase::create().await;
    let pooler = program.before(&database, SESSIONS, STATEMENTS);
    let options = alga_postgres::Options {
        direct_url: Some(Secret::new(database.url.clone())),
        ..alga_postgres::Options::at(Secret::new(pooler.url_of(&database)))
    };
    // It ends with the process of the test.
    std::mem::forget(pooler);
    Some(stage_on(&options).await)
}

/// None, which is told, where there is no Citus.
async fn on_citus() -> Option<Stage> {
    let database = TestDatabase::with_citus().await?;
    Some(stage_on(&alga_postgres::Options::at(Secret::new(database.url))).await)
}

async fn stage_on(options: &alga_postgres::Options) -> Stage {
    let clock = Stage::clock();
    let backend = PostgresBackend::open_with_clock(options, Arc::clone(&clock) as _)
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
