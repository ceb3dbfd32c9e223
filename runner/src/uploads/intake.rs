//! Takes the bytes of an upload as they come, and has nothing left of one that goes wrong.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_bundles::{BundleStore, Limits, StagedUpload, StagingKey, Stat, StoreError};
use alga_model::{ContentHash, ContentHasher, ErrorChain};
use alga_registry::{BundleUpload, RegistryError, UploadEnd};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::measure::{CANCELLED, Measure, UPLOADED};
use super::rate::Rate;
use super::recording::{Recorder, Recording};
use super::resumable::parted;

/// Receives uploads.
#[derive(Debug)]
pub struct Intake {
    pub(super) store: Arc<dyn BundleStore>,
    pub(super) recorder: Recorder,
    pub(super) limits: IntakeLimits,
    rate: Rate,
    places: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
}

/// What bounds uploads.
#[derive(Debug, Clone)]
pub struct IntakeLimits {
    /// The most bytes of one.
    pub bytes: u64,
    /// How many an actor may begin in a minute.
    pub per_minute: usize,
    /// How many are received at once. Each holds a few parts.
    pub at_once: u32,
    /// How long one waits for its turn.
    pub longest_wait: Duration,
    /// How long a client may send nothing.
    pub silence: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            bytes: Limits::default().compressed_bytes,
            per_minute: 30,
            at_once: 16,
            longest_wait: Duration::from_secs(10),
            silence: Duration::from_secs(60),
        }
    }
}

/// What is told of an upload before its bytes come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// What its client calls it, if that chose a name.
    pub id: Option<Uuid>,
    /// What its file is called, for people.
    pub filename: String,
    /// The bytes it has.
    pub size: u64,
    /// The hash it must have, if the client named one.
    pub declared_hash: Option<ContentHash>,
    /// What it is, for the store.
    pub content_type: String,
}

/// An upload that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Where it is staged.
    pub key: StagingKey,
    /// The bytes it has.
    pub size: u64,
    /// The hash of these bytes.
    pub hash: ContentHash,
}

