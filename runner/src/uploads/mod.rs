//! Bundles that come over the network: received into the staging area of the store, and then published
//! or given up.
//!
//! An [`Intake`] takes the bytes while they come and holds no more than a few parts of them. A
//! [`Publisher`] reads what was received, judges it and makes it a version; whatever happens in the
//! middle of that, doing it again repairs it. The staged upload is the only state between the two, so
//! that another replica may finish what one began. What a [`Recorder`] notes of it in the registry is for
//! those who follow it, and nothing rests on that; but for a [`Resumable`] upload, whose parts come in
//! several requests and which any replica goes on with by what is noted.

mod fault;
mod following;
mod intake;
mod measure;
mod publisher;
mod rate;
mod recording;
mod resumable;

use std::sync::Arc;

#[cfg(test)]
pub(crate) use self::fault::Fault;
pub use self::following::{
    FollowLimits, FollowRefused, Followed, Followers, Following, UploadEvent,
};
pub use self::intake::{Intake, IntakeLimits, NewUpload, Received, UploadError};
pub(crate) use self::measure::{APPENDED, FINALIZED, UPLOADED};
pub use self::publisher::{Absence, Finalize, FinalizeError, PublishRules, Publisher, Publishing};
pub use self::recording::Recorder;
#[cfg(test)]
pub(crate) use self::resumable::parted;
pub use self::resumable::{Addition, Resumable, expires_at};

/// What is done with bundles that come over the network.
#[derive(Debug)]
pub struct Uploads {
    /// Receives them.
    pub intake: Arc<Intake>,
    /// Receives them in several requests.
    pub resumable: Resumable,
    /// Publishes them.
    pub publisher: Publisher,
    /// Whether the store may not be asked, so that neither is done.
    pub is_offline: bool,
    /// Knows how far they have come.
    pub recorder: Recorder,
    /// Those who want to know, too.
    pub followers: Followers,
}
