//! Uploads that are gone on with after an interruption, in whichever process.
//!
//! Their bytes go to the store in parts, and how many parts there are is noted in the registry before it is
//! told to anybody: so what is told is there, also after a crash. Bytes behind the last whole part are
//! not kept. Who goes on does so from a place that is still the present one, or is refused; of several at once
//! one goes on.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use alga_bundles::{BundleStore, ETag, PART_BYTES, PartedUpload, StagingKey, StoreError};
use alga_model::{ErrorChain, Timestamp};
use alga_registry::{BundleUpload, RegistryError, UploadEnd, UploadProgress, UploadState};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use uuid::Uuid;

use super::intake::{Intake, NewUpload, Phase, UploadError, next};
use super::measure::{APPENDED, Measure};
use super::recording::{Recorder, noted};
use crate::bundle_care::UPLOADS_KEPT;

/// The code that an upload fails with whose parts were written by two at once.
const OVERWRITTEN: &str = "UPLOAD_CONFLICT";
/// The code that one fails with which the store knows no more.
const GONE: &str = "UPLOAD_GONE";

/// Receives uploads in several requests.
#[derive(Debug)]
pub struct Resumable {
    intake: Arc<Intake>,
}

/// What is to be added to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addition {
    /// The upload.
    pub id: Uuid,
    /// Where its bytes lie.
    pub offset: u64,
    /// How many they are, where that is known.
    pub length: Option<u64>,
}

impl Resumable {
    /// Receives them where `intake` does, within the same bounds.
    pub const fn new(intake: Arc<Intake>) -> Self {
        Self { intake }
    }

    /// The most bytes of an upload.
    pub fn most_bytes(&self) -> u64 {
        self.intake.most_bytes()
    }

    /// Begins an upload of `actor`, unless what was announced of it makes no sense.
    pub async fn create(
        &self,
        actor: &str,
        announced: Result<NewUpload, UploadError>,
    ) -> Result<BundleUpload, UploadError> {
        let created = self.create_unlogged(actor, announced).await;
        if let Err(error) = &created {
            log_refusal(actor, error);
        }
        created
    }

    async fn create_unlogged(
        &self,
        actor: &str,
        announced: Result<NewUpload, UploadError>,
    ) -> Result<BundleUpload, UploadError> {
        self.intake.take_rate(actor)?;
        let new = announced?;
        self.intake.ensure_possible(new.size)?;
        self.intake.ensure_open()?;
        let key = StagingKey::new(Uuid::now_v7());
        let begun = self.store().begin_parts(key, &new.content_type).await;
        let upload = begun.map_err(UploadError::of_store)?;
        let recorder = &self.intake.recorder;
        let record = noted(actor, key, &new, Some(upload.id.clone()));
        let begun = recorder
            .registry()
            .begin_upload(&record, recorder.now())
            .await;
        let refusal = match begun {
            Ok(true) => None,
            Ok(false) => Some(UploadError::IdTaken),
            Err(error) => Some(error.into()),
        };
        if let Some(refusal) = refusal {
            give_up(&**self.store(), &upload).await;
            return Err(refusal);
        }
        tracing::info!(
            actor,
            upload.key = %key,
            size_bytes = new.size,
            "an upload in several requests was announced"
        );
        self.find(key.id()).await
    }

    /// What there is of an upload. One whose last part was interrupted is staged now.
    pub async fn look(&self, id: Uuid) -> Result<BundleUpload, UploadError> {
        let found = self.find(id).await?;
        self.completed(found, None).await
    }