/// Why an upload was not received. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It has more bytes than one may have.
    #[error("a bundle may have at most {limit} bytes")]
    TooLarge {
        /// What it may have.
        limit: u64,
    },
    /// More or fewer bytes came than were announced.
    #[error("{expected} bytes were announced, but {actual} came")]
    Size {
        /// What was announced.
        expected: u64,
        /// What came, until there were too many.
        actual: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the upload is {actual}, not {declared}")]
    Hash {
        /// What was announced.
        declared: ContentHash,
        /// What came.
        actual: ContentHash,
    },
    /// The id was used before.
    #[error("there is an upload with this id already; choose another one")]
    IdTaken,
    /// The client went away.
    #[error("the body ended early")]
    Gone,
    /// The client sends nothing any more.
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    /// The actor began too many.
    #[error("there were too many uploads within a minute")]
    RateLimited {
        /// How soon it makes sense to try again.
        retry_after: Duration,
    },
    /// Too many are being received.
    #[error("too many uploads are being received")]
    Busy,
    /// The process stops.
    #[error("the process stops; send the upload again")]
    Stopping,
    /// There is none that could be gone on with.
    #[error("there is no such upload")]
    NotFound,
    /// It has come to an end, and can't be gone on with.
    #[error("the upload failed, was given up or is too old; begin it again")]
    Ended,
    /// It is a version, and can't be given up any more.
    #[error("the upload is published already; to undo that, remove the version it became")]
    Published,
    /// The bytes lie elsewhere than where the upload ends by now.
    #[error("the upload goes on at byte {actual}")]
    Offset {
        /// Where it ends by now.
        actual: u64,
    },
    /// More bytes came than were announced.
    #[error("the upload has {size} bytes, and more would be there")]
    BeyondEnd {
        /// What was announced.
        size: u64,
    },
    /// The bytes are of another type than those of a chunk.
    #[error("the content type must be {0}")]
    MediaType(&'static str),
    /// The protocol has another version.
    #[error("`Tus-Resumable` must be {0}")]
    Version(&'static str),
    /// Several wrote the same part, and it is not known whose is there.
    #[error("parts of the upload were written by two requests at once; begin it again")]
    Overwritten,
    /// The registry failed.
    #[error("cannot use the registry")]
    Registry(#[source] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Whoever comes is served.
    Open,
    /// Those that have begun may end.
    Closed,
    /// Nobody has any more time.
    Cut,
}

impl Intake {
    /// Receives uploads into `store`, and has noted by `recorder` how far they come.
    pub fn new(store: Arc<dyn BundleStore>, recorder: Recorder, limits: IntakeLimits) -> Self {
        Self {
            store,
            recorder,
            rate: Rate::per_minute(limits.per_minute),
            places: Arc::new(Semaphore::new(
                limits.at_once.try_into().unwrap_or(usize::MAX),
            )),
            phase: watch::Sender::new(Phase::Open),
            limits,
        }
    }

    /// The most bytes of an upload.
    pub const fn most_bytes(&self) -> u64 {
        self.limits.bytes
    }

    /// Receives an upload of `actor`, unless what was announced of it makes no sense. The bytes are hashed
    /// while they come, and the client is made to wait where the store is slower.
    ///
    /// What goes wrong leaves nothing, also where this is dropped; see [`StagedUpload`].
    pub async fn receive<E: Error + 'static>(
        &self,
        actor: &str,
        announced: Result<NewUpload, UploadError>,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    ) -> Result<Received, UploadError> {
        let mut measure = Measure::begin(&UPLOADED);
        let received = self
            .receive_measured(actor, announced, body, &mut measure)
            .await;
        measure.end(received.as_ref().err().map(UploadError::code));
        match &received {
            Ok(_) => {}
            Err(UploadError::Store(error)) => tracing::warn!(
                actor,
                error = %ErrorChain(error),
                error.code = UploadError::code_of(error),
                error.blame = "host",
                "the store did not take an upload"
            ),
            Err(error) => tracing::debug!(
                actor,
                error.code = error.code(),
                error.blame = error.blame(),
                error = %error,
                "an upload was refused"
            ),
        }
        received
    }

    async fn receive_measured<E: Error + 'static>(
        &self,
        actor: &str,
        announced: Result<NewUpload, UploadError>,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        measure: &mut Measure,
    ) -> Result<Received, UploadError> {
        self.take_rate(actor)?;
        let new = announced?;
        self.ensure_possible(new.size)?;
        let key = StagingKey::new(new.id.unwrap_or_else(Uuid::now_v7));
        tracing::debug!(
            actor,
            upload.key = %key,
            size_bytes = new.size,
            "an upload was announced"
        );
        let recording = self.recorder.begin(actor, key, &new);
        let staged = self.stage(key, &new, body, &recording, measure).await;
        let (hash, stat) = match staged {
            Ok(staged) => staged,
            Err(error) => {
                recording.failed(error.noted_code());
                return Err(error);
            }
        };
        recording.staged(hash, &stat.etag);
        tracing::info!(
            actor,
            upload.key = %key,
            bundle = %hash,
            size_bytes = new.size,
            duration_ms = u64::try_from(measure.elapsed().as_millis()).unwrap_or(u64::MAX),
            "an upload is staged"
        );
        Ok(Received {
            key,
            size: new.size,
            hash,
        })
    }

    /// Stages an upload when it is its turn.
    async fn stage<E: Error + 'static>(
        &self,
        key: StagingKey,
        new: &NewUpload,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        recording: &Recording,
        measure: &mut Measure,
    ) -> Result<(ContentHash, Stat), UploadError> {
        let _place = self.place().await?;
        let staged = self.store.stage(key, &new.content_type, new.size).await;
        let mut upload = staged.map_err(UploadError::of_store)?;
        tracing::debug!(upload.key = %key, "the store takes an upload");
        let told = |received| {
            measure.bytes(received);
            recording.received(received);
        };
        let taken = tokio::select! {
            taken = self.take(&mut *upload, new, body, told) => taken,
            () = self.reached(Phase::Cut) => Err(UploadError::Stopping),
            () = recording.taken() => Err(UploadError::IdTaken),
        };
        match taken {
            Ok(hash) => {
                let stat = upload.finish().await.map_err(UploadError::of_store)?;
                Ok((hash, stat))
            }
            Err(error) => {
                abort(upload, key).await;
                Err(error)
            }
        }
    }

    /// Counts an upload that begins.
    pub(super) fn take_rate(&self, actor: &str) -> Result<(), UploadError> {
        let retry = |retry_after| UploadError::RateLimited { retry_after };
        self.rate.take(actor, Instant::now()).map_err(retry)
    }

    /// Fails where the process stops.
    pub(super) fn ensure_open(&self) -> Result<(), UploadError> {
        if *self.phase.borrow() == Phase::Open {
            Ok(())
        } else {
            Err(UploadError::Stopping)
        }
    }

    pub(super) fn ensure_possible(&self, size: u64) -> Result<(), UploadError> {
        let most = self.limits.bytes;
        if (1..=most).contains(&size) {
            Ok(())
        } else {
            Err(UploadError::Invalid(format!(
                "size must be 1 to {most} bytes"
            )))
        }
    }

    /// The turn of an upload.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, UploadError> {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = timeout(self.limits.longest_wait, place);
        tokio::select! {
            // Whoever comes while the process stops gets no place, also where there is one.
            biased;
            () = self.reached(Phase::Closed) => Err(UploadError::Stopping),
            place = place => match place {
                Ok(place) => Ok(place.expect("the semaphore is never closed")),
                Err(_) => Err(UploadError::Busy),
            },
        }
    }

    async fn take<E: Error + 'static>(
        &self,
        upload: &mut dyn StagedUpload,
        new: &NewUpload,
        mut body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        mut told: impl FnMut(u64),
    ) -> Result<ContentHash, UploadError> {
        let (mut hasher, mut received) = (ContentHasher::new(), 0);
        let silence = self.limits.silence;
        while let Some(chunk) = next(Pin::new(&mut body), silence).await? {
            received += chunk.len() as u64;
            told(received);
            if received > self.limits.bytes {
                let limit = self.limits.bytes;
                return Err(UploadError::TooLarge { limit });
            }
            if received > new.size {
                return Err(new.wrong_size(received));
            }
            hasher.update(&chunk);
            upload.write(chunk).await.map_err(UploadError::of_store)?;
        }
        if received < new.size {
            return Err(new.wrong_size(received));
        }
        let actual = hasher.finish();
        match new.declared_hash {
            Some(declared) if declared != actual => Err(UploadError::Hash { declared, actual }),
            _ => Ok(actual),
        }
    }

    pub(super) async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as this.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// From now on whoever comes is refused. Uploads that have begun go on.
    pub fn close(&self) {
        self.phase.send_if_modified(|now| {
            std::mem::replace(now, Phase::Closed.max(*now)) < Phase::Closed
        });
    }

    /// Whether whoever comes is refused.
    pub fn is_closed(&self) -> bool {
        *self.phase.borrow() >= Phase::Closed
    }

    /// Ends the uploads that are under way, and returns once nothing is left of them, nor of those that
    /// ended before, or after `patience`.
    pub async fn cut(&self, patience: Duration) {
        self.phase.send_replace(Phase::Cut);
        let gone = async {
            // The places are kept, so that nobody begins anew.
            let _places = self.places.acquire_many(self.limits.at_once).await;
            self.store.settle().await;
        };
        if timeout(patience, gone).await.is_err() {
            tracing::warn!(
                "uploads that were cut could not be removed in time; a sweep removes them"
            );
        }
    }

    /// Gives an upload up that is staged, or was to be gone on with. One that is gone is given up already.
    pub async fn abort(&self, key: StagingKey) -> Result<(), StoreError> {
        match self.recorder.find(key.id()).await {
            Ok(Some(upload)) if upload.store_upload.is_some() => {
                // First it is noted, so that nobody goes on with what is being removed.
                self.recorder.end(key, UploadEnd::Aborted).await;
                return self.remove(&upload).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                upload.key = %key,
                error = %ErrorChain(&error),
                error.blame = "host",
                "cannot see whether there are parts of an upload that is given up; a sweep removes them"
            ),
        }
        self.store.remove(key.into()).await?;
        self.recorder.end(key, UploadEnd::Aborted).await;
        Ok(())
    }

    /// Removes whatever the store has of an upload.
    pub(super) async fn remove(&self, upload: &BundleUpload) -> Result<(), StoreError> {
        if let Some(parted) = parted(upload) {
            self.store.abort_parts(&parted).await?;
        }
        self.store.remove(StagingKey::new(upload.id).into()).await
    }
}

