//! Follows uploads, whichever process receives them: by looking at what is noted of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_model::ErrorChain;
use alga_registry::{BundleUpload, RegistryError, UploadState};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use super::recording::Recorder;

/// Those who follow uploads.
#[derive(Debug)]
pub struct Followers {
    recorder: Recorder,
    limits: FollowLimits,
    places: Arc<Semaphore>,
    is_closed: watch::Sender<bool>,
}

/// What bounds them.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// How many there may be at once.
    pub at_once: usize,
    /// How often it is looked.
    pub interval: Duration,
    /// How long an upload may take to begin.
    pub patience: Duration,
}

impl Default for FollowLimits {
    fn default() -> Self {
        Self {
            at_once: 256,
            interval: Duration::from_millis(500),
            patience: Duration::from_secs(30),
        }
    }
}

/// Why an upload can't be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FollowRefused {
    /// Too many are.
    #[error("uploads are followed by as many as this process allows")]
    Process,
    /// The process stops.
    #[error("the runner is stopping")]
    Closed,
}

/// Somebody who follows an upload.
#[derive(Debug)]
pub struct Following {
    recorder: Recorder,
    id: Uuid,
    _place: OwnedSemaphorePermit,
    is_closed: watch::Receiver<bool>,
    looks: Interval,
    /// Until when it may begin.
    deadline: Instant,
    /// The number of the last event.
    number: u64,
    /// What was seen and is to be told first.
    found: Option<BundleUpload>,
    /// What was told last.
    told: Option<BundleUpload>,
    has_ended: bool,
}

/// Something that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadEvent {
    /// Grows from event to event.
    pub number: u64,
    /// What it is.
    pub what: Followed,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// It is so far. The last one, unless it goes on.
    Progress {
        /// The upload.
        id: Uuid,
        /// What became of it.
        state: UploadState,
        /// The bytes that are there.
        received: u64,
        /// The bytes it has.
        size: u64,
        /// How fast they come, or came in the end.
        bytes_per_second: u64,
    },
    /// There is no such upload, or not any more. The last one.
    NotFound,
}

impl Followers {
    /// Nobody yet.
    pub fn new(recorder: Recorder, limits: FollowLimits) -> Self {
        Self {
            recorder,
            limits,
            places: Arc::new(Semaphore::new(limits.at_once)),
            is_closed: watch::Sender::new(false),
        }
    }

    /// Follows an upload from now on. Events are numbered from behind `after`.
    pub fn follow(&self, id: Uuid, after: Option<u64>) -> Result<Following, FollowRefused> {
        if *self.is_closed.borrow() {
            return Err(FollowRefused::Closed);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let mut looks = tokio::time::interval(self.limits.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Following {
            recorder: self.recorder.clone(),
            id,
            _place: place.map_err(|_| FollowRefused::Process)?,
            is_closed: self.is_closed.subscribe(),
            looks,
            deadline: Instant::now() + self.limits.patience,
            number: after.unwrap_or(0),
            found: None,
            told: None,
            has_ended: false,
        })
    }

    /// Nobody follows any more: whoever does is to do so elsewhere.
    pub fn close(&self) {
        self.is_closed.send_replace(true);
    }
}

impl Following {
    /// Looks for the first time.
    pub async fn begin(mut self) -> Result<Self, RegistryError> {
        self.looks.tick().await;
        self.found = self.recorder.find(self.id).await?;
        Ok(self)
    }

    /// What there is to tell, as soon as there is something; nothing at the end. It loses nothing where it
    /// is dropped.
    pub async fn next(&mut self) -> Option<UploadEvent> {
        if self.has_ended {
            return None;
        }
        loop {
            if let Some(event) = self.found.take().and_then(|found| self.tell(found)) {
                return Some(event);
            }
            let mut is_closed = self.is_closed.clone();
            let look = async {
                self.looks.tick().await;
                self.recorder.find(self.id).await
            };
            let found = tokio::select! {
                biased;
                _ = is_closed.wait_for(|is_closed| *is_closed) => {
                    self.has_ended = true;
                    return None;
                }
                found = look => found,
            };
            match found {
                Ok(None) if self.told.is_some() || Instant::now() >= self.deadline => {
                    return Some(self.end(Followed::NotFound));
                }
                Ok(found) => self.found = found,
                // It may be there again the next time.
                Err(error) => tracing::debug!(
                    upload.id = %self.id,
                    error = %ErrorChain(&error),
                    "cannot see how far an upload is"
                ),
            }
        }
    }

