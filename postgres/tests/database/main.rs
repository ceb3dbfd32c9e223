//! What may be between a process and its database, and go wrong there.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod losses;
mod pooler;
mod repeats;
mod tls;

use std::collections::BTreeSet;
use std::error::Error;
use std::iter::successors;
use std::num::NonZeroU32;

use alga_model::Secret;
use alga_postgres::{Database, DriverError, Options, PostgresError, Schema};
use alga_test_postgres::TestDatabase;
use futures_util::future::try_join_all;
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::Barrier;

/// Opens a database that counts.
async fn open(options: &Options) -> Result<Database, PostgresError> {
    const COUNTS: &str = "
        CREATE TABLE IF NOT EXISTS counts (name text PRIMARY KEY, count bigint NOT NULL);
        CREATE SEQUENCE IF NOT EXISTS tries;
        CREATE OR REPLACE FUNCTION succeed_at(p_try bigint, p_state text) RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO counts VALUES ('succeeded', 1) ON CONFLICT (name) DO UPDATE SET count = counts.count + 1;
            -- Sequences go on whatever is undone.
            IF nextval('tries') < p_try THEN
                RAISE EXCEPTION USING errcode = p_state;
            END IF;
            RETURN (SELECT count FROM counts WHERE name = 'succeeded');
        END $$";
    let migrations = Migrator::with_migrations(Vec::new());
    let schema = Schema::new("test", "_test_migrations", migrations);
    Database::open(schema, COUNTS, options).await
}

fn options(url: &str) -> Options {
    Options::at(Secret::new(url.to_owned()))
}

fn at_most(connections: u32) -> NonZeroU32 {
    NonZeroU32::new(connections).unwrap()
}

async fn increment(database: &Database, name: &str) -> Result<i64, DriverError> {
    const INCREMENT: &str = "
        INSERT INTO counts VALUES ($1, 1)
        ON CONFLICT (name) DO UPDATE SET count = counts.count + 1 RETURNING count";
    let sent = database.statements();
    let writing = database.write(async |connection: &mut PgConnection| {
        let row = sent.of(INCREMENT).bind(name).fetch_one(connection).await?;
        Ok::<_, DriverError>(row.get("count"))
    });
    writing.await
}

async fn count(database: &Database, name: &str) -> Result<i64, DriverError> {
    const COUNT: &str =
        "SELECT coalesce(sum(count), 0)::bigint AS count FROM counts WHERE name = $1";
    let sent = database.statements();
    let reading = database.read(async |connection: &mut PgConnection| {
        let row = sent.of(COUNT).bind(name).fetch_one(connection).await?;
        Ok::<_, DriverError>(row.get("count"))
    });
    reading.await
}

/// Uses so many connections at once, and leaves them to the pool. Answers with their processes in the server.
async fn use_at_once(database: &Database, connections: usize) -> BTreeSet<i32> {
    let all_there = Barrier::new(connections);
    let sent = database.statements();
    let using = (0..connections).map(|_| {
        database.read(async |connection: &mut PgConnection| {
            let asking = sent.of("SELECT pg_backend_pid()").fetch_one(connection);
            let process = asking.await?.get(0);
            all_there.wait().await;
            Ok::<i32, DriverError>(process)
        })
    });
    try_join_all(using).await.unwrap().into_iter().collect()
}

/// Ends all other sessions of the database, and waits until they are gone.
async fn end_sessions(database: &TestDatabase) -> usize {
    const END: &str = "
        SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut session = PgConnection::connect(&database.url).await.unwrap();
    let ended = sqlx::query(END).fetch_all(&mut session).await.unwrap();
    assert!(ended.iter().all(|ended| ended.get(0)));
    ended.len()
}

/// An error with all its sources.
fn chain(error: &(dyn Error + 'static)) -> String {
    let all = successors(Some(error), |&error| error.source()).map(ToString::to_string);
    all.collect::<Vec<_>>().join(": ")
}