    /// Adds bytes to an upload of `actor`. What is there afterwards are whole parts, or all of it; they
    /// stay also where this fails, or is dropped.
    pub async fn append<E: Error + 'static>(
        &self,
        actor: &str,
        addition: Result<Addition, UploadError>,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    ) -> Result<BundleUpload, UploadError> {
        let mut measure = Measure::begin(&APPENDED);
        let appended = self.append_measured(addition, body, &mut measure).await;
        measure.end(appended.as_ref().err().map(UploadError::code));
        if let Err(error) = &appended {
            log_refusal(actor, error);
        }
        appended
    }

    async fn append_measured<E: Error + 'static>(
        &self,
        addition: Result<Addition, UploadError>,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        measure: &mut Measure,
    ) -> Result<BundleUpload, UploadError> {
        let addition = addition?;
        let upload = self.find(addition.id).await?;
        ensure_fits(&upload, addition)?;
        if upload.received == upload.size {
            return self.completed(upload, None).await;
        }
        let place = Arc::new(self.intake.place().await?);
        let appending = async {
            let upload = self.append_parts(upload, body, &place, measure).await?;
            self.completed(upload, Some(&place)).await
        };
        tokio::select! {
            appended = appending => appended,
            () = self.intake.reached(Phase::Cut) => Err(UploadError::Stopping),
        }
    }

    async fn append_parts<E: Error + 'static>(
        &self,
        mut upload: BundleUpload,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        place: &Arc<OwnedSemaphorePermit>,
        measure: &mut Measure,
    ) -> Result<BundleUpload, UploadError> {
        let begin = upload.received;
        let mut incoming = Incoming {
            body,
            rest: Bytes::new(),
        };
        while upload.received < upload.size {
            let wanted = part_of(upload.size - upload.received);
            let silence = self.intake.limits.silence;
            let part = incoming.take(wanted, silence).await?;
            if part.len() < wanted {
                break;
            }
            let end = upload.received + part.len() as u64;
            if end == upload.size && !incoming.has_ended(silence).await? {
                return Err(UploadError::BeyondEnd { size: upload.size });
            }
            upload = self.keep(upload, part, place).await?;
            measure.bytes(upload.received - begin);
        }
        if upload.received == begin {
            return Err(too_short());
        }
        Ok(upload)
    }

    /// Stores the next part and notes that it is there. That goes on where nobody waits for it any more.
    async fn keep(
        &self,
        upload: BundleUpload,
        part: Bytes,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Result<BundleUpload, UploadError> {
        let (store, recorder) = (Arc::clone(self.store()), self.intake.recorder.clone());
        let place = Arc::clone(place);
        apart(async move {
            let kept = keep(&*store, &recorder, upload, part).await;
            drop(place);
            kept
        })
        .await
    }

    /// The upload, staged where all of it is there and it isn't yet. That goes on where nobody waits for it
    /// any more.
    async fn completed(
        &self,
        upload: BundleUpload,
        place: Option<&Arc<OwnedSemaphorePermit>>,
    ) -> Result<BundleUpload, UploadError> {
        if !is_to_be_joined(&upload) {
            return Ok(upload);
        }
        let (store, recorder) = (Arc::clone(self.store()), self.intake.recorder.clone());
        let place = place.cloned();
        apart(async move {
            let completed = complete(&*store, &recorder, upload).await;
            drop(place);
            completed
        })
        .await
    }

    /// Gives an upload up, and returns when nothing of it is left.
    pub async fn terminate(&self, id: Uuid) -> Result<(), UploadError> {
        let upload = self.find_any(id).await?;
        if upload.state == UploadState::Published {
            return Err(UploadError::Published);
        }
        let recorder = &self.intake.recorder;
        let now = recorder.now();
        let ended = recorder
            .registry()
            .end_upload(id, &UploadEnd::Aborted, now)
            .await?;
        // First it is noted, so that nobody goes on with what is being removed.
        self.intake
            .remove(&upload)
            .await
            .map_err(UploadError::of_store)?;
        if ended {
            tracing::info!(upload.id = %id, "an upload in several requests was given up");
        }
        Ok(())
    }

    /// An upload that can be gone on with, or has come to its end.
    async fn find(&self, id: Uuid) -> Result<BundleUpload, UploadError> {
        let upload = self.find_any(id).await?;
        match upload.state {
            UploadState::Staged | UploadState::Published => Ok(upload),
            UploadState::Receiving if self.intake.recorder.now() < expires_at(&upload) => {
                Ok(upload)
            }
            UploadState::Receiving | UploadState::Failed | UploadState::Aborted => {
                Err(UploadError::Ended)
            }
        }
    }

    async fn find_any(&self, id: Uuid) -> Result<BundleUpload, UploadError> {
        let found = self.intake.recorder.find(id).await?;
        // One that came in a single request is none of ours.
        found
            .filter(|found| found.store_upload.is_some())
            .ok_or(UploadError::NotFound)
    }

    fn store(&self) -> &Arc<dyn BundleStore> {
        &self.intake.store
    }
}

