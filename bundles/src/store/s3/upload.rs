//! An object on its way into a bucket.
//!
//! The requests of an upload are sent by a task of its own, which no caller can interrupt: a handle that is
//! dropped tells it to clean up, whatever it was about. The handle gathers bytes into parts and waits while
//! too many of them are on their way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::types::CompletedPart;
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{ObjectKey, PART_BYTES, StagedUpload, Stat, StoreError};
use super::bucket::Bucket;
use super::error::Refusal;
use super::traces::{Traces, pause};

/// The parts of one upload that are on their way.
const PARTS_IN_FLIGHT: usize = 2;
/// How often what must be sent once is tried in the end.
pub(super) const ATTEMPTS: u32 = 3;
/// How long parts that are on their way may take before an upload that has failed is aborted without them.
const LAST_PARTS: Duration = Duration::from_secs(10);

/// The end of an upload that gathers bytes.
#[derive(Debug)]
pub(super) struct S3Upload {
    bucket: Bucket,
    key: ObjectKey,
    size: u64,
    written: u64,
    buffer: BytesMut,
    permits: Arc<Semaphore>,
    messages: mpsc::Sender<Message>,
    /// Nothing once it was told.
    ended: Option<oneshot::Receiver<Ended>>,
    /// A write is under way or has failed.
    is_broken: bool,
}

/// What the handle tells the task.
#[derive(Debug)]
enum Message {
    Part(Part),
    Finish,
}

/// Bytes that count as on their way until they are dropped.
#[derive(Debug)]
struct Part {
    bytes: Bytes,
    _permits: [OwnedSemaphorePermit; 2],
}

/// How the task ended.
#[derive(Debug)]
enum Ended {
    Stored(Stat),
    Failed(StoreError),
    /// The handle was dropped.
    GivenUp(Result<(), StoreError>),
}

impl S3Upload {
    pub(super) fn begin(bucket: Bucket, key: ObjectKey, content_type: &str, size: u64) -> Self {
        let (messages, inbox) = mpsc::channel(PARTS_IN_FLIGHT);
        let (told, ended) = oneshot::channel();
        let job = Job {
            bucket: bucket.clone(),
            key,
            content_type: content_type.to_owned(),
            size,
        };
        tokio::spawn(job.run(inbox, told));
        Self {
            bucket,
            key,
            size,
            written: 0,
            buffer: BytesMut::new(),
            permits: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
            messages,
            ended: Some(ended),
            is_broken: false,
        }
    }

    fn wrong_size(&self, actual: u64) -> StoreError {
        StoreError::WrongSize {
            key: self.key,
            expected: self.size,
            actual,
        }
    }

    /// Room for the next part, all at once so that growing copies nothing.
    fn reserve(&mut self, to_come: u64) {
        if self.buffer.capacity() == 0 {
            let part = usize::try_from(to_come).map_or(PART_BYTES, |left| left.min(PART_BYTES));
            self.buffer = BytesMut::with_capacity(part);
        }
    }

    async fn gather(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            self.reserve(self.size - self.written);
            let room = PART_BYTES - self.buffer.len();
            let taken = bytes.split_to(room.min(bytes.len()));
            self.buffer.extend_from_slice(&taken);
            self.written += taken.len() as u64;
            if self.buffer.len() == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let own = Arc::clone(&self.permits).acquire_owned().await;
        let shared = Arc::clone(&self.bucket.parts_in_flight)
            .acquire_owned()
            .await;
        let (Ok(own), Ok(shared)) = (own, shared) else {
            return Err(StoreError::failed(self.key, Broken));
        };
        let part = Part {
            bytes: std::mem::take(&mut self.buffer).freeze(),
            _permits: [own, shared],
        };
        self.tell(Message::Part(part)).await
    }

    async fn tell(&mut self, message: Message) -> Result<(), StoreError> {
        if self.messages.send(message).await.is_ok() {
            return Ok(());
        }
        match self.end().await {
            Some(Ended::Failed(error)) => Err(error),
            Some(Ended::Stored(_) | Ended::GivenUp(_)) | None => {
                Err(StoreError::failed(self.key, Broken))
            }
        }
    }

    /// Waits for the end, and tells it once.
    async fn end(&mut self) -> Option<Ended> {
        self.ended.take()?.await.ok()
    }
}

