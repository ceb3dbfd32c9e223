//! Connections, answers and hosts that are lost.

use std::time::{Duration, Instant};

use alga_postgres::{Database, DriverError, Options};
use alga_test_postgres::{Passage, Proxy, TestDatabase};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::{at_most, count, end_sessions, increment, open, options, use_at_once};

const CONNECTIONS: u32 = 4;

#[tokio::test]
async fn a_read_finds_another_way_where_the_connections_of_the_pool_were_ended() {
    let test_database = TestDatabase::create().await;
    let database = open(&options(&test_database.url)).await.unwrap();
    increment(&database, "a").await.unwrap();
    for _ in 0..3 {
        use_at_once(&database, 4).await;
        assert!(end_sessions(&test_database).await >= 4);
        assert_eq!(count(&database, "a").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_write_over_a_connection_that_was_ended_is_done_at_most_once_and_the_next_one_is_done() {
    let test_database = TestDatabase::create().await;
    let database = open(&options(&test_database.url)).await.unwrap();
    for round in 0..3 {
        let before = count(&database, "a").await.unwrap();
        use_at_once(&database, 4).await;
        end_sessions(&test_database).await;
        match increment(&database, "a").await {
            Ok(incremented) => assert_eq!(incremented, before + 1, "{round}"),
            Err(error) => assert!(error.is_passing(), "{error:?}"),
        }
        let incremented = increment(&database, "a").await.unwrap();
        assert!(
            (before + 1..=before + 2).contains(&incremented),
            "{round}: {incremented}"
        );
    }
}

/// As on Citus where a node behind the server is away: other tenants' connections are as good as before.
#[tokio::test]
async fn a_connection_that_the_server_has_lost_costs_none_to_the_server() {
    let test_database = TestDatabase::create().await;
    let database = open(&options(&test_database.url)).await.unwrap();
    let before = use_at_once(&database, 4).await;
    let sent = database.statements();
    let fail = async |connection: &mut PgConnection| {
        let failing = sent.of("SELECT succeed_at(1000, '08006')");
        Ok::<_, DriverError>(failing.execute(connection).await?)
    };
    for failed in [database.write(fail).await, database.read(fail).await] {
        let error = failed.unwrap_err();
        assert!(error.is_passing(), "{error:?}");
    }
    assert_eq!(use_at_once(&database, 4).await, before);
    assert_eq!(tries(&database).await, 2, "it was tried again");
}

/// How often something was tried that may succeed later.
async fn tries(database: &Database) -> i64 {
    let sent = database.statements();
    let reading = database.read(async |connection: &mut PgConnection| {
        let row = sent
            .of("SELECT last_value FROM tries")
            .fetch_one(connection);
        Ok::<_, DriverError>(row.await?.get(0))
    });
    reading.await.unwrap()
}

/// A server that was replaced reads on as a standby, while its name leads to another one.
#[tokio::test]
async fn connections_to_a_server_that_takes_no_writes_any_more_are_not_kept() {
    for prepared_statements in [true, false] {
        let test_database = TestDatabase::create().await;
        let options = Options {
            prepared_statements,
            ..options(&test_database.url)
        };
        let database = open(&options).await.unwrap();
        assert_eq!(increment(&database, "a").await.unwrap(), 1);
        // It goes for sessions that begin afterwards.
        set_read_only(&test_database, "on").await;
        end_sessions(&test_database).await;
        let standby = use_at_once(&database, 4).await;
        set_read_only(&test_database, "off").await;
        match increment(&database, "a").await {
            // Nothing was done before, so that it could be done again.
            Ok(incremented) => assert!(!prepared_statements && incremented == 2),
            Err(error) => {
                assert!(error.is_passing(), "{error:?}");
                assert_eq!(increment(&database, "a").await.unwrap(), 2);
            }
        }
        let next = use_at_once(&database, 4).await;
        assert!(next.is_disjoint(&standby), "{next:?} {standby:?}");
    }
}

async fn set_read_only(database: &TestDatabase, is_read_only: &str) {
    let mut session = PgConnection::connect(&database.url).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut session)
        .await
        .unwrap();
    let own = "SET default_transaction_read_only = off";
    session.execute(own).await.unwrap();
    let all = format!("ALTER DATABASE {name} SET default_transaction_read_only = {is_read_only}");
    session.execute(sqlx::AssertSqlSafe(all)).await.unwrap();
    session.close().await.unwrap();
}

/// Nothing can have been done before a transaction has begun.
#[tokio::test]
async fn a_write_in_a_transaction_finds_another_way_too() {
    let test_database = TestDatabase::create().await;
    let options = Options {
        prepared_statements: false,
        ..options(&test_database.url)
    };
    let database = open(&options).await.unwrap();
    for expected in 1..=3 {
        use_at_once(&database, 4).await;
        end_sessions(&test_database).await;
        assert_eq!(increment(&database, "a").await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_repeated() {
    let test_database = TestDatabase::create().await;
    let proxy = Proxy::before(&test_database.url).await;
    let options = Options {
        max_connections: at_most(1),
        ..options(&proxy.url_of(&test_database.url))
    };
    let database = open(&options).await.unwrap();
    // Prepares the statement, so that the next answer is that of the statement itself.
    assert_eq!(increment(&database, "a").await.unwrap(), 1);
    for expected in [2, 3] {
        proxy.set(Passage::AnswersLost);
        let lost = increment(&database, "a").await.unwrap_err();
        assert!(lost.is_passing(), "{lost:?}");
        proxy.set(Passage::Open);
        assert_eq!(count(&database, "a").await.unwrap(), expected);
        // Prepares it on the new connection.
        assert_eq!(increment(&database, "b").await.unwrap(), expected - 1);
    }
}

/// A host that lost its power says nothing, not even that a connection is closed.
#[tokio::test]
async fn a_host_that_vanishes_is_given_up_in_time_and_none_of_its_connections_used_again() {
    let test_database = TestDatabase::create().await;
    let proxy = Proxy::before(&test_database.url).await;
    let options = Options {
        max_connections: at_most(CONNECTIONS),
        acquire_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_millis(300),
        ..options(&proxy.url_of(&test_database.url))
    };
    let database = open(&options).await.unwrap();
    use_at_once(&database, 4).await;
    let before = proxy.accepted();
    proxy.set(Passage::Silent);
    for longest in [3_500, 1_000] {
        let started = Instant::now();
        let silent = count(&database, "a").await.unwrap_err();
        assert!(silent.is_passing(), "{silent:?}");
        // The statement's own time and a little more; afterwards nobody answers to a new connection.
        let took = started.elapsed();
        assert!(
            took < Duration::from_millis(longest),
            "{silent:?} after {took:?}"
        );
    }
    // As the host comes back without them, so would their answers.
    proxy.set(Passage::Open);
    let before_next = proxy.accepted();
    assert!(before_next > before);
    assert_eq!(count(&database, "a").await.unwrap(), 0);
    assert!(proxy.accepted() > before_next, "an old connection was used");
}

#[tokio::test]
async fn closing_waits_no_longer_than_a_statement_may_take() {
    let test_database = TestDatabase::create().await;
    let proxy = Proxy::before(&test_database.url).await;
    let options = Options {
        statement_timeout: Duration::from_millis(300),
        ..options(&proxy.url_of(&test_database.url))
    };
    let database = open(&options).await.unwrap();
    use_at_once(&database, 2).await;
    proxy.set(Passage::Silent);
    let started = Instant::now();
    let closing = async {
        // After the read has its connection.
        tokio::task::yield_now().await;
        database.close().await;
        started.elapsed()
    };
    let (read, took) = tokio::join!(count(&database, "a"), closing);
    assert!(read.unwrap_err().is_passing());
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_host_that_accepts_connections_and_says_nothing_is_given_up_when_a_database_is_opened() {
    let test_database = TestDatabase::create().await;
    let proxy = Proxy::before(&test_database.url).await;
    proxy.set(Passage::Silent);
    let options = options(&proxy.url_of(&test_database.url));
    let opening = tokio::time::timeout(Duration::from_secs(60), open(&options));
    let error = opening.await.expect("it is given up").unwrap_err();
    assert!(format!("{error:?}").contains("NoConnection"), "{error:?}");
}
