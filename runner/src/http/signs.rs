//! Finds connections on which nothing happens.
//!
//! What happens is noted, and looked at now and then. A timer for the head of each request, as hyper
//! has one, is set and dropped for every request, though hardly one of them ever goes off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often it is looked while a connection may be silent.
const LOOKS: u32 = 4;

/// Signs that a connection is used: answers under way, and bytes that the client takes. What the
/// client sends is none, as it could send a head that never ends.
#[derive(Debug, Default)]
pub(super) struct SignsOfLife {
    answering: AtomicUsize,
    /// Whether there was any since it was last looked.
    any: AtomicBool,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering<'a>(&'a SignsOfLife);

/// A stream whose writes are signs of life.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    signs: Arc<SignsOfLife>,
}

impl SignsOfLife {
    /// A request is being answered from now on.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self)
    }

    /// Returns when there has been no sign for `silence`, or for a quarter longer.
    pub(super) async fn silence(&self, silence: Duration) {
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(silence / LOOKS).await;
            looks = if self.take() { 0 } else { looks + 1 };
        }
    }

    fn take(&self) -> bool {
        let any = self.any.swap(false, Ordering::Relaxed);
        any || self.answering.load(Ordering::Relaxed) > 0
    }

    fn note(&self) {
        self.any.store(true, Ordering::Relaxed);
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.note();
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, signs: Arc<SignsOfLife>) -> Self {
        Self { stream, signs }
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.signs.note();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, advance};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_and_not_too_early() {
        let start = Instant::now();
        SignsOfLife::default().silence(SILENCE).await;
        assert!((SILENCE..=SILENCE * 5 / 4).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_no_silence_however_long_it_is_answered() {
        let signs = SignsOfLife::default();
        let mut silence = pin!(signs.silence(SILENCE));
        let answering = signs.answering();
        let waited = tokio::time::timeout(SILENCE * 10, silence.as_mut()).await;
        assert!(waited.is_err());
        drop(answering);
        let answered = Instant::now();
        silence.await;
        assert!((SILENCE..=SILENCE * 5 / 4).contains(&answered.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_to_the_client_break_the_silence_and_bytes_from_it_do_not() {
        let signs = Arc::new(SignsOfLife::default());
        let (ours, mut client) = tokio::io::duplex(64);
        let mut ours = Watched::new(ours, Arc::clone(&signs));
        let mut silence = pin!(signs.silence(SILENCE));
        for _ in 0..10 {
            ours.write_all(b"tick").await.unwrap();
            let waited = tokio::time::timeout(SILENCE / 2, silence.as_mut()).await;
            assert!(waited.is_err());
        }
        let start = Instant::now();
        let mut head = [0; 1];
        loop {
            client.write_all(b"x").await.unwrap();
            ours.read_exact(&mut head).await.unwrap();
            if futures_util::poll!(silence.as_mut()).is_ready() {
                break;
            }
            advance(Duration::from_secs(1)).await;
        }
        assert!(start.elapsed() <= SILENCE * 3 / 2, "{:?}", start.elapsed());
    }
}
