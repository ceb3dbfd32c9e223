//! Storage on PostgreSQL, beside a loop that sends the same statements over connections of its own.
//!
//! The server keeps what it answers. Everything is over 32 namespaces of 4 tenants.

mod backlog;
mod bare;
mod grown;
mod pgbench;

use std::sync::Arc;
use std::time::Instant;

use alga_model::{Secret, TenantId};
use alga_postgres::Options;
use alga_storage::{Key, Namespace, PostgresBackend};
use alga_test_postgres::DurableServer;
use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use self::bare::Bare;
use crate::measure::{in_turns, median, per_second};
use crate::report::{Bar, Figure};
use crate::session::{Bench, Session};
use crate::storage::install::Install;
use crate::storage::sample::{Numbers, key, value};

const TENANTS: usize = 4;
const NAMESPACES_OF_TENANT: usize = 8;
/// Records of a namespace.
const KEYS: u32 = 500;

/// What a client does again and again.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Get,
    Put,
}

impl Operation {
    /// How many there are in a round, of all clients together: some hundred milliseconds of them.
    const fn a_round(self) -> u32 {
        match self {
            Self::Get => 19_200,
            Self::Put => 3_840,
        }
    }
}

/// Measures every line of PostgreSQL that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for (name, operation, clients, namespaces) in [
        ("postgres/get-1", Operation::Get, 1, 32),
        ("postgres/get-8", Operation::Get, 8, 32),
        ("postgres/get-32", Operation::Get, 32, 32),
        ("postgres/put-1", Operation::Put, 1, 32),
        ("postgres/put-8", Operation::Put, 8, 32),
        ("postgres/put-32", Operation::Put, 32, 32),
        ("postgres/put-8-one-namespace", Operation::Put, 8, 1),
    ] {
        let measure = |bench| measure(bench, operation, clients, namespaces);
        session.line(name, measure).await?;
    }
    session
        .line("postgres/put-beside-backlog", backlog::put)
        .await?;
    session.long_line("postgres/put-10m", grown::put).await?;
    pgbench::run(session).await
}

/// A server that nobody else uses, and that keeps what it answers.
async fn start_server() -> anyhow::Result<DurableServer> {
    Ok(tokio::task::spawn_blocking(DurableServer::start).await?)
}

/// Makes a database of a server, and tells where it is.
async fn new_database(server: &DurableServer, name: &str) -> anyhow::Result<String> {
    let url = server.url();
    let mut connection = PgConnection::connect(&url).await?;
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    connection.execute(create).await?;
    connection.close().await?;
    let (server, _) = url.rsplit_once('/').context("the URL names no database")?;
    Ok(format!("{server}/{name}"))
}

async fn measure(
    bench: Bench,
    operation: Operation,
    clients: u32,
    namespaces: usize,
) -> anyhow::Result<Figure> {
    let server = start_server().await?;
    let stage = Stage::open(&bench, &server.url(), namespaces).await?;
    let bare = Bare::connect(&server.url(), clients).await?;
    let turns = in_turns(
        &bench,
        |round| stage.clone().bare(bare.clone(), operation, clients, round),
        |round| stage.clone().ours(operation, clients, round),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    let figure = Figure::new(ours, "ops/s");
    Ok(if namespaces > 1 {
        figure.against(bare, Bar::AtLeast(0.85))
    } else {
        figure.note(format!("bare {}, ratio {:.2}", bare.round(), ours / bare))
    })
}

/// Places where records are.
#[derive(Debug, Clone)]
struct Stage(Arc<Vec<Place>>);

/// A namespace of an install.
#[derive(Debug)]
struct Place {
    install: Install,
    namespace: Namespace,
}

impl Stage {
    async fn open(bench: &Bench, url: &str, namespaces: usize) -> anyhow::Result<Self> {
        let options = Options {
            max_connections: 32.try_into()?,
            ..Options::at(Secret::new(url.to_owned()))
        };
        let backend = Arc::new(PostgresBackend::open(&options).await?);
        let names = (0..NAMESPACES_OF_TENANT).map(|nth| Namespace::parse(format!("orders-{nth}")));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let mut places = Vec::new();
        for _ in 0..TENANTS {
            let tenant = TenantId::generate();
            let install = Install::new(Arc::clone(&backend) as _, tenant, names.iter().cloned())?;
            places.extend(names.iter().map(|namespace| Place {
                install: install.clone(),
                namespace: namespace.clone(),
            }));
        }
        places.truncate(namespaces);
        bench.progress("writing the records");
        for place in &places {
            place.fill().await?;
        }
        Ok(Self(Arc::new(places)))
    }

    fn place(&self, nth: u32) -> anyhow::Result<&Place> {
        let nth = usize::try_from(nth)? % self.0.len();
        self.0.get(nth).context("there is no such place")
    }

    /// Operations a second through gate, service and pool.
    async fn ours(self, operation: Operation, clients: u32, round: u32) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let stage = self.clone();
            tasks.spawn(async move {
                let mut numbers = Numbers::seeded((round * clients + client).into());
                for nth in 0..operation.a_round() / clients {
                    let place = stage.place(nth * clients + client)?;
                    let number = numbers.below(KEYS);
                    place.do_once(operation, number).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(per_second(operation.a_round(), start))
    }

    /// The same by bare statements, each client over a connection of its own.
    async fn bare(
        self,
        bare: Bare,
        operation: Operation,
        clients: u32,
        round: u32,
    ) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (client, connection) in (0..clients).zip(bare.connections()) {
            let stage = self.clone();
            tasks.spawn(async move {
                let mut connection = connection.lock().await;
                let mut numbers = Numbers::seeded((round * clients + client).into());
                for nth in 0..operation.a_round() / clients {
                    let place = stage.place(nth * clients + client)?;
                    let number = numbers.below(KEYS);
                    bare::do_once(&mut connection, place, operation, number).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(per_second(operation.a_round(), start))
    }
}

impl Place {
    async fn fill(&self) -> anyhow::Result<()> {
        const AT_ONCE: usize = 100;
        let numbers: Vec<u32> = (0..KEYS).collect();
        for numbers in numbers.chunks(AT_ONCE) {
            let records = numbers
                .iter()
                .map(|number| Ok((Key::parse(key(*number))?, value(*number))));
            let records = records.collect::<anyhow::Result<_>>()?;
            self.install.bulk_put(&self.namespace, records).await?;
        }
        Ok(())
    }

    async fn do_once(&self, operation: Operation, number: u32) -> anyhow::Result<()> {
        let key = Key::parse(key(number))?;
        match operation {
            Operation::Get => {
                let record = self.install.get(&self.namespace, key).await?;
                ensure!(record.value.size() > 0, "a record without a value");
            }
            Operation::Put => {
                let put = self.install.put(&self.namespace, key, value(number));
                ensure!(put.await?.revision.get() > 0, "a record without a revision");
            }
        }
        Ok(())
    }
}
