//! Listening, and stopping without losing what is under way.
//!
//! axum's own `serve` bounds neither the number of connections nor the time a client takes to send
//! a request's head, so that a few hundred silent sockets would be enough to keep everybody else out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::AppState;
use super::front::Front;
use super::signs::{SignsOfLife, Watched};

/// Connections at once, where the process may open twice as many files; further clients wait in the
/// queue of the operating system.
const MAX_CONNECTIONS: u64 = 8_192;
/// How long a client may take to say its first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request or to take a part of an answer, and how
/// long a connection may idle between two requests: longer than the idle time of common connection pools would waste file handles,
/// much shorter would cut connections that are just about to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait when no connection can be accepted, as there are no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged while it lasts.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How long it may take to remove what was received of uploads that had no more time.
const CUT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to note what became of the last uploads.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last answers may take to leave, once they are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection with HTTP/2 begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

    /// Serves until `stop` resolves, and looks after the databases meanwhile. From then on calls are
    /// refused, and what has begun has at most `drain_timeout` to finish. As long as that takes,
    /// whoever comes is told so: a port that is closed at once looks like a crash.
    pub async fn serve(
        self,
        state: AppState,
        stop: impl Future<Output = ()>,
        drain_timeout: Duration,
    ) {
        let upkeep = state.app.upkeep.start();
        let mut door = Door::new(self.listener, &state);
        door.let_in_until(stop).await;
        state.start_draining();
        tracing::info!(
            requests_in_progress = state.requests_in_progress(),
            drain_timeout_s = drain_timeout.as_secs_f64(),
            "stopping"
        );
        let deadline = Instant::now() + drain_timeout;
        // For requests, not for connections: a client that has sent half a head of a request and
        // stops there has asked for nothing yet.
        let answered = tokio::time::timeout_at(deadline.into(), state.all_answered());
        let flushed = if door.let_in_until(answered).await.is_ok() {
            deadline.min(Instant::now() + FLUSH_TIMEOUT)
        } else {
            tracing::warn!(
                requests_in_progress = state.requests_in_progress(),
                "requests were still in progress when the time to stop had passed"
            );
            state.cut_uploads(CUT_TIMEOUT).await;
            // Those that were cut are told so.
            Instant::now() + FLUSH_TIMEOUT
        };
        let closed = tokio::time::timeout_at(flushed.into(), door.close()).await;
        tracing::debug!(in_time = closed.is_ok(), "connections were closed");
        state.settle_uploads(SETTLE_TIMEOUT).await;
        upkeep.stop().await;
    }
}

/// Where connections come in, and those that are there.
struct Door {
    acceptor: Acceptor,
    front: Arc<Front>,
    graceful: GracefulShutdown,
}

impl Door {
    fn new(listener: TcpListener, state: &AppState) -> Self {
        Self {
            acceptor: Acceptor {
                listener,
                connections: Arc::new(Semaphore::new(max_connections())),
                failing_since: None,
            },
            front: Arc::new(Front::new(state)),
            graceful: GracefulShutdown::new(),
        }
    }

    /// Serves whoever connects until `until` resolves; those who are connected are served on.
    async fn let_in_until<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = pin!(until);
        loop {
            tokio::select! {
                (stream, slot) = self.acceptor.accept() => self.serve(stream, slot),
                reached = &mut until => return reached,
            }
        }
    }

    fn serve(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let connection = Arc::new(Connection {
            front: Arc::clone(&self.front),
            signs: Arc::default(),
        });
        let watcher = self.graceful.watcher();
        tokio::spawn(async move {
            connection.serve(stream, watcher).await;
            drop(slot);
        });
    }

    /// Lets nobody in any more, and resolves when everybody is gone. Idle connections are closed,
    /// the others once their requests are answered.
    async fn close(self) {
        drop(self.acceptor);
        self.graceful.shutdown().await;
    }
}

/// A client that is connected.
struct Connection {
    front: Arc<Front>,
    signs: Arc<SignsOfLife>,
}

impl Connection {
    async fn serve(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        let Ok(protocol) = timeout(FIRST_BYTES_TIMEOUT, spoken(&stream)).await else {
            tracing::debug!("a client said nothing");
            return;
        };
        let signs = Arc::clone(&self.signs);
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&signs)));
        let service = service_fn(move |request| Arc::clone(&self).answer(request));
        let builder = builder();
        let connection = builder.serve_connection(io, service).into_owned();
        let silence = async {
            match protocol {
                Protocol::Http1 => signs.silence(HEAD_TIMEOUT).await,
                // It is asked whether it is there.
                Protocol::Http2 => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = watcher.watch(connection) => if let Err(error) = ended {
                tracing::debug!(error, "a connection ended early");
            },
            () = silence => tracing::debug!("a client fell silent"),
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let _answering = self.signs.answering();
        Ok(self.front.answer(request.map(Body::new)).await)
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT);
    builder
}

/// Raises the limit of open files as far as the process may; a connection needs one file, and the
/// databases, bundles and guests need some too.
fn max_connections() -> usize {
    let mut files = getrlimit(Resource::Nofile);
    if files.current < files.maximum || files.maximum.is_none() {
        let wanted = MAX_CONNECTIONS * 2;
        let raised = Rlimit {
            current: Some(files.maximum.map_or(wanted, |maximum| maximum.min(wanted))),
            ..files
        };
        if raised.current > files.current && setrlimit(Resource::Nofile, raised).is_ok() {
            files = raised;
        }
    }
    let connections = files
        .current
        .map_or(MAX_CONNECTIONS, |files| (files / 2).min(MAX_CONNECTIONS));
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// What a client speaks.
enum Protocol {
    Http1,
    Http2,
}

/// Resolves when it is clear which protocol the client speaks. Until then no timer of the
/// connection's own runs.
async fn spoken(stream: &TcpStream) -> Protocol {
    let mut start = [0; HTTP2_PREFACE.len()];
    // An error or the end of the stream is the connection's to find out.
    while let Ok(read) = stream.peek(&mut start).await {
        let said = start.get(..read).unwrap_or_default();
        if said == HTTP2_PREFACE {
            return Protocol::Http2;
        }
        if read == 0 || !HTTP2_PREFACE.starts_with(said) {
            break;
        }
        // Peeking gives the same bytes at once; there is nothing to wait on for more of them.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Protocol::Http1
}

/// Takes connections, as many at once as allowed.
struct Acceptor {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    /// When it was last logged that none can be accepted.
    failing_since: Option<Instant>,
}

impl Acceptor {
    /// The next connection, and its place among those allowed.
    async fn accept(&mut self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let slot = Arc::clone(&self.connections).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.failing_since = None;
                    // Answers are written whole; waiting for more to send would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return (stream, slot);
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.report(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn report(&mut self, error: &io::Error) {
        metrics::counter!("alga_http_accept_failures_total").increment(1);
        if self
            .failing_since
            .is_none_or(|since| since.elapsed() >= ACCEPT_LOG_INTERVAL)
        {
            self.failing_since = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections");
        }
    }
}