/// When an upload can't be gone on with any more, and is removed.
pub fn expires_at(upload: &BundleUpload) -> Timestamp {
    upload.created_at.plus(UPLOADS_KEPT)
}

/// The bytes of the next part where so many are missing.
fn part_of(missing: u64) -> usize {
    usize::try_from(missing).map_or(PART_BYTES, |missing| missing.min(PART_BYTES))
}

/// Whether what is to be added lies where the upload ends by now, and no further than it may.
fn ensure_fits(upload: &BundleUpload, addition: Addition) -> Result<(), UploadError> {
    if addition.offset != upload.received {
        return Err(UploadError::Offset {
            actual: upload.received,
        });
    }
    let missing = upload.size - upload.received;
    match addition.length {
        Some(length) if length > missing => Err(UploadError::BeyondEnd { size: upload.size }),
        Some(length) if length < part_of(missing) as u64 => Err(too_short()),
        Some(_) | None => Ok(()),
    }
}

fn too_short() -> UploadError {
    UploadError::Invalid(format!(
        "all chunks but the last must have at least {} MiB; nothing of this one is kept",
        PART_BYTES >> 20
    ))
}

/// Whether all of an upload is there, in parts.
pub(super) fn is_to_be_joined(upload: &BundleUpload) -> bool {
    upload.state == UploadState::Receiving
        && upload.received == upload.size
        && upload.store_upload.is_some()
}

/// What the store knows an upload by, whose parts are sent one by one.
pub(crate) fn parted(upload: &BundleUpload) -> Option<PartedUpload> {
    let id = upload.store_upload.clone()?;
    let key = StagingKey::new(upload.id);
    Some(PartedUpload { key, id })
}

fn ours(upload: &BundleUpload) -> Result<PartedUpload, UploadError> {
    parted(upload).ok_or(UploadError::NotFound)
}

async fn keep(
    store: &dyn BundleStore,
    recorder: &Recorder,
    mut upload: BundleUpload,
    part: Bytes,
) -> Result<BundleUpload, UploadError> {
    let registry = recorder.registry();
    // Somebody else may have gone on meanwhile, and what they stored must stay.
    match registry.upload(upload.id).await? {
        Some(found) if found.state != UploadState::Receiving => return Err(UploadError::Ended),
        Some(found) if found.received != upload.received => {
            let actual = found.received;
            return Err(UploadError::Offset { actual });
        }
        Some(_) => {}
        None => return Err(UploadError::Ended),
    }
    let number = u32::try_from(upload.parts.len() + 1).map_err(|_| UploadError::Ended)?;
    let bytes = part.len() as u64;
    let etag = match store.put_part(&ours(&upload)?, number, part).await {
        Ok(etag) => etag,
        Err(StoreError::NotFound { .. }) => return Err(lost(recorder, upload.id, GONE).await),
        Err(error) => return Err(UploadError::of_store(error)),
    };
    let from = upload.received;
    upload.received += bytes;
    upload.parts.push(etag.as_str().to_owned());
    let progress = UploadProgress {
        from,
        to: upload.received,
        parts: Some(upload.parts.clone()),
    };
    let now = recorder.now();
    if registry.progress_upload(upload.id, &progress, now).await? {
        upload.updated_at = now;
        return Ok(upload);
    }
    match registry.upload(upload.id).await? {
        Some(found) if found.state == UploadState::Receiving => Err(UploadError::Offset {
            actual: found.received,
        }),
        Some(_) | None => Err(UploadError::Ended),
    }
}

