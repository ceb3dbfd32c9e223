//! What the database undoes is done again; what takes long is let.

use std::time::Duration;

use alga_postgres::{Database, DriverError, Options};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::{count, open, options};

/// Does something that the database undoes until the `nth` try, with this reason.
async fn succeed_at(database: &Database, nth: i64, state: &str) -> Result<i64, DriverError> {
    const SUCCEED: &str = "SELECT succeed_at($1, $2) AS count";
    let sent = database.statements();
    let writing = database.write(async |connection: &mut PgConnection| {
        let succeeding = sent.of(SUCCEED).bind(nth).bind(state);
        let row = succeeding.fetch_one(connection).await?;
        Ok::<_, DriverError>(row.get("count"))
    });
    writing.await
}

/// How often it was tried so far.
async fn tries(test_database: &TestDatabase) -> i64 {
    let mut session = PgConnection::connect(&test_database.url).await.unwrap();
    let tries = sqlx::query_scalar("SELECT last_value FROM tries");
    tries.fetch_one(&mut session).await.unwrap()
}

#[tokio::test]
async fn what_the_database_undid_for_others_is_repeated_and_done_once() {
    for prepared_statements in [true, false] {
        for state in ["40001", "40P01"] {
            let test_database = TestDatabase::create().await;
            let options = Options {
                prepared_statements,
                ..options(&test_database.url)
            };
            let database = open(&options).await.unwrap();
            assert_eq!(succeed_at(&database, 4, state).await.unwrap(), 1, "{state}");
            assert_eq!(tries(&test_database).await, 4);
            assert_eq!(count(&database, "succeeded").await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn what_the_database_undoes_again_and_again_is_given_up() {
    let test_database = TestDatabase::create().await;
    let database = open(&options(&test_database.url)).await.unwrap();
    let undone = succeed_at(&database, 5, "40P01").await.unwrap_err();
    assert!(undone.is_passing(), "{undone:?}");
    assert_eq!(tries(&test_database).await, 4);
    assert_eq!(count(&database, "succeeded").await.unwrap(), 0);
}

#[tokio::test]
async fn what_failed_for_other_reasons_is_not_repeated() {
    for (state, passes) in [("23505", false), ("57014", true), ("53100", true)] {
        let test_database = TestDatabase::create().await;
        let database = open(&options(&test_database.url)).await.unwrap();
        let failed = succeed_at(&database, 2, state).await.unwrap_err();
        assert_eq!(failed.is_passing(), passes, "{failed:?}");
        assert_eq!(tries(&test_database).await, 1, "{state}");
    }
}

/// Takes longer than statements may.
async fn take_long(connection: &mut PgConnection) -> Result<(), DriverError> {
    sqlx::query("SELECT pg_sleep(0.3)")
        .execute(connection)
        .await?;
    Ok(())
}

#[tokio::test]
async fn what_may_take_long_is_not_ended_also_where_the_database_limits_it() {
    for prepared_statements in [true, false] {
        let test_database = TestDatabase::create().await;
        let name = test_database.url.rsplit_once('/').unwrap().1;
        let limit = format!("ALTER DATABASE {name} SET statement_timeout = '100ms'");
        let mut session = PgConnection::connect(&test_database.url).await.unwrap();
        session.execute(sqlx::AssertSqlSafe(limit)).await.unwrap();
        let options = Options {
            statement_timeout: Duration::from_millis(100),
            prepared_statements,
            ..options(&test_database.url)
        };
        let database = open(&options).await.unwrap();
        let ended = database.write(take_long).await.unwrap_err();
        assert!(ended.is_passing(), "{ended:?}");
        database.write_unhurried(take_long).await.unwrap();
    }
}
