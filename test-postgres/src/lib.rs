//! A PostgreSQL for tests.
//!
//! The first test that needs one starts it, all tests that run meanwhile share it, each with a
//! database of its own, and it stops by itself when nobody has used it for a while. Nothing is kept: a
//! server that is started begins empty. Where `DATABASE_URL` is set, that server is used instead.

#![expect(
    clippy::disallowed_methods,
    reason = "what a test runs against is said in the environment"
)]

mod server;

use std::env;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

pub use server::{DurableServer, Server};

/// An empty database of its own.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// Where it is, for whoever may do everything there.
    pub url: String,
}

impl TestDatabase {
    /// Makes one, on the shared server or that of `DATABASE_URL`.
    pub async fn create() -> Self {
        let server = match env::var("DATABASE_URL") {
            Ok(url) => url,
            Err(_) => tokio::task::spawn_blocking(|| Server::shared().url())
                .await
                .expect("starting a server does not panic"),
        };
        let name = format!("alga_test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&server)
            .await
            .expect("the server can be reached");
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .expect("the user of DATABASE_URL may make databases");
        connection.close().await.expect("the server is still there");
        Self {
            url: in_database(&server, &name),
        }
    }
}

/// The URL of a server with another database.
fn in_database(url: &str, name: &str) -> String {
    let (url, options) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = url.rsplit_once('/').expect("the URL names a database");
    if options.is_empty() {
        format!("{server}/{name}")
    } else {
        format!("{server}/{name}?{options}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_nothing_else() {
        for (url, expected) in [
            ("postgres://a@h:1/postgres", "postgres://a@h:1/x"),
            (
                "postgres://a:b@h/db?sslmode=disable",
                "postgres://a:b@h/x?sslmode=disable",
            ),
        ] {
            assert_eq!(in_database(url, "x"), expected);
        }
    }

    #[tokio::test]
    async fn databases_of_tests_are_apart() {
        let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
        assert_ne!(one.url, other.url);
        let mut connection = PgConnection::connect(&one.url).await.expect("it is there");
        connection
            .execute("CREATE TABLE here ()")
            .await
            .expect("it may be changed");
        let mut connection = PgConnection::connect(&other.url)
            .await
            .expect("it is there");
        assert!(connection.execute("SELECT FROM here").await.is_err());
    }
}
