//! Listening, and stopping without losing what is under way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{AppState, router};

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
}

/// Serves until `stop` resolves, then lets requests under way finish for at most `drain_timeout`.
pub async fn serve(
    server: Server,
    state: AppState,
    stop: impl Future<Output = ()> + Send + 'static,
    drain_timeout: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let draining = state.clone();
    let stop = async move {
        stop.await;
        draining.start_draining();
        tracing::info!(
            drain_timeout_s = drain_timeout.as_secs_f64(),
            "stopping; waiting for requests under way"
        );
        // The other end is gone only when there is nothing left to wait for.
        let _ = stopping.send(());
    };
    let serving = axum::serve(server.listener, router(state)).with_graceful_shutdown(stop);
    let too_late = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(drain_timeout).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = serving => served,
        () = too_late => {
            tracing::warn!("requests were still under way when the time to stop had passed");
            Ok(())
        }
    }
}