impl NewUpload {
    const fn wrong_size(&self, actual: u64) -> UploadError {
        UploadError::Size {
            expected: self.size,
            actual,
        }
    }
}

/// The next bytes; none at the end.
pub(super) async fn next<E: Error + 'static>(
    mut body: Pin<&mut (impl Stream<Item = Result<Bytes, E>> + Send)>,
    silence: Duration,
) -> Result<Option<Bytes>, UploadError> {
    match timeout(silence, body.next()).await {
        Err(_) => Err(UploadError::Silent(silence)),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => {
            tracing::debug!(error = %ErrorChain(&error), "a body ended early");
            Err(UploadError::Gone)
        }
    }
}

async fn abort(upload: Box<dyn StagedUpload>, key: StagingKey) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(
            upload.key = %key,
            error = %ErrorChain(&error),
            "cannot remove what was received of an upload; a sweep does"
        );
    }
}

impl UploadError {
    pub(super) fn of_store(error: StoreError) -> Self {
        match error {
            StoreError::Exists { .. } => Self::IdTaken,
            StoreError::WrongSize {
                expected, actual, ..
            } => Self::Size { expected, actual },
            error => Self::Store(error),
        }
    }

    /// What programs branch on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_)
            | Self::Size { .. }
            | Self::Hash { .. }
            | Self::IdTaken
            | Self::Gone
            | Self::Silent(_) => "BAD_REQUEST",
            Self::TooLarge { .. } | Self::BeyondEnd { .. } => "TOO_LARGE",
            Self::NotFound => "NOT_FOUND",
            Self::Ended | Self::Published => "UPLOAD_GONE",
            Self::Offset { .. } => "OFFSET_CONFLICT",
            Self::MediaType(_) => "UNSUPPORTED_MEDIA_TYPE",
            Self::Version(_) => "PRECONDITION_FAILED",
            Self::Overwritten => "UPLOAD_CONFLICT",
            Self::Registry(_) => "REGISTRY_UNAVAILABLE",
            Self::RateLimited { .. } => "RATE_LIMIT",
            Self::Busy | Self::Stopping => "OVERLOADED",
            Self::Store(error) => Self::code_of(error),
        }
    }

    const fn blame(&self) -> &'static str {
        match self {
            Self::Invalid(_)
            | Self::TooLarge { .. }
            | Self::Size { .. }
            | Self::Hash { .. }
            | Self::IdTaken
            | Self::Gone
            | Self::Silent(_)
            | Self::NotFound
            | Self::Ended
            | Self::Published
            | Self::Offset { .. }
            | Self::BeyondEnd { .. }
            | Self::MediaType(_)
            | Self::Version(_)
            | Self::Overwritten
            | Self::RateLimited { .. } => "caller",
            Self::Busy | Self::Stopping | Self::Registry(_) | Self::Store(_) => "host",
        }
    }

    /// The code that the upload is noted with. A client that went away can't be told anything, so that others
    /// needn't be told apart how that was noticed.
    const fn noted_code(&self) -> &'static str {
        match self {
            Self::Gone => CANCELLED,
            error => error.code(),
        }
    }

    const fn code_of(error: &StoreError) -> &'static str {
        match error {
            StoreError::Unavailable { .. } => "STORE_UNAVAILABLE",
            StoreError::NotFound { .. }
            | StoreError::Exists { .. }
            | StoreError::Changed { .. }
            | StoreError::TooLarge { .. }
            | StoreError::WrongSize { .. }
            | StoreError::WrongContent { .. }
            | StoreError::Failed { .. } => "STORE_FAILED",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::SystemTime;

    use alga_bundles::{Listing, LocalStore, ObjectKey};
    use alga_registry::{Registry as _, SqliteRegistry, UploadState};
    use futures_util::stream;
    use tempfile::TempDir;

    use super::*;
    use crate::stage::Stage;

    struct Scene {
        _folder: TempDir,
        stage: Stage,
        store: Arc<LocalStore>,
        recorder: Recorder,
        intake: Arc<Intake>,
    }

    impl Scene {
        async fn new(limits: IntakeLimits) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(LocalStore::open(folder.path()).unwrap());
            let stage = Stage::open().await;
            let registry = Arc::clone(&stage.registry) as _;
            let recorder = Recorder::new(registry, Arc::clone(&stage.clock) as _, limits.silence);
            let intake = Intake::new(Arc::clone(&store) as _, recorder.clone(), limits);
            Self {
                _folder: folder,
                stage,
                store,
                recorder,
                intake: Arc::new(intake),
            }
        }

        /// What is known of an upload in the end.
        async fn noted(&self, id: Uuid) -> Option<BundleUpload> {
            self.recorder.settle(PATIENCE).await;
            self.recorder.find(id).await.unwrap()
        }

        async fn receive(&self, new: NewUpload, body: &[&str]) -> Result<Received, UploadError> {
            let body = body.iter().map(|text| Ok(Bytes::from((*text).to_owned())));
            self.receive_from(new, stream::iter(body)).await
        }

        async fn receive_from(
            &self,
            new: NewUpload,
            body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
        ) -> Result<Received, UploadError> {
            self.intake.receive("ann", Ok(new), body).await
        }

        /// Whatever there is of uploads.
        async fn left(&self) -> usize {
            let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
            let unfinished = self.store.unfinished(far, 100).await.unwrap();
            let staged = self.store.list(Listing::Staging, None, 100).await.unwrap();
            unfinished.len() + staged.objects.len()
        }
    }

    /// Longer than anything takes that happens at all.
    const PATIENCE: Duration = Duration::from_secs(30);
    const ID: Uuid = Uuid::from_u128(7);

    fn with_id(new: NewUpload) -> NewUpload {
        NewUpload {
            id: Some(ID),
            ..new
        }
    }

    fn small() -> IntakeLimits {
        IntakeLimits {
            bytes: 10,
            ..IntakeLimits::default()
        }
    }

    fn of(size: u64) -> NewUpload {
        NewUpload {
            id: None,
            filename: "a.tar.zst".to_owned(),
            size,
            declared_hash: None,
            content_type: "application/zstd".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_upload_is_staged_as_it_came() {
        let scene = Scene::new(small()).await;
        let new = NewUpload {
            id: Some(Uuid::nil()),
            declared_hash: Some(ContentHash::of(b"0123456789")),
            ..of(10)
        };
        let received = scene.receive(new, &["0", "", "12345678", "9"]).await;
        let received = received.unwrap();
        assert_eq!(received.key, StagingKey::new(Uuid::nil()));
        assert_eq!(received.hash, ContentHash::of(b"0123456789"));
        let stored = scene.store.read(ObjectKey::from(received.key), 10).await;
        assert_eq!(stored.unwrap(), b"0123456789");
        scene.intake.abort(received.key).await.unwrap();
        assert_eq!(scene.left().await, 0);
    }

    #[tokio::test]
    async fn nothing_is_left_of_an_upload_that_is_not_what_was_announced() {
        let scene = Scene::new(small()).await;
        let lying = NewUpload {
            declared_hash: Some(ContentHash::of(b"other")),
            ..of(3)
        };
        for (new, body, code) in [
            (of(0), &[][..], "BAD_REQUEST"),
            (of(11), &["01234567890"], "BAD_REQUEST"),
            (of(9), &["012345678", "9"], "BAD_REQUEST"),
            (of(9), &["012345678", "90"], "TOO_LARGE"),
            (of(3), &["01"], "BAD_REQUEST"),
            (of(3), &[], "BAD_REQUEST"),
            (lying, &["012"], "BAD_REQUEST"),
        ] {
            let refused = scene.receive(new, body).await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert_eq!(scene.left().await, 0, "{refused}");
        }
        assert!(scene.receive(of(10), &["0123456789"]).await.is_ok());
    }

    #[tokio::test]
    async fn an_id_is_good_for_one_upload() {
        let scene = Scene::new(small()).await;
        let new = || NewUpload {
            id: Some(Uuid::nil()),
            ..of(1)
        };
        scene.receive(new(), &["a"]).await.unwrap();
        let again = scene.receive(new(), &["b"]).await.unwrap_err();
        assert!(matches!(again, UploadError::IdTaken), "{again:?}");
        assert_eq!(scene.left().await, 1);
    }

    #[tokio::test]
    async fn nothing_is_left_of_an_upload_whose_client_goes_away() {
        let scene = Scene::new(small()).await;
        let chunk = Ok(Bytes::from_static(b"a"));
        let broken = stream::iter([chunk, Err(io::ErrorKind::ConnectionReset.into())]);
        let gone = scene.receive_from(with_id(of(2)), broken).await;
        let gone = gone.unwrap_err();
        assert!(matches!(gone, UploadError::Gone), "{gone:?}");
        assert_eq!(scene.left().await, 0);
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!(noted.code.as_deref(), Some("CANCELLED"));
    }

    fn endless() -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
        stream::iter([Ok(Bytes::from_static(b"a"))]).chain(stream::pending())
    }

    #[tokio::test]
    async fn a_client_that_falls_silent_is_not_waited_for() {
        let silence = Duration::from_millis(20);
        let scene = Scene::new(IntakeLimits { silence, ..small() }).await;
        let silent = scene.receive_from(of(2), endless()).await.unwrap_err();
        assert!(matches!(silent, UploadError::Silent(_)), "{silent:?}");
        assert_eq!(scene.left().await, 0);
    }

    #[tokio::test]
    async fn who_comes_too_often_is_told_when_to_come_again() {
        let scene = Scene::new(IntakeLimits {
            per_minute: 1,
            ..small()
        })
        .await;
        scene.receive(of(1), &["a"]).await.unwrap();
        let refused = scene.receive(of(1), &["b"]).await.unwrap_err();
        assert_eq!(refused.code(), "RATE_LIMIT");
        assert_eq!(scene.left().await, 1);
    }

    type Receiving = tokio::task::JoinHandle<Result<Received, UploadError>>;

    /// An upload under way, of which a part is there.
    async fn under_way(scene: &Scene) -> Receiving {
        under_way_as(scene, of(2)).await
    }

    async fn under_way_as(scene: &Scene, new: NewUpload) -> Receiving {
        let intake = Arc::clone(&scene.intake);
        let receiving =
            tokio::spawn(async move { intake.receive("ann", Ok(new), endless()).await });
        while scene.left().await == 0 {
            tokio::task::yield_now().await;
        }
        receiving
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_at_once() {
        let scene = Scene::new(IntakeLimits {
            at_once: 1,
            longest_wait: Duration::from_millis(20),
            ..small()
        })
        .await;
        let first = under_way(&scene).await;
        let second = scene.receive(of(1), &["a"]).await.unwrap_err();
        assert!(matches!(second, UploadError::Busy), "{second:?}");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        scene.receive(of(1), &["a"]).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_stops_lets_uploads_end_and_cuts_them_in_the_end() {
        let scene = Scene::new(small()).await;
        let under_way = under_way(&scene).await;
        scene.intake.close();
        let late = scene.receive(of(1), &["a"]).await.unwrap_err();
        assert!(matches!(late, UploadError::Stopping), "{late:?}");
        assert!(!under_way.is_finished());
        scene.intake.cut(Duration::from_secs(10)).await;
        assert_eq!(scene.left().await, 0);
        let cut = under_way.await.unwrap().unwrap_err();
        assert!(matches!(cut, UploadError::Stopping), "{cut:?}");
    }

    #[tokio::test]
    async fn what_becomes_of_an_upload_is_noted() {
        let scene = Scene::new(small()).await;
        let new = NewUpload {
            filename: "a\0b".to_owned() + &"\u{e4}".repeat(200),
            content_type: "x".repeat(300),
            ..with_id(of(3))
        };
        let received = scene.receive(new, &["abc"]).await.unwrap();
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!(noted.state, UploadState::Staged);
        assert_eq!((noted.received, noted.size), (3, 3));
        assert_eq!(noted.hash, Some(received.hash));
        let stat = scene.store.stat(received.key.into()).await.unwrap();
        assert_eq!(noted.etag.as_deref(), Some(stat.unwrap().etag.as_str()));
        assert!(noted.filename.starts_with("a_b\u{e4}"), "{noted:?}");
        assert_eq!(noted.content_type.len(), 255);
        scene.intake.abort(received.key).await.unwrap();
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!(noted.state, UploadState::Aborted);
    }

    #[tokio::test]
    async fn an_upload_that_fails_is_noted_with_its_code() {
        let scene = Scene::new(small()).await;
        scene.receive(with_id(of(2)), &["a"]).await.unwrap_err();
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!(noted.state, UploadState::Failed);
        assert_eq!(noted.code.as_deref(), Some("BAD_REQUEST"));
    }

    #[tokio::test]
    async fn an_upload_that_nobody_waits_for_is_noted_as_cancelled() {
        let scene = Scene::new(small()).await;
        let receiving = under_way_as(&scene, with_id(of(2))).await;
        receiving.abort();
        assert!(receiving.await.unwrap_err().is_cancelled());
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!(noted.state, UploadState::Failed);
        assert_eq!(noted.code.as_deref(), Some("CANCELLED"));
    }

    #[tokio::test]
    async fn an_upload_of_which_nothing_comes_gives_signs_of_life() {
        let scene = Scene::new(small()).await;
        let receiving = under_way_as(&scene, with_id(of(2))).await;
        let noted = async |received| {
            loop {
                let found = scene.recorder.find(ID).await.unwrap();
                match found {
                    Some(found) if found.received == received => break found.updated_at,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let before = timeout(PATIENCE, noted(1)).await.unwrap();
        scene.stage.clock.advance(Duration::from_secs(1));
        let told = async {
            while noted(1).await == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, told).await.unwrap();
        receiving.abort();
    }

    #[tokio::test]
    async fn how_far_an_upload_is_can_be_seen_meanwhile() {
        let scene = Scene::new(small()).await;
        let receiving = under_way_as(&scene, with_id(of(2))).await;
        let seen = async {
            loop {
                let found = scene.recorder.find(ID).await.unwrap();
                if found.is_some_and(|found| found.received == 1) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap();
        let noted = scene.recorder.find(ID).await.unwrap().unwrap();
        assert_eq!(noted.state, UploadState::Receiving);
        receiving.abort();
    }

    #[tokio::test]
    async fn an_id_that_another_process_noted_is_taken() {
        let scene = Scene::new(small()).await;
        let theirs =
            super::super::recording::noted("bob", StagingKey::new(ID), &with_id(of(5)), None);
        let now = scene.recorder.now();
        assert!(
            scene
                .stage
                .registry
                .begin_upload(&theirs, now)
                .await
                .unwrap()
        );
        let refused = scene.receive_from(with_id(of(2)), endless()).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, UploadError::IdTaken), "{refused:?}");
        assert_eq!(scene.left().await, 0);
        let noted = scene.noted(ID).await.unwrap();
        assert_eq!((noted.actor.as_str(), noted.size), ("bob", 5));
        assert_eq!(noted.state, UploadState::Receiving);
    }

    #[tokio::test]
    async fn a_registry_that_is_gone_disturbs_no_upload() {
        let scene = Scene::new(small()).await;
        scene.stage.registry.database().close().await;
        let received = scene.receive(with_id(of(3)), &["a", "bc"]).await.unwrap();
        assert_eq!(received.hash, ContentHash::of(b"abc"));
        scene.intake.abort(received.key).await.unwrap();
        assert_eq!(scene.left().await, 0);
        assert!(scene.recorder.find(ID).await.is_err());
    }

    #[tokio::test]
    async fn a_registry_that_hangs_slows_no_upload() {
        let Scene { store, stage, .. } = Scene::new(small()).await;
        let folder = tempfile::tempdir().unwrap();
        let file = || alga_sqlite::Options::file(folder.path().join("registry.db"));
        let registry = SqliteRegistry::open(file()).await.unwrap();
        let other = SqliteRegistry::open(file()).await.unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (hanging, hangs) = tokio::sync::oneshot::channel();
        let lock = tokio::spawn(async move {
            let hang = other.database().write(move |_| {
                let _ = hanging.send(());
                let _ = released.recv();
                Ok::<_, alga_sqlite::DriverError>(())
            });
            hang.await.unwrap();
        });
        hangs.await.unwrap();
        let clock = Arc::clone(&stage.clock) as _;
        let recorder = Recorder::new(Arc::new(registry), clock, small().silence);
        let intake = Intake::new(Arc::clone(&store) as _, recorder.clone(), small());
        let body = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"ab"))]);
        let receiving = intake.receive("ann", Ok(with_id(of(2))), body);
        // It comes to its end while nobody can write to the registry.
        let received = timeout(PATIENCE, receiving).await.unwrap().unwrap();
        assert_eq!(received.hash, ContentHash::of(b"ab"));
        release.send(()).unwrap();
        lock.await.unwrap();
        recorder.settle(PATIENCE).await;
        let noted = recorder.find(ID).await.unwrap().unwrap();
        assert_eq!(noted.state, UploadState::Staged);
    }
}
