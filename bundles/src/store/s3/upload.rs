//! An object on its way into a bucket.
//!
//! The requests of an upload are sent by a task of its own, which no caller can interrupt: a handle that is
//! dropped tells it to clean up, whatever it was about. The handle gathers bytes into parts and waits while
//! too many of them are on their way.
//!
//! Whose an object is says its [`Mark`] alone. Others may upload under the same key at the same time, and a
//! server may carry out what it never answers: nothing is taken for stored, and nothing removed, that doesn't
//! bear the mark. An `ETag` wouldn't tell as much, as it isn't known where an answer is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::types::CompletedPart;
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::background::Busy;
use super::super::{ObjectKey, PART_BYTES, StagedUpload, Stat, StoreError};
use super::bucket::{Bucket, Mark};
use super::error::Refusal;
use super::traces::{Traces, pause};

/// The parts of one upload that are on their way.
const PARTS_IN_FLIGHT: usize = 2;
/// How often what must be sent once is tried in the end.
pub(super) const ATTEMPTS: u32 = 3;
/// How long parts that are on their way may take before an upload that has failed is aborted without them.
const LAST_PARTS: Duration = Duration::from_secs(10);
/// How long whoever gives an upload up waits until nothing of it is left. A client waits for that.
const CLEANED_WITHIN: Duration = Duration::from_secs(5);

/// The end of an upload that gathers bytes.
#[derive(Debug)]
pub(super) struct S3Upload {
    bucket: Bucket,
    key: ObjectKey,
    size: u64,
    written: u64,
    buffer: BytesMut,
    rooms: Rooms,
    permits: Arc<Semaphore>,
    messages: mpsc::Sender<Message>,
    /// Nothing once it was told.
    outcome: Option<oneshot::Receiver<Outcome>>,
    cleaned: oneshot::Receiver<Result<(), StoreError>>,
    /// A write is under way or has failed.
    is_broken: bool,
}

/// What the handle tells the task.
#[derive(Debug)]
enum Message {
    Part(Part),
    Finish,
}

/// Rooms of parts that have arrived, for those to come. Fresh memory is slower, and an allocator that other threads give
/// it back to keeps about as much again for a while.
#[derive(Debug, Clone, Default)]
struct Rooms(Arc<Mutex<Vec<BytesMut>>>);

impl Rooms {
    fn take(&self) -> Option<BytesMut> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.pop()
    }

    /// What somebody still reads, a request that was given up for instance, is left to them.
    fn give_back(&self, bytes: Bytes) {
        if let Ok(mut room) = bytes.try_into_mut() {
            room.clear();
            let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.push(room);
        }
    }
}

/// Bytes that count as on their way until they are dropped.
#[derive(Debug)]
struct Part {
    bytes: Bytes,
    rooms: Rooms,
    _permits: [OwnedSemaphorePermit; 2],
}

/// What an upload came to; nothing comes where it was given up.
type Outcome = Result<(Stat, Receipt), StoreError>;
/// Sent by whoever takes the outcome: an object that nobody knows of is removed again.
type Receipt = oneshot::Sender<()>;

impl S3Upload {
    pub(super) fn begin(bucket: Bucket, key: ObjectKey, content_type: &str, size: u64) -> Self {
        let (messages, inbox) = mpsc::channel(PARTS_IN_FLIGHT);
        let (told, outcome) = oneshot::channel();
        let (done, cleaned) = oneshot::channel();
        let job = Job {
            bucket: bucket.clone(),
            key,
            content_type: content_type.to_owned(),
            size,
            mark: Mark::new(),
            _busy: bucket.background.busy(),
        };
        tokio::spawn(job.run(inbox, told, done));
        Self {
            bucket,
            key,
            size,
            written: 0,
            buffer: BytesMut::new(),
            rooms: Rooms::default(),
            permits: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
            messages,
            outcome: Some(outcome),
            cleaned,
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
            let room = self.rooms.take();
            self.buffer = room.unwrap_or_else(|| BytesMut::with_capacity(part));
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
            rooms: self.rooms.clone(),
            _permits: [own, shared],
        };
        self.tell(Message::Part(part)).await
    }

    async fn tell(&mut self, message: Message) -> Result<(), StoreError> {
        if self.messages.send(message).await.is_ok() {
            return Ok(());
        }
        Err(match self.outcome().await {
            Some(Err(error)) => error,
            Some(Ok(_)) | None => StoreError::failed(self.key, Broken),
        })
    }