    /// What is to be told about what was found, if it is something new.
    fn tell(&mut self, found: BundleUpload) -> Option<UploadEvent> {
        if let Some(told) = &self.told
            && (told.state, told.received) == (found.state, found.received)
        {
            return None;
        }
        let progress = Followed::Progress {
            id: found.id,
            state: found.state,
            received: found.received,
            size: found.size,
            bytes_per_second: self.rate(&found),
        };
        let is_last = found.state != UploadState::Receiving;
        self.told = Some(found);
        if is_last {
            return Some(self.end(progress));
        }
        Some(self.numbered(progress))
    }

    /// How many bytes came in a second since the last event; in the end, of the whole.
    fn rate(&self, found: &BundleUpload) -> u64 {
        let last = self.told.as_ref();
        let last = last.filter(|_| found.state == UploadState::Receiving);
        let (bytes, since) = last.map_or((0, found.created_at), |last| {
            (last.received, last.updated_at)
        });
        let ms = found.updated_at.as_millis() - since.as_millis();
        let bytes = found.received.saturating_sub(bytes);
        match u64::try_from(ms) {
            Ok(0) | Err(_) => 0,
            Ok(ms) => bytes.saturating_mul(1_000) / ms,
        }
    }

    fn end(&mut self, what: Followed) -> UploadEvent {
        self.has_ended = true;
        self.numbered(what)
    }

    const fn numbered(&mut self, what: Followed) -> UploadEvent {
        self.number = self.number.saturating_add(1);
        UploadEvent {
            number: self.number,
            what,
        }
    }
}

/// As a server-sent event.
impl fmt::Display for UploadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, data) = match &self.what {
            Followed::Progress {
                id,
                state,
                received,
                size,
                bytes_per_second,
            } => (
                "progress",
                json!({
                    "uploadId": id,
                    "state": state.as_str(),
                    "received": received,
                    "size": size,
                    "bytesPerSecond": bytes_per_second,
                }),
            ),
            Followed::NotFound => (
                "error",
                json!({ "code": "NOT_FOUND", "message": "there is no such upload" }),
            ),
        };
        write!(f, "id: {}\nevent: {name}\ndata: {data}\n\n", self.number)
    }
}

#[cfg(test)]
mod tests {
    use alga_model::{Clock as _, ContentHash};
    use alga_registry::{NewBundleUpload, Registry as _, UploadEnd, UploadProgress};
    use tokio::time::timeout;

    use super::super::recording::LATENESS;
    use super::*;
    use crate::stage::Stage;

    /// Longer than anything takes that happens at all.
    const PATIENCE: Duration = Duration::from_secs(30);
    const ID: Uuid = Uuid::from_u128(7);
    const SILENCE: Duration = Duration::from_secs(60);

    fn followers(stage: &Stage, limits: FollowLimits) -> Followers {
        let registry = Arc::clone(&stage.registry) as _;
        let recorder = Recorder::new(registry, Arc::clone(&stage.clock) as _, SILENCE);
        Followers::new(recorder, limits)
    }

    fn quick() -> FollowLimits {
        FollowLimits {
            at_once: 2,
            interval: Duration::from_millis(1),
            patience: PATIENCE,
        }
    }

    async fn begin(stage: &Stage) {
        begin_as(stage, None).await;
    }

    async fn begin_as(stage: &Stage, store_upload: Option<String>) {
        let new = NewBundleUpload {
            id: ID,
            actor: "admin".to_owned(),
            filename: "a".to_owned(),
            content_type: String::new(),
            size: 1_000,
            declared_hash: None,
            store_upload,
        };
        let begun = stage.registry.begin_upload(&new, stage.clock.now());
        assert!(begun.await.unwrap());
    }

    async fn progress(stage: &Stage, from: u64, to: u64) {
        let progress = UploadProgress {
            from,
            to,
            parts: None,
        };
        let now = stage.clock.now();
        let noted = stage.registry.progress_upload(ID, &progress, now);
        assert!(noted.await.unwrap());
    }

    async fn end(stage: &Stage) {
        let end = UploadEnd::Staged {
            hash: Some(ContentHash::of(b"")),
            etag: "e".to_owned(),
        };
        let now = stage.clock.now();
        assert!(stage.registry.end_upload(ID, &end, now).await.unwrap());
    }

    async fn next(following: &mut Following) -> Option<UploadEvent> {
        timeout(PATIENCE, following.next()).await.unwrap()
    }

    fn at(number: u64, state: UploadState, received: u64, bytes_per_second: u64) -> UploadEvent {
        let what = Followed::Progress {
            id: ID,
            state,
            received,
            size: 1_000,
            bytes_per_second,
        };
        UploadEvent { number, what }
    }

