//! The bytes of a stored object, for code that blocks.

use std::io::{self, Read};

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::patience::Patience;
use crate::store::{ObjectKey, StoreError, StoredObject};

/// The most bytes that are handed over at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The most chunks that wait for the reader: so little is ever held of an object.
const CHUNKS: usize = 4;

/// An object on its way to an [`Incoming`].
#[derive(Debug)]
pub(crate) struct Pump {
    object: StoredObject,
    key: ObjectKey,
    patience: Patience,
    chunks: mpsc::Sender<Result<Bytes, Interrupted>>,
}

/// Reads the bytes of an object as they come in. Blocking.
///
/// It ends where the object does. An object that is cut off, or whose [`Pump`] is dropped before its
/// end, is an error and no end.
#[derive(Debug)]
pub(crate) struct Incoming {
    chunks: mpsc::Receiver<Result<Bytes, Interrupted>>,
    current: Bytes,
    left: u64,
}

/// No more bytes come. The [`Pump`] knows why.
#[derive(Debug)]
struct Interrupted;

/// Both ends of a way through which an object is read. A store that gives nothing for as long as `stall`, or hardly
/// anything for long, is unavailable.
pub(crate) fn incoming(key: ObjectKey, object: StoredObject, stall: Duration) -> (Pump, Incoming) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let incoming = Incoming {
        chunks: receiver,
        current: Bytes::new(),
        left: object.stat.size,
    };
    let pump = Pump {
        patience: Patience::new(key, stall, object.stat.size),
        object,
        key,
        chunks: sender,
    };
    (pump, incoming)
}

impl Pump {
    /// Reads the object to its end, or until nobody wants more of it.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let pumped = self.pump().await;
        if pumped.is_err() {
            // The reader may have had enough, and then there is nobody to tell.
            let _ = self.chunks.send(Err(Interrupted)).await;
        }
        pumped
    }

    async fn pump(&mut self) -> Result<(), StoreError> {
        let (key, mut left) = (self.key, self.object.stat.size);
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let mut chunk = BytesMut::with_capacity(len);
            let mut body = (&mut self.object.body).take(len as u64);
            let read = async {
                let read = body.read_buf(&mut chunk).await;
                read.map_err(|error| StoreError::unavailable(key, error))
            };
            match self.patience.wait(read).await? {
                0 => return Err(StoreError::cut_off(key)),
                read => left -= read as u64,
            }
            if self.chunks.send(Ok(chunk.freeze())).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && self.left > 0 {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.left = self.left.saturating_sub(chunk.len() as u64);
                    self.current = chunk;
                }
                Some(Err(Interrupted)) | None => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let chunk = self.current.split_to(buffer.len().min(self.current.len()));
        if let Some(buffer) = buffer.get_mut(..chunk.len()) {
            buffer.copy_from_slice(&chunk);
        }
        Ok(chunk.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::task::spawn_blocking;
    use uuid::Uuid;

    use super::*;
    use crate::store::{ETag, StagingKey, Stat};

    fn object(bytes: Vec<u8>, size: u64) -> (Pump, Incoming) {
        let stat = Stat {
            size,
            etag: ETag::new("one"),
            modified: SystemTime::UNIX_EPOCH,
        };
        let body = Box::pin(io::Cursor::new(bytes));
        let key = StagingKey::new(Uuid::nil()).into();
        incoming(key, StoredObject { stat, body }, Duration::from_secs(1))
    }

    fn read(mut incoming: Incoming) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        incoming.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn an_object_is_read_as_it_is() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES * (CHUNKS + 3) + 1] {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let (pump, incoming) = object(bytes.clone(), len as u64);
            let reading = spawn_blocking(|| read(incoming));
            pump.run().await.unwrap();
            assert!(reading.await.unwrap().unwrap() == bytes, "{len}");
        }
    }

    #[tokio::test]
    async fn an_object_that_is_cut_off_has_no_end() {
        let (pump, incoming) = object(vec![1; 10], 11);
        let reading = spawn_blocking(|| read(incoming));
        assert!(pump.run().await.unwrap_err().is_transient());
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_object_that_nobody_fetches_any_more_has_no_end() {
        let (pump, incoming) = object(vec![1; 10], 10);
        drop(pump);
        let error = spawn_blocking(|| read(incoming)).await.unwrap();
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_reader_that_had_enough_stops_the_pump() {
        let len = CHUNK_BYTES * (CHUNKS + 3);
        let (pump, incoming) = object(vec![1; len], len as u64);
        drop(incoming);
        pump.run().await.unwrap();
    }
}