    /// Waits for the outcome, and tells it once.
    async fn outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()?.await.ok()
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
        match self.outcome().await {
            Some(Ok((stat, receipt))) => {
                // Nothing can come between this and the end of the call.
                receipt.send(()).ok();
                Ok(stat)
            }
            Some(Err(error)) => Err(error),
            None => Err(StoreError::failed(key, Broken)),
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        let Self {
            key,
            messages,
            outcome,
            cleaned,
            ..
        } = *self;
        drop((messages, outcome));
        match timeout(CLEANED_WITHIN, cleaned).await {
            Ok(cleaned) => cleaned.unwrap_or_else(|_| Err(StoreError::failed(key, Broken))),
            Err(_) => Err(StoreError::unavailable(key, StillThere)),
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
    mark: Mark,
    _busy: Busy,
}

/// Parts that are on their way.
type OnTheirWay = JoinSet<Result<CompletedPart, Refusal>>;

/// Why a job has nothing to show.
enum Unfinished {
    Failed(StoreError),
    GivenUp,
}

impl Job {
    async fn run(
        self,
        mut inbox: mpsc::Receiver<Message>,
        told: oneshot::Sender<Outcome>,
        done: oneshot::Sender<Result<(), StoreError>>,
    ) {
        let mut traces = Traces::default();
        let mut on_their_way = JoinSet::new();
        let outcome = if self.size <= PART_BYTES as u64 {
            self.send_at_once(&mut inbox, &mut traces).await
        } else {
            self.send_in_parts(&mut inbox, &mut on_their_way, &mut traces)
                .await
        };
        // A writer that waits for room learns that nobody takes it.
        drop(inbox);
        match outcome {
            Ok(stat) => {
                traces.upload = None;
                if is_taken(stat, told).await {
                    traces.object = None;
                }
            }
            Err(Unfinished::Failed(error)) => drop(told.send(Err(error))),
            Err(Unfinished::GivenUp) => drop(told),
        }
        // A part that arrives after its upload was aborted takes room that nobody frees.
        let last = async { while on_their_way.join_next().await.is_some() {} };
        timeout(LAST_PARTS, last).await.ok();
        on_their_way.shutdown().await;
        let cleaned = traces.clean_up(&self.bucket, self.key).await;
        done.send(cleaned).ok();
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
            // Whoever creates something else than an upload has just looked.
            if (is_private(self.key) || attempt > 1)
                && let Some(stat) = self.find().await?
            {
                return Ok(stat);
            }
            traces.object = self.own_object();
            match self.put(bytes.clone()).await {
                Ok(()) => return self.verify().await,
                Err(refusal) if refusal.is_condition() => {
                    let found = self.find().await?;
                    return found.ok_or_else(|| self.fail(refusal));
                }
                Err(refusal) if attempt == ATTEMPTS || !refusal.is_transient() => {
                    return Err(self.fail(refusal));
                }
                Err(_) => {}
            }
            pause(attempt).await;
            attempt += 1;
        }
    }

    async fn put(&self, bytes: Bytes) -> Result<(), Refusal> {
        let (content_type, mark) = (&self.content_type, &self.mark);
        self.bucket.put(self.key, content_type, mark, bytes).await
    }

    async fn send_in_parts(
        &self,
        inbox: &mut mpsc::Receiver<Message>,
        on_their_way: &mut OnTheirWay,
        traces: &mut Traces,
    ) -> Result<Stat, Unfinished> {
        let Some(mut message) = inbox.recv().await else {
            return Err(Unfinished::GivenUp);
        };
        let begun = begin(&self.bucket, self.key, &self.content_type, &self.mark).await;
        let upload = begun.map_err(|refusal| self.fail(refusal))?;
        traces.upload = Some(upload.clone());

        let mut numbers = 1..;
        let mut parts = Vec::new();
        loop {
            match message {
                Message::Finish => break,
                Message::Part(part) => {
                    let number = numbers.next().unwrap_or_default();
                    on_their_way.spawn(self.put_part(&upload, number, part));
                }
            }
            message = self.wait(inbox, on_their_way, &mut parts).await?;
        }
        self.gather(on_their_way, &mut parts).await?;
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
            // All of it, or the permits would be given back at once.
            let Part {
                bytes,
                rooms,
                _permits,
            } = part;
            let checksums = bucket.settings.checksums;
            let sent = bucket
                .put_part(key, &upload, number, bytes.clone(), checksums)
                .await;
            rooms.give_back(bytes);
            sent
        }
    }