    #[tokio::test]
    async fn every_change_is_told_until_the_end() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        begin(&stage).await;
        let following = followers.follow(ID, Some(41)).unwrap();
        let mut following = following.begin().await.unwrap();
        let receiving = UploadState::Receiving;
        assert_eq!(next(&mut following).await, Some(at(42, receiving, 0, 0)));
        stage.clock.advance(Duration::from_secs(2));
        progress(&stage, 0, 600).await;
        assert_eq!(
            next(&mut following).await,
            Some(at(43, receiving, 600, 300))
        );
        stage.clock.advance(Duration::from_secs(1));
        progress(&stage, 600, 700).await;
        assert_eq!(
            next(&mut following).await,
            Some(at(44, receiving, 700, 100))
        );
        stage.clock.advance(Duration::from_secs(1));
        end(&stage).await;
        let last = at(45, UploadState::Staged, 1_000, 250);
        assert_eq!(next(&mut following).await, Some(last));
        assert_eq!(next(&mut following).await, None);
    }

    #[tokio::test]
    async fn an_upload_that_has_not_begun_is_waited_for() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        let following = followers.follow(ID, None).unwrap();
        let mut following = following.begin().await.unwrap();
        assert!(futures_util::poll!(Box::pin(following.next())).is_pending());
        begin(&stage).await;
        let first = at(1, UploadState::Receiving, 0, 0);
        assert_eq!(next(&mut following).await, Some(first));
        // It is gone, as nobody went on with it for a day.
        stage.clock.advance(Duration::from_secs(1));
        let removed = stage.registry.remove_uploads(stage.clock.now(), 1).await;
        assert_eq!(removed.unwrap(), 1);
        let gone = next(&mut following).await.unwrap();
        assert_eq!((gone.number, gone.what), (2, Followed::NotFound));
        assert_eq!(next(&mut following).await, None);
    }

    #[tokio::test]
    async fn an_upload_that_never_begins_is_not_waited_for_for_ever() {
        let stage = Stage::open().await;
        let limits = FollowLimits {
            patience: Duration::from_millis(5),
            ..quick()
        };
        let followers = followers(&stage, limits);
        let following = followers.follow(ID, None).unwrap();
        let mut following = following.begin().await.unwrap();
        let event = next(&mut following).await.unwrap();
        let expected = "id: 1\nevent: error\ndata: {\"code\":\"NOT_FOUND\",\"message\":\"there is no such upload\"}\n\n";
        assert_eq!(event.to_string(), expected);
        assert_eq!(next(&mut following).await, None);
    }

    #[tokio::test]
    async fn an_upload_whose_process_died_has_failed_after_a_while() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        begin(&stage).await;
        progress(&stage, 0, 600).await;
        let following = followers.follow(ID, None).unwrap();
        let mut following = following.begin().await.unwrap();
        let first = at(1, UploadState::Receiving, 600, 0);
        assert_eq!(next(&mut following).await, Some(first));
        stage.clock.advance(SILENCE + LATENESS);
        assert!(futures_util::poll!(Box::pin(following.next())).is_pending());
        stage.clock.advance(Duration::from_millis(1));
        let last = at(2, UploadState::Failed, 600, 0);
        assert_eq!(next(&mut following).await, Some(last));
        assert_eq!(next(&mut following).await, None);
        let found = followers.recorder.find(ID).await.unwrap().unwrap();
        assert_eq!(found.code.as_deref(), Some("CANCELLED"));
    }

    #[tokio::test]
    async fn an_upload_that_can_be_gone_on_with_may_be_left_for_longer() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        begin_as(&stage, Some("parts".to_owned())).await;
        stage.clock.advance(2 * (SILENCE + LATENESS));
        let found = followers.recorder.find(ID).await.unwrap().unwrap();
        assert_eq!(found.state, UploadState::Receiving);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_followers() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        let [first, _second] = [(); 2].map(|()| followers.follow(ID, None).unwrap());
        let third = followers.follow(ID, None).unwrap_err();
        assert_eq!(third, FollowRefused::Process);
        drop(first);
        assert!(followers.follow(ID, None).is_ok());
    }

    #[tokio::test]
    async fn a_process_that_stops_sends_followers_elsewhere() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        begin(&stage).await;
        let following = followers.follow(ID, None).unwrap();
        let mut following = following.begin().await.unwrap();
        assert!(next(&mut following).await.is_some());
        assert!(futures_util::poll!(Box::pin(following.next())).is_pending());
        followers.close();
        assert_eq!(next(&mut following).await, None);
        let late = followers.follow(ID, None).unwrap_err();
        assert_eq!(late, FollowRefused::Closed);
    }

    #[tokio::test]
    async fn a_registry_that_is_gone_is_told_at_once() {
        let stage = Stage::open().await;
        let followers = followers(&stage, quick());
        stage.registry.database().close().await;
        let following = followers.follow(ID, None).unwrap();
        assert!(following.begin().await.is_err());
    }
}