#[async_trait]
impl StagedUpload for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if self.is_broken {
            return Err(StoreError::failed(self.key, Broken));
        }
        self.is_broken = true;
        let written = self.written + bytes.len() as u64;
        if written > self.size {
            return Err(self.wrong_size(written));
        }
        self.gather(bytes).await?;
        self.is_broken = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stat, StoreError> {
        let key = self.key;
        if self.is_broken || self.written != self.size {
            let error = if self.is_broken {
                StoreError::failed(key, Broken)
            } else {
                self.wrong_size(self.written)
            };
            // What stays is in the log already, and is not what went wrong.
            self.abort().await.ok();
            return Err(error);
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        self.tell(Message::Finish).await?;
        match self.end().await {
            Some(Ended::Stored(stat)) => Ok(stat),
            Some(Ended::Failed(error)) => Err(error),
            Some(Ended::GivenUp(_)) | None => Err(StoreError::failed(key, Broken)),
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        let Self {
            messages, ended, ..
        } = *self;
        drop(messages);
        let Some(ended) = ended else { return Ok(()) };
        match ended.await {
            Ok(Ended::GivenUp(cleaned)) => cleaned,
            // What failed is cleaned up without us, and only what was told to finish is stored.
            Ok(Ended::Failed(_) | Ended::Stored(_)) | Err(_) => Ok(()),
        }
    }
}

/// The end of an upload that sends requests.
#[derive(Debug)]
struct Job {
    bucket: Bucket,
    key: ObjectKey,
    content_type: String,
    size: u64,
}

/// Why a job has nothing to show.
enum Unfinished {
    Failed(StoreError),
    GivenUp,
}

impl Job {
    async fn run(self, mut inbox: mpsc::Receiver<Message>, told: oneshot::Sender<Ended>) {
        let mut traces = Traces::default();
        let outcome = if self.size <= PART_BYTES as u64 {
            self.send_at_once(&mut inbox, &mut traces).await
        } else {
            self.send_in_parts(&mut inbox, &mut traces).await
        };
        // A writer that waits for room learns that nobody takes it.
        drop(inbox);
        match outcome {
            Ok(stat) => {
                let is_wanted = told.send(Ended::Stored(stat)).is_ok();
                traces.upload = None;
                traces.object = !is_wanted && is_private(self.key);
                traces.clean_up(&self.bucket, self.key).await.ok();
            }
            Err(Unfinished::Failed(error)) => {
                told.send(Ended::Failed(error)).ok();
                traces.clean_up(&self.bucket, self.key).await.ok();
            }
            Err(Unfinished::GivenUp) => {
                let cleaned = traces.clean_up(&self.bucket, self.key).await;
                told.send(Ended::GivenUp(cleaned)).ok();
            }
        }
    }

    fn fail(&self, refusal: Refusal) -> Unfinished {
        Unfinished::Failed(refusal.into_error(self.key))
    }

    async fn send_at_once(
        &self,
        inbox: &mut mpsc::Receiver<Message>,
        traces: &mut Traces,
    ) -> Result<Stat, Unfinished> {
        let mut part = None;
        loop {
            match inbox.recv().await {
                Some(Message::Part(whole)) => part = Some(whole),
                Some(Message::Finish) => break,
                None => return Err(Unfinished::GivenUp),
            }
        }
        let bytes = part
            .as_ref()
            .map(|part| part.bytes.clone())
            .unwrap_or_default();
        let mut attempt = 1;
        loop {
            let put = self
                .bucket
                .put(self.key, &self.content_type, bytes.clone())
                .await;
            match put {
                Ok(()) => break,
                // An earlier attempt was carried out though its answer was lost.
                Err(refusal) if refusal.is_condition() && traces.object => break,
                Err(refusal) if refusal.is_condition() => {
                    return Err(Unfinished::Failed(StoreError::Exists { key: self.key }));
                }
                Err(refusal) => {
                    traces.object = is_private(self.key);
                    if attempt == ATTEMPTS || !refusal.is_transient() {
                        return Err(self.fail(refusal));
                    }
                }
            }
            pause(attempt).await;
            attempt += 1;
        }
        let stat = self.verify(traces).await?;
        traces.object = false;
        Ok(stat)
    }

    async fn send_in_parts(
        &self,
        inbox: &mut mpsc::Receiver<Message>,
        traces: &mut Traces,
    ) -> Result<Stat, Unfinished> {
        let Some(mut message) = inbox.recv().await else {
            return Err(Unfinished::GivenUp);
        };
        let begun = begin(&self.bucket, self.key, &self.content_type, traces).await;
        let upload = begun.map_err(|refusal| self.fail(refusal))?;
        traces.upload = Some(upload.clone());

        let mut numbers = 1..;
        let mut on_their_way = JoinSet::new();
        let mut parts = Vec::new();
        let sent = loop {
            match message {
                Message::Finish => break Ok(()),
                Message::Part(part) => {
                    let number = numbers.next().unwrap_or_default();
                    on_their_way.spawn(self.put_part(&upload, number, part));
                }
            }
            match self.wait(inbox, &mut on_their_way, &mut parts).await {
                Ok(next) => message = next,
                Err(unfinished) => break Err(unfinished),
            }
        };
        let sent = match sent {
            Ok(()) => self.gather(&mut on_their_way, &mut parts).await,
            Err(unfinished) => Err(unfinished),
        };
        if let Err(unfinished) = sent {
            // A part that arrives after its upload was aborted takes room that nobody frees.
            let last = async { while on_their_way.join_next().await.is_some() {} };
            timeout(LAST_PARTS, last).await.ok();
            on_their_way.shutdown().await;
            return Err(unfinished);
        }
        self.complete(&upload, parts, traces).await
    }

    fn put_part(
        &self,
        upload: &str,
        number: i32,
        part: Part,
    ) -> impl Future<Output = Result<CompletedPart, Refusal>> + use<> {
        let (bucket, key, upload) = (self.bucket.clone(), self.key, upload.to_owned());
        async move {
            let bytes = part.bytes.clone();
            let sent = bucket.put_part(key, &upload, number, bytes).await;
            drop(part);
            sent
        }
    }

    /// Waits for the next message, and meanwhile for parts.
    async fn wait(
        &self,
        inbox: &mut mpsc::Receiver<Message>,
        on_their_way: &mut JoinSet<Result<CompletedPart, Refusal>>,
        parts: &mut Vec<CompletedPart>,
    ) -> Result<Message, Unfinished> {
        loop {
            tokio::select! {
                message = inbox.recv() => return message.ok_or(Unfinished::GivenUp),
                Some(sent) = on_their_way.join_next(), if !on_their_way.is_empty() => {
                    parts.push(self.arrived(sent)?);
                }
            }
        }
    }

    async fn gather(
        &self,
        on_their_way: &mut JoinSet<Result<CompletedPart, Refusal>>,
        parts: &mut Vec<CompletedPart>,
    ) -> Result<(), Unfinished> {
        while let Some(sent) = on_their_way.join_next().await {
            parts.push(self.arrived(sent)?);
        }
        parts.sort_unstable_by_key(CompletedPart::part_number);
        Ok(())
    }

    fn arrived(
        &self,
        sent: Result<Result<CompletedPart, Refusal>, tokio::task::JoinError>,
    ) -> Result<CompletedPart, Unfinished> {
        match sent {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(refusal)) => Err(self.fail(refusal)),
            Err(error) => Err(Unfinished::Failed(StoreError::failed(self.key, error))),
        }
    }

    async fn complete(
        &self,
        upload: &str,
        parts: Vec<CompletedPart>,
        traces: &mut Traces,
    ) -> Result<Stat, Unfinished> {
        traces.object = is_private(self.key);
        let completed = self.bucket.complete(self.key, upload, parts).await;
        let stat = match completed {
            Ok(()) => self.verify(traces).await?,
            // It may have been carried out though its answer was lost, and is not found again then.
            Err(refusal) if refusal.is_transient() || refusal.is_missing() => {
                match self.bucket.head(self.key).await {
                    Ok(Some(stat)) if stat.size == self.size => stat,
                    _ => return Err(self.fail(refusal)),
                }
            }
            Err(refusal) => return Err(self.fail(refusal)),
        };
        traces.object = false;
        Ok(stat)
    }

    /// What the server has now, whatever it answered.
    async fn verify(&self, traces: &mut Traces) -> Result<Stat, Unfinished> {
        traces.object = is_private(self.key);
        let stat = self.bucket.head(self.key).await;
        match stat.map_err(|refusal| self.fail(refusal))? {
            Some(stat) if stat.size == self.size => Ok(stat),
            found => Err(Unfinished::Failed(StoreError::failed(
                self.key,
                NotStored {
                    size: self.size,
                    found: found.map(|stat| stat.size),
                },
            ))),
        }
    }
}

/// Begins an upload in parts and gives its id. What may be left of earlier attempts is among the traces.
pub(super) async fn begin(
    bucket: &Bucket,
    key: ObjectKey,
    content_type: &str,
    traces: &mut Traces,
) -> Result<String, Refusal> {
    let mut attempt = 1;
    loop {
        match bucket.begin(key, content_type).await {
            Ok(upload) => return Ok(upload),
            Err(refusal) => {
                traces.lost_uploads |= refusal.is_transient() && is_private(key);
                if attempt == ATTEMPTS || !refusal.is_transient() {
                    return Err(refusal);
                }
            }
        }
        pause(attempt).await;
        attempt += 1;
    }
}

/// Whether nobody else writes this object, so that whatever is there is of this upload.
fn is_private(key: ObjectKey) -> bool {
    matches!(key, ObjectKey::Staging(_))
}

/// Why an upload cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("an earlier write of this upload failed or was given up")]
struct Broken;

/// A server that does not do what it says.
#[derive(Debug, thiserror::Error)]
#[error("the server confirmed {size} bytes and has {}", .found.map_or("none".to_owned(), |found| found.to_string()))]
pub(super) struct NotStored {
    pub(super) size: u64,
    pub(super) found: Option<u64>,
}
