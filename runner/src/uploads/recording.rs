//! Notes in the registry how far uploads have come, for those who follow them from whichever process.
//!
//! It is done in the background. A registry that is slow or fails costs those who follow their news, and
//! no upload anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alga_bundles::{ETag, StagingKey};
use alga_model::{Clock, ContentHash, ErrorChain, Timestamp};
use alga_registry::{
    BundleUpload, NewBundleUpload, Registry, RegistryError, UploadEnd, UploadProgress, UploadState,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};
use tracing::Instrument as _;
use uuid::Uuid;

use super::intake::NewUpload;
use super::measure::CANCELLED;

/// How often is noted at most how far an upload has come.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often is noted at least that an upload goes on, however slowly: it may wait for its turn, for its client
/// or for the store.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How long the registry may take to note something.
const PATIENCE: Duration = Duration::from_secs(5);
/// How late a sign of life may be, on a clock that may be another one.
pub(super) const LATENESS: Duration =
    Duration::from_secs(SIGN_OF_LIFE.as_secs() + PATIENCE.as_secs() + 3);
/// How often it is tried to note an end, with a pause in between.
const END_ATTEMPTS: u32 = 3;
const END_PAUSE: Duration = Duration::from_millis(500);
/// How long those who want to know of an upload wait until its end is noted, which this process knows of.
const SETTLING: Duration = Duration::from_secs(1);

/// The most bytes of what clients say of an upload.
const MAX_BYTES: usize = 255;

/// Notes uploads, and finds them.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    /// How long nothing is noted of an upload until its process counts as gone.
    silence: Duration,
    /// When the registry last could not tell of an upload.
    failed_at: Mutex<Option<Instant>>,
    /// Uploads that have ended here, until that is noted. The sender is dropped then.
    ending: Mutex<HashMap<Uuid, watch::Receiver<()>>>,
    /// How many are being noted.
    at_work: watch::Sender<usize>,
}

/// An upload that is being noted. Dropped before its end, its client went away or the process stops.
#[derive(Debug)]
pub(super) struct Recording {
    id: Uuid,
    recorder: Recorder,
    received: watch::Sender<u64>,
    is_taken: watch::Receiver<bool>,
    done: watch::Receiver<()>,
    /// Nothing once it was told.
    end: Option<oneshot::Sender<UploadEnd>>,
}

impl Recorder {
    /// Notes uploads in `registry`. One of which nothing was noted for `silence` and some seconds more, and that
    /// nobody can go on with, was left by a process that died. As long after the registry failed here nobody can
    /// tell: who receives it may not have been able to note anything either.
    pub fn new(registry: Arc<dyn Registry>, clock: Arc<dyn Clock>, silence: Duration) -> Self {
        Self(Arc::new(Inner {
            registry,
            clock,
            silence: silence + LATENESS,
            failed_at: Mutex::default(),
            ending: Mutex::default(),
            at_work: watch::Sender::new(0),
        }))
    }

    /// What is known of an upload. What this process knows better is waited for, a second at most.
    pub async fn find(&self, id: Uuid) -> Result<Option<BundleUpload>, RegistryError> {
        let ending = self.ending().get(&id).cloned();
        if let Some(mut ending) = ending {
            let _ = timeout(SETTLING, ending.changed()).await;
        }
        let found = self.0.registry.upload(id).await;
        if found.is_err() {
            *self.failed_at() = Some(Instant::now());
        }
        Ok(found?.map(|found| self.judged(found)))
    }

