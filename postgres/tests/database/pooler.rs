//! `PgBouncer` in transaction mode, of a version that keeps no prepared statements.

use alga_model::Secret;
use alga_postgres::Options;
use alga_test_postgres::{PgBouncer, TestDatabase};
use futures_util::future::{join_all, try_join_all};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::{at_most, chain, count, increment, open, options};

fn through(pooler: &PgBouncer, database: &TestDatabase) -> Options {
    Options {
        direct_url: Some(Secret::new(database.url.clone())),
        ..options(&pooler.url_of(database))
    }
}

/// Connections of the pooler: to clients, and to the server.
async fn connections(pooler: &PgBouncer) -> (i64, i64) {
    let mut console = PgConnection::connect(&pooler.url_of_console())
        .await
        .unwrap();
    let pools = sqlx::raw_sql("SHOW POOLS")
        .fetch_all(&mut console)
        .await
        .unwrap();
    let all = |columns: &[&str]| -> i64 {
        let ours = pools
            .iter()
            .filter(|pool| pool.get::<&str, _>("database") != "pgbouncer");
        let counts = ours.flat_map(|pool| columns.iter().map(|column| number(pool, column)));
        counts.sum()
    };
    (
        all(&["cl_active", "cl_waiting"]),
        all(&["sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"]),
    )
}

fn number(row: &sqlx::postgres::PgRow, column: &str) -> i64 {
    let text = row.try_get_raw(column).unwrap();
    text.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_connections_to_it_share_two_to_the_server() {
    const TIMES: i64 = 25;
    let test_database = TestDatabase::create().await;
    let pooler = PgBouncer::before(&test_database, 2);
    let options = Options {
        prepared_statements: false,
        max_connections: at_most(8),
        ..through(&pooler, &test_database)
    };
    let database = open(&options).await.unwrap();
    let (database, pooler) = (&database, &pooler);
    let clients = (0..8).map(async |client| {
        let (own, shared) = (format!("{client}"), "shared");
        for expected in 1..=TIMES {
            assert_eq!(increment(database, &own).await.unwrap(), expected);
            increment(database, shared).await.unwrap();
        }
    });
    join_all(clients).await;
    let counting = (0..8).map(async |client| count(database, &client.to_string()).await);
    assert_eq!(try_join_all(counting).await.unwrap(), [TIMES; 8]);
    assert_eq!(count(database, "shared").await.unwrap(), 8 * TIMES);
    let (clients, servers) = connections(pooler).await;
    assert_eq!(clients, 8, "they did not go through it");
    assert!((1..=2).contains(&servers), "{servers}");
}

#[tokio::test]
async fn prepared_statements_through_one_that_keeps_none_are_refused_with_a_word_about_them() {
    let test_database = TestDatabase::create().await;
    let pooler = PgBouncer::ignoring(&test_database, 2, "extra_float_digits,options");
    let refused = open(&through(&pooler, &test_database)).await.unwrap_err();
    let text = chain(&refused);
    assert!(
        text.contains("turn database.prepared_statements off"),
        "{text}"
    );
}

#[tokio::test]
async fn one_that_takes_no_settings_says_so_when_the_database_is_opened() {
    let test_database = TestDatabase::create().await;
    let pooler = PgBouncer::before(&test_database, 2);
    let refused = open(&through(&pooler, &test_database)).await.unwrap_err();
    let text = chain(&refused);
    assert!(
        text.contains("unsupported startup parameter: options"),
        "{text}"
    );
}

#[tokio::test]
async fn one_that_is_not_there_is_noticed_when_the_database_is_opened() {
    let test_database = TestDatabase::create().await;
    let pooler = PgBouncer::before(&test_database, 2);
    let options = Options {
        prepared_statements: false,
        ..through(&pooler, &test_database)
    };
    drop(pooler);
    open(&options).await.unwrap_err();
}
