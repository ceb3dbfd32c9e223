//! A PostgreSQL for tests.
//!
//! The first test that needs one starts it, all tests that run meanwhile share it, each with a
//! database of its own, and it stops by itself when nobody has used it for a while. Nothing is kept: a
//! server that is started begins empty. Where `DATABASE_URL` is set, that server is used instead; where
//! `ALGA_TEST_POSTGRES_BIN` is set, the server is started with the programs in that folder.
//!
//! Databases with Citus are made on the servers of `CITUS_URL`, a coordinator and, apart by spaces, its workers;
//! one alone is a cluster by itself. Without it what needs them is skipped.
//!
//! What may be between a process and its database, and go wrong there, is here too: a pooler, and a
//! way that can be obstructed.

#![expect(
    clippy::disallowed_methods,
    reason = "what a test runs against is said in the environment"
)]
#![expect(
    clippy::print_stdout,
    reason = "what is skipped is told with what the tests tell"
)]

mod citus;
mod pooler;
mod proxy;
mod server;

use std::env;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

pub use citus::ClusterDatabase;
pub use pooler::{NewerPgBouncer, PgBouncer};
pub use proxy::{Passage, Proxy};
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
        Self::on(&server).await
    }

    /// Makes one with Citus, on the servers of `CITUS_URL`. Where that is not set there is none, and a
    /// line says so.
    pub async fn with_citus() -> Option<Self> {
        let database = ClusterDatabase::create().await?;
        database.add_citus().await;
        Some(database.coordinator)
    }

    async fn on(server: &str) -> Self {
        let name = format!("alga_test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(server)
            .await
            .expect("the server can be reached");
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .expect("the user of DATABASE_URL may make databases");
        connection.close().await.expect("the server is still there");
        Self {
            url: in_database(server, &name),
        }
    }
}

/// A URL with another host and port.
fn at(url: &str, host: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").expect("the URL has a scheme");
    let (server, database) = rest.split_once('/').expect("the URL names a database");
    let user = server.rsplit_once('@').map(|(user, _)| format!("{user}@"));
    format!(
        "{scheme}://{}{host}:{port}/{database}",
        user.unwrap_or_default()
    )
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

    #[test]
    fn the_host_of_a_url_is_replaced_and_nothing_else() {
        for (url, expected) in [
            ("postgres://a@h:1/postgres", "postgres://a@x:2/postgres"),
            (
                "postgres://a:b@h/db?sslmode=disable",
                "postgres://a:b@x:2/db?sslmode=disable",
            ),
        ] {
            assert_eq!(at(url, "x", 2), expected);
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
