//! What goes wrong in a store.

use std::error::Error;
use std::{fmt, io};

use alga_model::ContentHash;

use super::{Listing, ObjectKey};

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no {key}")]
    NotFound {
        /// The object.
        key: ObjectKey,
    },
    /// The object is there already, and may not be replaced.
    #[error("{key} is there already")]
    Exists {
        /// The object.
        key: ObjectKey,
    },
    /// The object is not the one that was looked at before.
    #[error("{key} has changed since it was read")]
    Changed {
        /// The object.
        key: ObjectKey,
    },
    /// The object has more bytes than the reader takes.
    #[error("{key} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The object.
        key: ObjectKey,
        /// What it has.
        size: u64,
        /// What the reader takes.
        limit: u64,
    },
    /// More or fewer bytes came than were announced.
    #[error("{key} was announced with {expected} bytes, but {actual} came")]
    WrongSize {
        /// The object.
        key: ObjectKey,
        /// What was announced.
        expected: u64,
        /// What came so far.
        actual: u64,
    },
    /// The bytes to be written do not have the hash that the key promises.
    #[error("the content to be written as {key} is {actual}")]
    WrongContent {
        /// The object.
        key: ObjectKey,
        /// The hash the bytes have.
        actual: ContentHash,
    },
    /// The store cannot be reached or is overloaded; the same call may succeed later.
    #[error("the bundle store is unavailable for {target}")]
    Unavailable {
        /// What was to be done.
        target: Target,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store refuses or is broken; the same call will fail again.
    #[error("the bundle store failed for {target}")]
    Failed {
        /// What was to be done.
        target: Target,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What a call to a store was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One object.
    Object(ObjectKey),
    /// A list of objects.
    Listing(Listing),
    /// The uploads that were never finished.
    Unfinished,
}

impl StoreError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn unavailable(
        target: impl Into<Target>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            target: target.into(),
            source: source.into(),
        }
    }

    pub(crate) fn failed(
        target: impl Into<Target>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            target: target.into(),
            source: source.into(),
        }
    }

    /// The body of an object ended before it was whole.
    pub(crate) fn cut_off(key: ObjectKey) -> Self {
        Self::unavailable(key, io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

impl From<ObjectKey> for Target {
    fn from(key: ObjectKey) -> Self {
        Self::Object(key)
    }
}

impl From<Listing> for Target {
    fn from(listing: Listing) -> Self {
        Self::Listing(listing)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => key.fmt(f),
            Self::Listing(listing) => write!(f, "the list of {listing}"),
            Self::Unfinished => f.write_str("unfinished uploads"),
        }
    }
}
