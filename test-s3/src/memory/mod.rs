//! A server of S3 in the process of the test.
//!
//! It does what a store asks of S3 and refuses everything else, so that no test passes for something that isn't
//! done. It keeps its word where radosgw and others don't: `If-None-Match` holds for whole objects and for uploads
//! in parts however many writers meet, checksums are compared, also those that come behind a body, and the parts of
//! an upload have the checksum it was begun with, or none.

mod contents;
mod received;
mod service;

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use service::Service;

/// A server of S3 that lives as long as this. Its objects are in memory, and gone with it.
///
/// Every read sees every write that was answered, and a list every object.
#[derive(Debug)]
pub struct MemoryServer {
    port: u16,
    _stop: oneshot::Sender<()>,
}

impl MemoryServer {
    /// Who may do everything.
    pub const ACCESS_KEY: &str = "alga-memory";
    /// What they sign with.
    pub const SECRET_KEY: &str = "not-a-secret-either";
    /// The fewest bytes of a part that is not the last one.
    pub const MIN_PART_BYTES: usize = 5 << 20;
    /// What S3 lists at once.
    const PAGE: usize = 1000;

    /// Starts one.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn start() -> Self {
        Self::with_pages_of(Self::PAGE)
    }

    /// Starts one that lists at most so many objects, uploads or parts at once.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn with_pages_of(page: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let mut service = S3ServiceBuilder::new(Service::new(page));
        service.set_auth(OneKey);
        let service = service.build();
        let (stop, stopped) = oneshot::channel();
        // On threads of its own: a test may keep its own busy, or have only one.
        thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("threads can be started")
                .block_on(serve(listener, service, stopped));
        });
        Self { port, _stop: stop }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Serves until whoever started it is gone.
async fn serve(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    listener
        .set_nonblocking(true)
        .expect("a listener need not block");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener can be polled");
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else { continue };
        stream.set_nodelay(true).ok();
        let service = service.clone();
        connections.spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            // A client that goes away is what some tests are about.
            http.serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Knows one key, and says of others what S3 says.
struct OneKey;

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == MemoryServer::ACCESS_KEY {
            Ok(MemoryServer::SECRET_KEY.into())
        } else {
            Err(s3_error!(InvalidAccessKeyId))
        }
    }
}