    /// An upload as it is, whatever the process could not note any more that received it.
    fn judged(&self, upload: BundleUpload) -> BundleUpload {
        let is_left = upload.state == UploadState::Receiving
            && upload.store_upload.is_none()
            && self.now() > upload.updated_at.plus(self.0.silence)
            && self
                .failed_at()
                .is_none_or(|at| at.elapsed() > self.0.silence);
        if !is_left {
            return upload;
        }
        BundleUpload {
            state: UploadState::Failed,
            code: Some(CANCELLED.to_owned()),
            ..upload
        }
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        let failed_at = self.0.failed_at.lock();
        failed_at.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is being noted any more, for `patience` at most.
    pub async fn settle(&self, patience: Duration) {
        let mut at_work = self.0.at_work.subscribe();
        let settled = timeout(patience, at_work.wait_for(|at_work| *at_work == 0)).await;
        if settled.is_err() {
            tracing::warn!("what became of the last uploads could not be noted in time");
        }
    }

    /// Begins to note an upload.
    pub(super) fn begin(&self, actor: &str, key: StagingKey, new: &NewUpload) -> Recording {
        let (received, progress) = watch::channel(0);
        let (taken, is_taken) = watch::channel(false);
        let (finished, done) = watch::channel(());
        let (end, ended) = oneshot::channel();
        let scribe = Scribe {
            recorder: self.clone(),
            new: noted(actor, key, new, None),
            stage: Stage::Unknown,
            received: 0,
            noted_at: Instant::now(),
            has_warned: false,
        };
        self.0.at_work.send_modify(|at_work| *at_work += 1);
        let recorder = self.clone();
        let work = async move {
            let _leaving = Leaving {
                id: key.id(),
                recorder,
            };
            scribe.work(progress, ended, taken).await;
            drop(finished);
        };
        tokio::spawn(work.in_current_span());
        Recording {
            id: key.id(),
            recorder: self.clone(),
            received,
            is_taken,
            done,
            end: Some(end),
        }
    }

    /// Notes the end of an upload whose beginning may be noted, and waits until that is done. A failure
    /// is no more than a warning.
    pub(super) async fn end(&self, key: StagingKey, end: UploadEnd) {
        // After what is being noted already.
        let ending = self.ending().get(&key.id()).cloned();
        if let Some(mut ending) = ending {
            let _ = timeout(SETTLING, ending.changed()).await;
        }
        let now = self.now();
        let ended = in_time(self.0.registry.end_upload(key.id(), &end, now)).await;
        if let Err(error) = ended {
            warn(key.id(), &error);
        }
    }

    /// The registry, for uploads that rest on it.
    pub(super) fn registry(&self) -> &dyn Registry {
        &*self.0.registry
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn ending(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Receiver<()>>> {
        // Poisoning would need a panic within, where nothing can.
        let ending = self.0.ending.lock();
        ending.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the registry is told of an upload that begins.
pub(super) fn noted(
    actor: &str,
    key: StagingKey,
    new: &NewUpload,
    store_upload: Option<String>,
) -> NewBundleUpload {
    NewBundleUpload {
        id: key.id(),
        actor: actor.to_owned(),
        filename: plain(&new.filename),
        content_type: plain(&new.content_type),
        size: new.size,
        declared_hash: new.declared_hash,
        store_upload,
    }
}

/// A text as the registry takes it.
fn plain(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_BYTES);
    text.get(..end)
        .unwrap_or_default()
        .replace(char::is_control, "_")
}

impl Recording {
    /// So many bytes are there by now.
    pub(super) fn received(&self, bytes: u64) {
        self.received.send_replace(bytes);
    }

    /// Resolves when it turns out that there is another upload with this id.
    pub(super) async fn taken(&self) {
        let mut is_taken = self.is_taken.clone();
        if is_taken.wait_for(|is_taken| *is_taken).await.is_err() {
            // Nobody looks any more.
            std::future::pending::<()>().await;
        }
    }

    /// All of it is in the store.
    pub(super) fn staged(self, hash: ContentHash, etag: &ETag) {
        self.ended(UploadEnd::Staged {
            hash: Some(hash),
            etag: etag.as_str().to_owned(),
        });
    }

    /// It was not received.
    pub(super) fn failed(self, code: &'static str) {
        self.ended(failed(code));
    }

    fn ended(mut self, end: UploadEnd) {
        self.tell(end);
    }

    fn tell(&mut self, end: UploadEnd) {
        if let Some(told) = self.end.take() {
            let mut ending = self.recorder.ending();
            // Whoever asks from now on waits until it is noted, unless that can't be any more.
            if told.send(end).is_ok() {
                ending.insert(self.id, self.done.clone());
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.tell(failed(CANCELLED));
    }
}

fn failed(code: &str) -> UploadEnd {
    UploadEnd::Failed {
        code: code.to_owned(),
    }
}

/// Counts as at work until it is dropped.
struct Leaving {
    id: Uuid,
    recorder: Recorder,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.recorder.ending().remove(&self.id);
        self.recorder.0.at_work.send_modify(|at_work| *at_work -= 1);
    }
}

/// Notes one upload.
struct Scribe {
    recorder: Recorder,
    new: NewBundleUpload,
    stage: Stage,
    /// What was noted last.
    received: u64,
    /// When it was.
    noted_at: Instant,
    has_warned: bool,
}

/// What is known of the beginning of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was not noted yet.
    Unknown,
    /// It may be noted: the answer was lost.
    Tried,
    /// It is noted.
    Begun,
    /// There is another one with its id.
    Taken,
    /// Somebody ended it.
    Over,
}

impl Scribe {
    async fn work(
        mut self,
        received: watch::Receiver<u64>,
        mut ended: oneshot::Receiver<UploadEnd>,
        taken: watch::Sender<bool>,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                biased;
                end = &mut ended => break end,
                _ = ticks.tick() => {}
            }
            let received = *received.borrow();
            self.note(received).await;
            if self.stage == Stage::Taken {
                taken.send_replace(true);
                return;
            }
        };
        // It is always told.
        let end = end.unwrap_or_else(|_| failed(CANCELLED));
        for attempt in 1..=END_ATTEMPTS {
            if self.try_end(&end).await {
                return;
            }
            if attempt < END_ATTEMPTS {
                sleep(END_PAUSE).await;
            }
        }
    }

    /// Notes how far it has come, or that it has begun.
    async fn note(&mut self, received: u64) {
        let noted = match self.stage {
            Stage::Unknown | Stage::Tried => self.begin().await,
            Stage::Begun
                if received != self.received || self.noted_at.elapsed() >= SIGN_OF_LIFE =>
            {
                self.progress(received).await
            }
            Stage::Begun | Stage::Taken | Stage::Over => Ok(()),
        };
        self.warn_once(noted);
    }

    /// Notes the end; tells whether there is nothing more to do.
    async fn try_end(&mut self, end: &UploadEnd) -> bool {
        let noted = async {
            if matches!(self.stage, Stage::Unknown | Stage::Tried) {
                self.begin().await?;
            }
            if self.stage == Stage::Taken {
                return Ok(());
            }
            let now = self.recorder.now();
            let registry = Arc::clone(&self.recorder.0.registry);
            in_time(registry.end_upload(self.new.id, end, now)).await?;
            Ok(())
        };
        let noted = noted.await;
        let is_done = noted.is_ok();
        self.warn_once(noted);
        is_done
    }

    async fn begin(&mut self) -> Result<(), RegistryError> {
        let was_tried = self.stage == Stage::Tried;
        self.stage = Stage::Tried;
        let now = self.recorder.now();
        let registry = Arc::clone(&self.recorder.0.registry);
        let is_new = in_time(registry.begin_upload(&self.new, now)).await?;
        let is_ours = is_new || (was_tried && self.is_ours().await?);
        self.stage = if is_ours { Stage::Begun } else { Stage::Taken };
        self.noted_at = Instant::now();
        Ok(())
    }

    /// Whether what is noted under the id is this upload, whose beginning was noted and that wasn't heard.
    async fn is_ours(&self) -> Result<bool, RegistryError> {
        let found = in_time(self.recorder.0.registry.upload(self.new.id)).await?;
        Ok(found.is_some_and(|found| {
            let NewBundleUpload {
                actor,
                filename,
                size,
                ..
            } = &self.new;
            found.state == UploadState::Receiving
                && found.received == 0
                && (&found.actor, &found.filename, &found.size) == (actor, filename, size)
        }))
    }

    async fn progress(&mut self, received: u64) -> Result<(), RegistryError> {
        let progress = UploadProgress {
            from: self.received,
            to: received,
            parts: None,
        };
        let now = self.recorder.now();
        let registry = Arc::clone(&self.recorder.0.registry);
        if in_time(registry.progress_upload(self.new.id, &progress, now)).await? {
            self.received = received;
            self.noted_at = Instant::now();
            return Ok(());
        }
        // Somebody ended it, or the last time was noted and that wasn't heard.
        match in_time(registry.upload(self.new.id)).await? {
            Some(found) if found.state == UploadState::Receiving => self.received = found.received,
            _ => self.stage = Stage::Over,
        }
        Ok(())
    }

    fn warn_once(&mut self, noted: Result<(), RegistryError>) {
        if let Err(error) = noted
            && !std::mem::replace(&mut self.has_warned, true)
        {
            warn(self.new.id, &error);
        }
    }
}

/// What the registry says, if it says so in time.
async fn in_time<T>(
    asking: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let answered = timeout(PATIENCE, asking).await;
    answered.unwrap_or_else(|elapsed| {
        Err(RegistryError::Unavailable {
            source: elapsed.into(),
        })
    })
}

fn warn(id: Uuid, error: &RegistryError) {
    tracing::warn!(
        upload.id = %id,
        error = %ErrorChain(error),
        error.blame = "host",
        "cannot note what becomes of an upload, which goes on"
    );
}
