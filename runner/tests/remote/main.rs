//! The storage that another process serves: the contract over HTTP, and what becomes of it when the way
//! there is lost.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod api;
mod lost;
mod server;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use alga_model::Secret;
use alga_storage::suite::Stage;
use alga_storage::{
    LocalService, PostgresBackend, RemoteOptions, RemoteService, SqliteBackend, contract_suite,
};
use alga_test_postgres::TestDatabase;

use self::server::StorageServer;

contract_suite!(remote_over_sqlite, remote(over_sqlite()));
contract_suite!(remote_over_postgres, remote(over_postgres()));
contract_suite!(remote_over_http2, remote_over_http2(over_sqlite()));

async fn over_sqlite() -> Stage {
    let clock = Stage::clock();
    let options = alga_sqlite::Options::memory();
    let backend = SqliteBackend::open(options, Arc::clone(&clock) as _).await;
    Stage::new(Arc::new(backend.unwrap()), clock)
}

async fn over_postgres() -> Stage {
    let clock = Stage::clock();
    let database = TestDatabase::create().await;
    let options = alga_postgres::Options::at(Secret::new(database.url));
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _).await;
    Stage::new(Arc::new(backend.unwrap()), clock)
}

async fn remote(stage: impl Future<Output = Stage>) -> Stage {
    let stage = stage.await;
    let server = StorageServer::start(&stage).await;
    stage.behind(Arc::new(server.client()))
}

async fn remote_over_http2(stage: impl Future<Output = Stage>) -> Stage {
    let stage = stage.await;
    let server = StorageServer::start(&stage).await;
    let options = RemoteOptions {
        http2_without_tls: true,
        ..server.options()
    };
    stage.behind(Arc::new(RemoteService::new(&options).unwrap()))
}

/// How a service at a URL is asked with a token.
fn options(url: &str, token: &str) -> RemoteOptions {
    RemoteOptions {
        url: url.parse().unwrap(),
        token: Secret::new(token.to_owned()),
        authorities: None,
        max_in_flight: NonZeroU32::MIN.saturating_add(63),
        timeout: LocalService::DEFAULT_TIMEOUT + Duration::from_secs(1),
        http2_without_tls: false,
    }
}
