//! Databases on a cluster of Citus.

use std::env;
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::{TestDatabase, in_database};

/// An empty database on each server of a cluster, where Citus can be added.
#[derive(Debug)]
pub struct ClusterDatabase {
    /// That on the coordinator, which is where everybody connects.
    pub coordinator: TestDatabase,
    workers: Vec<TestDatabase>,
    /// Where databases of the coordinator are made.
    server: String,
}

impl ClusterDatabase {
    /// Makes one on the servers of `CITUS_URL`. Where that is not set there is none, and a line says so.
    pub async fn create() -> Option<Self> {
        let Ok(servers) = env::var("CITUS_URL") else {
            println!("skipped: CITUS_URL is not set");
            return None;
        };
        let name = format!("alga_test_{}", Uuid::new_v4().simple());
        let mut servers = servers.split_whitespace();
        let server = servers.next().expect("CITUS_URL names a coordinator");
        let mut workers = Vec::new();
        for worker in servers {
            workers.push(create(worker, &name).await);
        }
        Some(Self {
            coordinator: create(server, &name).await,
            workers,
            server: server.to_owned(),
        })
    }

    /// Adds Citus and makes the servers one cluster.
    pub async fn add_citus(&self) {
        let Self {
            coordinator,
            workers,
            server,
        } = self;
        // A node that joins is told of all roles, and they are of the whole server: one test at a time.
        let mut turn = connect(server).await;
        let waiting = turn.execute("SELECT pg_advisory_lock(hashtext('join a cluster'))");
        waiting.await.expect("everybody's turn comes");
        for database in [coordinator].into_iter().chain(workers) {
            execute(&database.url, "CREATE EXTENSION citus").await;
        }
        // One that is alone joins itself.
        if workers.is_empty() {
            return;
        }
        let host = format!("SELECT citus_set_coordinator_host({})", place(coordinator));
        execute(&coordinator.url, &host).await;
        for worker in workers {
            let add = format!("SELECT citus_add_node({})", place(worker));
            execute(&coordinator.url, &add).await;
        }
    }
}

async fn create(server: &str, name: &str) -> TestDatabase {
    execute(server, &format!("CREATE DATABASE {name}")).await;
    TestDatabase {
        url: in_database(server, name),
    }
}

/// Host and port of the server, as arguments.
fn place(database: &TestDatabase) -> String {
    let server = PgConnectOptions::from_str(&database.url).expect("the URL is one");
    format!("'{}', {}", server.get_host(), server.get_port())
}

async fn execute(url: &str, statement: &str) {
    let mut connection = connect(url).await;
    let done = connection.execute(AssertSqlSafe(statement)).await;
    if let Err(error) = done {
        panic!("{statement}: {error}");
    }
    connection.close().await.expect("the server is still there");
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .expect("the servers of CITUS_URL can be reached")
}
