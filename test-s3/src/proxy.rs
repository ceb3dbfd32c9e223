//! A way to a server that a test can obstruct.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes that are carried at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A way to a server that a test can obstruct. It is gone when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    asked: Arc<AtomicU64>,
    carrying: JoinHandle<()>,
}

/// What goes wrong on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every connection is cut at once.
    Refused,
    /// Connections are cut where this many bytes were asked on all of them together, since the fault was set.
    CutAsked(u64),
    /// Connections are cut where one has carried this many bytes of answers.
    CutAnswers(u64),
    /// What one connection carries of answers beyond this many bytes never comes, and it stays open.
    HoldAnswers(u64),
    /// What is asked arrives, but no answer.
    AnswersLost,
    /// What is asked arrives, but no answer to requests of this method.
    AnswersLostTo(&'static str),
    /// Each piece of what is asked takes this much longer.
    Slow(Duration),
}

impl Proxy {
    /// A way to the server at a URL such as `http://127.0.0.1:80`.
    ///
    /// # Panics
    /// Where no port is free.
    pub async fn before(url: &str) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let fault = watch::Sender::new(Fault::None);
        let asked = Arc::<AtomicU64>::default();
        let way = Way {
            server,
            fault: fault.subscribe(),
            asked: Arc::clone(&asked),
        };
        Self {
            port,
            fault,
            asked,
            carrying: tokio::spawn(way.carry_all(listener)),
        }
    }

    /// The URL of the server through it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, this goes wrong.
    pub fn set(&self, fault: Fault) {
        self.asked.store(0, Ordering::Relaxed);
        self.fault.send_replace(fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

#[derive(Debug, Clone)]
struct Way {
    server: String,
    fault: watch::Receiver<Fault>,
    asked: Arc<AtomicU64>,
}

impl Way {
    async fn carry_all(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(self.clone().carry(client));
            while connections.try_join_next().is_some() {}
        }
    }

    /// Carries one connection, until either end closes it.
    async fn carry(self, client: TcpStream) {
        let fault = self.fault.borrow().to_owned();
        if fault == Fault::Refused {
            return;
        }
        let Ok(server) = TcpStream::connect(&self.server).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut refused = self.fault.clone();
        let is_lost = AtomicBool::new(false);
        // Whichever ends first takes the other with it.
        tokio::select! {
            ended = self.pass_asked(from_client, to_server, &is_lost) => drop(ended),
            ended = self.pass_answers(from_server, to_client, &is_lost) => drop(ended),
            set = refused.wait_for(|fault| *fault == Fault::Refused) => drop(set),
        }
    }

    async fn pass_asked(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        is_lost: &AtomicBool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut buffer).await?;
            let asked = buffer.get(..read).unwrap_or_default();
            let sum = self.asked.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
            let fault = self.fault.borrow().to_owned();
            match fault {
                Fault::CutAsked(limit) if sum > limit => return Ok(()),
                Fault::Slow(time) => tokio::time::sleep(time).await,
                // A client begins to ask with a piece of its own, and asks for one thing at a time.
                Fault::AnswersLostTo(method) if asked.starts_with(method.as_bytes()) => {
                    is_lost.store(true, Ordering::Relaxed);
                }
                _ => {}
            }
            if read == 0 {
                return Ok(());
            }
            to.write_all(asked).await?;
        }
    }

    async fn pass_answers(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        is_lost: &AtomicBool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut carried = 0;
        loop {
            let read = from.read(&mut buffer).await?;
            let fault = self.fault.borrow().to_owned();
            let passing = match fault {
                Fault::CutAnswers(limit) | Fault::HoldAnswers(limit) => {
                    read.min(usize::try_from(limit.saturating_sub(carried)).unwrap_or(0))
                }
                Fault::AnswersLost => 0,
                Fault::AnswersLostTo(_) if is_lost.load(Ordering::Relaxed) => 0,
                _ => read,
            };
            let passed = buffer.get(..passing).unwrap_or_default();
            to.write_all(passed).await?;
            carried += passed.len() as u64;
            if matches!(fault, Fault::HoldAnswers(_)) && passing < read {
                std::future::pending::<()>().await;
            }
            if read == 0 || passing < read {
                return Ok(());
            }
        }
    }
}
