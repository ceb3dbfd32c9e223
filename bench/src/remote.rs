//! What the way to a storage service in another process adds, on this machine.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use alga_model::{Secret, SystemClock, TenantId};
use alga_runner::app::App;
use alga_runner::config::{Config, Role, TokenConfig, TokenScope};
use alga_runner::http::{AppState, Server};
use alga_runner::tokens::Tokens;
use alga_sqlite::Options;
use alga_storage::{Key, LocalService, Namespace, RemoteOptions, RemoteService, SqliteBackend};

use crate::measure::{Latencies, in_turns, median};
use crate::report::{Bar, Figure, rounded};
use crate::session::{Bench, Session};
use crate::storage::install::Install;
use crate::storage::sample::{key, value};

const TOKEN: &str = "service-token-of-the-benchmarks";
const RECORDS: u32 = 500;
const OPERATIONS: u32 = 1_000;
/// How much the way may add, in microseconds.
const ADDED: Bar = Bar::Within {
    times: 1.0,
    and: 400.0,
};

/// What is asked again and again.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Get,
    Put,
}

/// Measures every line of the remote storage that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for (name, operation, http2) in [
        ("remote/get", Operation::Get, false),
        ("remote/get-http2", Operation::Get, true),
        ("remote/put", Operation::Put, false),
    ] {
        let measure = |bench| measure(bench, operation, http2);
        session.line(name, measure).await?;
    }
    Ok(())
}

async fn measure(bench: Bench, operation: Operation, http2: bool) -> anyhow::Result<Figure> {
    let namespace = Namespace::parse("work-orders")?;
    let file = Options::file(bench.path("storage.sqlite3"));
    let backend = SqliteBackend::open(file, Arc::new(SystemClock::default())).await?;
    let here = Install::new(Arc::new(backend), TenantId::generate(), [namespace.clone()])?;
    for number in 0..RECORDS {
        let key = Key::parse(key(number))?;
        here.put(&namespace, key, value(number)).await?;
    }
    let there = here.behind(Arc::new(served(&bench, &here, http2).await?));
    let turns = in_turns(
        &bench,
        |_| operate(here.clone(), namespace.clone(), operation),
        |_| operate(there.clone(), namespace.clone(), operation),
    )
    .await?;
    let near = median(turns.iter().map(|(near, _)| near.p50()));
    let far = median(turns.iter().map(|(_, far)| far.p50()));
    let p99 = median(turns.iter().map(|(_, far)| far.p99()));
    Ok(Figure::new(far, "µs p50")
        .against(near, ADDED)
        .note(format!(
            "adds {} µs, p99 {} µs",
            rounded(far - near),
            rounded(p99)
        )))
}

async fn operate(
    install: Install,
    namespace: Namespace,
    operation: Operation,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    for number in 0..OPERATIONS {
        let key = Key::parse(key(number % RECORDS))?;
        match operation {
            Operation::Get => drop(latencies.time(install.get(&namespace, key)).await?),
            Operation::Put => {
                let put = install.put(&namespace, key, value(number));
                drop(latencies.time(put).await?);
            }
        }
    }
    Ok(latencies)
}

/// A client of a server of the program itself, which serves the storage of an install.
async fn served(bench: &Bench, install: &Install, http2: bool) -> anyhow::Result<RemoteService> {
    let mut config = Config::default();
    config.data.dir = bench.path("data");
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.role = Some(Role::Storage);
    config.auth.service_tokens = vec![TokenConfig {
        id: "bench".to_owned(),
        token: Secret::new(TOKEN.to_owned()),
        scope: TokenScope::default(),
    }];
    let mut app = App::build(&config).await?;
    app.storage = Some(install.served());
    let tokens = Tokens::open(&config)?;
    let most = usize::try_from(config.server.max_body_bytes)?;
    let state = AppState::new(app, Some(tokens), None, most);
    let server = Server::bind(config.server.listen).await?;
    let options = RemoteOptions {
        url: format!("http://{}", server.address).parse()?,
        token: Secret::new(TOKEN.to_owned()),
        authorities: None,
        max_in_flight: NonZeroU32::MIN.saturating_add(63),
        timeout: LocalService::DEFAULT_TIMEOUT,
        http2_without_tls: http2,
    };
    tokio::spawn(server.serve(state, std::future::pending(), Duration::ZERO));
    Ok(RemoteService::new(&options)?)
}
