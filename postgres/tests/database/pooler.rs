//! `PgBouncer` in transaction mode: of a version that keeps no prepared statements, and of one that does.

use alga_model::Secret;
use alga_postgres::{Database, DriverError, Options};
use alga_test_postgres::{NewerPgBouncer, PgBouncer, TestDatabase};
use futures_util::future::{join_all, try_join_all};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::{at_most, chain, count, increment, open, options};

/// What a pooler is told to keep for this process: more than it ever prepares.
const ALL: u32 = 200;

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

/// Has eight clients at once count through a pooler that has two sessions, and looks at what it used.
async fn count_with_eight(database: &Database, pooler: &PgBouncer) {
    const TIMES: i64 = 25;
    let clients = (0..8).map(async |client| {
        let (own, shared) = (format!("{client}"), "shared");
        for expected in 1..=TIMES {
            assert_eq!(increment(database, &own).await.unwrap(), expected);
            increment(database, shared).await.unwrap();
            assert_eq!(count(database, &own).await.unwrap(), expected);
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

/// What the pooler has prepared in one of its sessions.
async fn prepared(pooler: &PgBouncer, database: &TestDatabase) -> i64 {
    const PREPARED: &str = "SELECT count(*)::text FROM pg_prepared_statements";
    let mut connection = PgConnection::connect(&pooler.url_of(database))
        .await
        .unwrap();
    // Which prepares nothing itself.
    let row = sqlx::raw_sql(PREPARED)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    row.get::<&str, _>(0).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_connections_to_it_share_two_to_the_server() {
    let test_database = TestDatabase::create().await;
    let pooler = PgBouncer::before(&test_database, 2);
    let options = Options {
        prepared_statements: false,
        max_connections: at_most(8),
        ..through(&pooler, &test_database)
    };
    let database = open(&options).await.unwrap();
    count_with_eight(&database, &pooler).await;
    assert_eq!(prepared(&pooler, &test_database).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_connections_share_what_is_prepared_in_two() {
    let Some(program) = NewerPgBouncer::find() else {
        return;
    };
    let test_database = TestDatabase::create().await;
    let pooler = program.before(&test_database, 2, ALL);
    let options = Options {
        max_connections: at_most(8),
        ..through(&pooler, &test_database)
    };
    let database = open(&options).await.unwrap();
    count_with_eight(&database, &pooler).await;
    // That which was tried first, if in this session, and the two that counted.
    let prepared = prepared(&pooler, &test_database).await;
    assert!((2..=3).contains(&prepared), "{prepared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_has_no_room_for_is_prepared_again() {
    let Some(program) = NewerPgBouncer::find() else {
        return;
    };
    let test_database = TestDatabase::create().await;
    let pooler = program.before(&test_database, 2, 1);
    let options = Options {
        max_connections: at_most(8),
        ..through(&pooler, &test_database)
    };
    let database = open(&options).await.unwrap();
    count_with_eight(&database, &pooler).await;
    assert_eq!(prepared(&pooler, &test_database).await, 1);
}

/// Gives the role timeouts in this database, for the sessions that begin from now on.
async fn limit_role(database: &TestDatabase) {
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    for (setting, limit) in [
        ("statement_timeout", "1s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "3s"),
    ] {
        let set = format!("ALTER ROLE CURRENT_USER IN DATABASE {name} SET {setting} = '{limit}'");
        connection.execute(AssertSqlSafe(set)).await.unwrap();
    }
}

/// Fails unless those of [`limit_role`] hold.
async fn assert_limited(database: &Database) {
    const SETTINGS: &str = "SELECT concat_ws(' ', current_setting('statement_timeout'),
        current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'))";
    let sent = database.statements();
    let reading = database.read(async |connection: &mut PgConnection| {
        let row = sent.of(SETTINGS).fetch_one(connection).await?;
        Ok::<_, DriverError>(row.get::<String, _>(0))
    });
    assert_eq!(reading.await.unwrap(), "1s 2s 3s");
    let sleeping = database.read(async |connection: &mut PgConnection| {
        sent.of("SELECT pg_sleep(60)").execute(connection).await?;
        Ok::<_, DriverError>(())
    });
    let ended = chain(&sleeping.await.unwrap_err());
    assert!(ended.contains("due to statement timeout"), "{ended}");
    let unhurried = database.write_unhurried(async |connection: &mut PgConnection| {
        let row = sent.of(SETTINGS).fetch_one(connection).await?;
        Ok::<_, DriverError>(row.get::<String, _>(0))
    });
    assert_eq!(unhurried.await.unwrap(), "0 0 3s");
}

#[tokio::test]
async fn timeouts_of_the_role_hold_through_it() {
    let test_database = TestDatabase::create().await;
    limit_role(&test_database).await;
    let pooler = PgBouncer::before(&test_database, 2);
    let options = Options {
        prepared_statements: false,
        ..through(&pooler, &test_database)
    };
    assert_limited(&open(&options).await.unwrap()).await;
}

#[tokio::test]
async fn timeouts_of_the_role_hold_where_those_of_the_session_are_ignored() {
    let Some(program) = NewerPgBouncer::find() else {
        return;
    };
    let test_database = TestDatabase::create().await;
    limit_role(&test_database).await;
    let pooler = program.before(&test_database, 2, ALL);
    let options = through(&pooler, &test_database);
    assert_limited(&open(&options).await.unwrap()).await;
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
async fn one_that_could_keep_prepared_statements_and_is_not_told_to_is_refused_alike() {
    let Some(program) = NewerPgBouncer::find() else {
        return;
    };
    let test_database = TestDatabase::create().await;
    let pooler = program.before(&test_database, 2, 0);
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
    // Newer ones look into the options, and name one of them.
    let expected = ["unsupported startup parameter", "options"];
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
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
