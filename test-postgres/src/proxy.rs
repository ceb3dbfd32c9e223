//! A way to a server that a test can obstruct.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::at;

/// A way to a server that a test can obstruct. It is gone when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    passage: watch::Sender<Passage>,
    accepted: Arc<AtomicUsize>,
    carrying: JoinHandle<()>,
}

/// What comes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Open,
    /// Nothing, and nobody is told: as where a host has lost its power, or its network.
    Silent,
    /// What is asked, but no answer: with the first one a connection is cut.
    AnswersLost,
}

impl Proxy {
    /// A way to the server that `url` names.
    pub async fn before(url: &str) -> Self {
        let server = address(url).to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let passage = watch::Sender::new(Passage::Open);
        let accepted = Arc::<AtomicUsize>::default();
        let carrying = carry_all(listener, server, passage.subscribe(), Arc::clone(&accepted));
        Self {
            port,
            passage,
            accepted,
            carrying: tokio::spawn(carrying),
        }
    }

    /// The way of `url` through it.
    pub fn url_of(&self, url: &str) -> String {
        at(url, "127.0.0.1", self.port)
    }

    /// From now on, only this comes through.
    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// How many connections were made through it so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry_all(
    listener: TcpListener,
    server: String,
    passage: watch::Receiver<Passage>,
    accepted: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(carry(client, server.clone(), passage.clone()));
    }
}

/// Carries one connection, until either end closes it.
async fn carry(client: TcpStream, server: String, passage: watch::Receiver<Passage>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first takes the other with it.
    drop(tokio::select! {
        ended = pass(from_client, to_server, passage.clone(), false) => ended,
        ended = pass(from_server, to_client, passage, true) => ended,
    });
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
    are_answers: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        // Neither does the other side learn that this one is gone.
        let open = passage
            .wait_for(|passage| *passage != Passage::Silent)
            .await;
        let open = open.map(|passage| *passage).map_err(io::Error::other)?;
        if read == 0 || (are_answers && open == Passage::AnswersLost) {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}

/// Host and port of a URL.
fn address(url: &str) -> &str {
    let (_, rest) = url.split_once("://").expect("the URL has a scheme");
    let (server, _) = rest.split_once('/').expect("the URL names a database");
    server
        .rsplit_once('@')
        .map_or(server, |(_, address)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_url_is_found() {
        for (url, expected) in [
            ("postgres://a@h:1/postgres", "h:1"),
            (
                "postgres://a:b@127.0.0.1:5432/db?sslmode=disable",
                "127.0.0.1:5432",
            ),
            ("postgres://h:1/db", "h:1"),
        ] {
            assert_eq!(address(url), expected);
        }
    }
}
