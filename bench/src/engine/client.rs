//! A client that costs little beside the server that it measures: each connection sends the same
//! bytes again as soon as the answer is there, on a thread of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 32;
/// How long one round lasts.
const ROUND: Duration = Duration::from_millis(500);

/// Asks as fast as it is answered, over 32 connections that stay open; gives the answers a second.
pub(super) async fn load(address: SocketAddr, request: String) -> anyhow::Result<f64> {
    let (done, rate) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let rate = runtime
            .context("cannot start the client")
            .and_then(|runtime| runtime.block_on(all_connections(address, request)));
        // Nobody waits any more where the benchmark was interrupted.
        drop(done.send(rate));
    });
    rate.await?
}

async fn all_connections(address: SocketAddr, request: String) -> anyhow::Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address, request.clone()).await?);
    }
    let start = Instant::now();
    let mut running = JoinSet::new();
    for connection in connections {
        running.spawn(connection.ask_until(start + ROUND));
    }
    let mut answers = 0;
    while let Some(answered) = running.join_next().await {
        answers += answered??;
    }
    Ok(f64::from(answers) / start.elapsed().as_secs_f64())
}

struct Connection {
    stream: TcpStream,
    request: String,
    /// Of every answer, since all are answers to the same request.
    answer: Vec<u8>,
}

impl Connection {
    /// Connects, and asks once to learn how long an answer is.
    async fn open(address: SocketAddr, request: String) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer)? {
            ensure!(
                stream.read_buf(&mut answer).await? > 0,
                "the server hung up"
            );
        }
        ensure!(is_fine(&answer), "{}", String::from_utf8_lossy(&answer));
        Ok(Self {
            stream,
            request,
            answer,
        })
    }

    async fn ask_until(mut self, end: Instant) -> anyhow::Result<u32> {
        let mut answers = 0;
        while Instant::now() < end {
            self.stream.write_all(self.request.as_bytes()).await?;
            self.stream.read_exact(&mut self.answer).await?;
            ensure!(is_fine(&self.answer), "an answer has another length");
            answers += 1;
        }
        Ok(answers)
    }
}

fn is_fine(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// Whether head and body are there.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(false);
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.context("an answer has no length")?;
    Ok(body.len() >= length.parse::<usize>()?)
}