    /// Waits for the next message, and meanwhile for parts.
    async fn wait(
        &self,
        inbox: &mut mpsc::Receiver<Message>,
        on_their_way: &mut OnTheirWay,
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
        on_their_way: &mut OnTheirWay,
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
        // Many servers ignore the condition of the request.
        if self.find().await?.is_some() {
            return Err(self.is_taken());
        }
        traces.object = self.own_object();
        match self.bucket.complete(self.key, upload, parts).await {
            Ok(()) => self.verify().await,
            // It may have been carried out though its answer was lost, and is not found again then.
            Err(refusal)
                if refusal.is_transient() || refusal.is_missing() || refusal.is_condition() =>
            {
                match self.find().await {
                    Ok(Some(stat)) => Ok(stat),
                    Err(Unfinished::Failed(error @ StoreError::Exists { .. })) => {
                        Err(Unfinished::Failed(error))
                    }
                    _ => Err(self.fail(refusal)),
                }
            }
            Err(refusal) => Err(self.fail(refusal)),
        }
    }

    /// What this upload may leave at its key. What isn't private is left there: its content is right.
    fn own_object(&self) -> Option<Mark> {
        is_private(self.key).then(|| self.mark.clone())
    }

    fn is_taken(&self) -> Unfinished {
        Unfinished::Failed(StoreError::Exists { key: self.key })
    }

    /// The object, if this upload wrote it; an error if somebody else did.
    async fn find(&self) -> Result<Option<Stat>, Unfinished> {
        let found = self.bucket.look(self.key).await;
        match found.map_err(|refusal| self.fail(refusal))? {
            None => Ok(None),
            Some(found) if !found.bears(&self.mark) => Err(self.is_taken()),
            Some(found) if found.stat.size == self.size => Ok(Some(found.stat)),
            Some(found) => Err(self.is_not_stored(Some(found.stat.size))),
        }
    }

    /// What the server has now, whatever it answered.
    async fn verify(&self) -> Result<Stat, Unfinished> {
        let found = self.find().await?;
        found.ok_or_else(|| self.is_not_stored(None))
    }

    fn is_not_stored(&self, found: Option<u64>) -> Unfinished {
        let size = self.size;
        Unfinished::Failed(StoreError::failed(self.key, NotStored { size, found }))
    }
}

/// Tells the outcome, and whether it came to somebody.
async fn is_taken(stat: Stat, told: oneshot::Sender<Outcome>) -> bool {
    let (receipt, taken) = oneshot::channel();
    told.send(Ok((stat, receipt))).is_ok() && taken.await.is_ok()
}

/// Begins an upload in parts and gives its id.
///
/// Where an answer was lost, there is one more of which nobody knows the id, and which never has a part. A
/// list of uploads doesn't tell it from one that somebody else has just begun under this key, so it is left to
/// the sweep: it takes no room.
pub(super) async fn begin(
    bucket: &Bucket,
    key: ObjectKey,
    content_type: &str,
    mark: &Mark,
) -> Result<String, Refusal> {
    let mut attempt = 1;
    loop {
        match bucket.begin(key, content_type, mark).await {
            Err(refusal) if refusal.is_transient() && attempt < ATTEMPTS => {}
            begun => return begun,
        }
        pause(attempt).await;
        attempt += 1;
    }
}

/// Whether the object is an upload, which is removed when nobody wants it.
fn is_private(key: ObjectKey) -> bool {
    matches!(key, ObjectKey::Staging(_))
}

/// Why an upload cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("an earlier write of this upload failed or was given up")]
struct Broken;

/// What is left of an upload could not be removed yet.
#[derive(Debug, thiserror::Error)]
#[error("what is left of the upload is still being removed")]
struct StillThere;

/// A server that does not do what it says.
#[derive(Debug, thiserror::Error)]
#[error("the server confirmed {size} bytes and has {}", .found.map_or("none".to_owned(), |found| found.to_string()))]
pub(super) struct NotStored {
    pub(super) size: u64,
    pub(super) found: Option<u64>,
}
