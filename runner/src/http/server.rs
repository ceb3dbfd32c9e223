//! Listening, and stopping without losing what is under way.
//!
//! axum's own `serve` bounds neither the number of connections nor the time a client takes to send
//! a request's head, so that a few hundred silent sockets would be enough to keep everybody else out.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AppState, router};

/// Connections at once. Further clients wait in the queue of the operating system.
const MAX_CONNECTIONS: usize = 8_192;
/// How long a client may take to send the head of a request, and how long a connection may idle
/// between two: longer than the idle time of common connection pools would waste file handles,
/// much shorter would cut connections that are just about to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait when no connection can be accepted, as there are no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Binds `listen`; port 0 takes a free one.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves until `stop` resolves, then lets requests under way finish for at most
    /// `drain_timeout`. A connection that is idle then is closed at once.
    pub async fn serve(
        self,
        state: AppState,
        stop: impl Future<Output = ()>,
        drain_timeout: Duration,
    ) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let service = TowerToHyperService::new(router(state.clone()));
        let builder = builder();
        let mut stop = pin!(stop);
        loop {
            let (stream, slot) = tokio::select! {
                accepted = accept(&self.listener, &connections) => accepted,
                () = &mut stop => break,
            };
            let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection.into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error, "a connection ended early");
                }
                drop(slot);
            });
        }
        state.start_draining();
        let open = graceful.count();
        tracing::info!(
            open_connections = open,
            drain_timeout_s = drain_timeout.as_secs_f64(),
            "stopping"
        );
        if tokio::time::timeout(drain_timeout, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("requests were still under way when the time to stop had passed");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT);
    builder
}

/// The next connection, and its place among those allowed.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let slot = Arc::clone(connections)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting for more to send would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, slot);
            }
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