/// Makes an upload of its parts, all of which are there. Several may do so at once.
pub(super) async fn complete(
    store: &dyn BundleStore,
    recorder: &Recorder,
    upload: BundleUpload,
) -> Result<BundleUpload, UploadError> {
    let parts: Vec<_> = upload.parts.iter().map(ETag::new).collect();
    let parted = ours(&upload)?;
    let stat = match store.join_parts(&parted, &parts, upload.size).await {
        Ok(stat) => stat,
        Err(StoreError::NotFound { .. }) => return Err(lost(recorder, upload.id, GONE).await),
        Err(
            StoreError::Changed { .. }
            | StoreError::WrongContent { .. }
            | StoreError::WrongSize { .. },
        ) => {
            give_up(store, &parted).await;
            lost(recorder, upload.id, OVERWRITTEN).await;
            return Err(UploadError::Overwritten);
        }
        Err(error) => return Err(UploadError::of_store(error)),
    };
    let staged = UploadEnd::Staged {
        hash: None,
        etag: stat.etag.as_str().to_owned(),
    };
    let registry = recorder.registry();
    let now = recorder.now();
    if registry.end_upload(upload.id, &staged, now).await? {
        tracing::info!(
            upload.key = %parted.key,
            size_bytes = upload.size,
            "an upload in several requests is staged"
        );
    }
    match registry.upload(upload.id).await? {
        Some(found) if matches!(found.state, UploadState::Staged | UploadState::Published) => {
            Ok(found)
        }
        // It was given up meanwhile by somebody who could not know that there would be an object.
        Some(_) | None => {
            store
                .remove(parted.key.into())
                .await
                .map_err(UploadError::of_store)?;
            Err(UploadError::Ended)
        }
    }
}

/// Notes that nobody can go on with an upload.
async fn lost(recorder: &Recorder, id: Uuid, code: &'static str) -> UploadError {
    let end = UploadEnd::Failed {
        code: code.to_owned(),
    };
    recorder.end(StagingKey::new(id), end).await;
    UploadError::Ended
}

async fn give_up(store: &dyn BundleStore, upload: &PartedUpload) {
    if let Err(error) = store.abort_parts(upload).await {
        tracing::warn!(
            upload.key = %upload.key,
            error = %ErrorChain(&error),
            "cannot remove what was received of an upload; a sweep does"
        );
    }
}

/// Does something to its end, also where nobody waits for it any more.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, UploadError>> + Send + 'static,
) -> Result<T, UploadError> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(UploadError::Stopping),
    }
}

fn log_refusal(actor: &str, error: &UploadError) {
    match error {
        UploadError::Store(_) | UploadError::Registry(_) => tracing::warn!(
            actor,
            error = %ErrorChain(error),
            error.code = error.code(),
            error.blame = "host",
            "an upload in several requests can't go on now"
        ),
        error => tracing::info!(
            actor,
            error.code = error.code(),
            reason = %error,
            "a request of an upload was refused"
        ),
    }
}

/// The bytes of a request as they come, in the sizes that are asked for.
struct Incoming<B> {
    body: B,
    /// What came and was not asked for yet.
    rest: Bytes,
}

impl<B, E> Incoming<B>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: Error + 'static,
{
    /// The next bytes; fewer than `wanted` at the end.
    async fn take(
        &mut self,
        wanted: usize,
        silence: std::time::Duration,
    ) -> Result<Bytes, UploadError> {
        let mut taken = BytesMut::with_capacity(wanted);
        while taken.len() < wanted {
            if self.rest.is_empty() {
                match next(Pin::new(&mut self.body), silence).await? {
                    Some(bytes) => self.rest = bytes,
                    None => break,
                }
            }
            let missing = wanted - taken.len();
            taken.extend_from_slice(&self.rest.split_to(missing.min(self.rest.len())));
        }
        Ok(taken.freeze())
    }

    /// Whether nothing more comes.
    async fn has_ended(&mut self, silence: std::time::Duration) -> Result<bool, UploadError> {
        while self.rest.is_empty() {
            match next(Pin::new(&mut self.body), silence).await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}

impl From<RegistryError> for UploadError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}
