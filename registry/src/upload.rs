//! Bundles on their way into the store, and what became of them.

use alga_model::{ContentHash, Timestamp};
use uuid::Uuid;

use crate::bounds::{ensure, ensure_plain_text};
use crate::error::RegistryError;

/// The most uploads that are removed at once.
pub const MAX_UPLOADS_REMOVAL: u32 = 10_000;

/// What is known of a bundle that was sent, or is being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleUpload {
    /// What it is known by.
    pub id: Uuid,
    /// Who sends it.
    pub actor: String,
    /// What its file is called, for people.
    pub filename: String,
    /// What it is, as its sender says.
    pub content_type: String,
    /// The bytes it has.
    pub size: u64,
    /// The hash that its sender says it has.
    pub declared_hash: Option<ContentHash>,
    /// The bytes that were there when it was last noted.
    pub received: u64,
    /// What became of it.
    pub state: UploadState,
    /// The code of the error that it failed with.
    pub code: Option<String>,
    /// The hash of its bytes, where they were hashed while they came.
    pub hash: Option<ContentHash>,
    /// The state of the object that they were staged as.
    pub etag: Option<String>,
    /// What the store calls it, where its parts come in requests of their own.
    pub store_upload: Option<String>,
    /// The `ETag`s of the parts that are there then, in order.
    pub parts: Vec<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last noted.
    pub updated_at: Timestamp,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Bytes are to come.
    Receiving,
    /// All of it is in the staging area.
    Staged,
    /// It was not received; nothing is left of it.
    Failed,
    /// It is a version.
    Published,
    /// Somebody gave it up.
    Aborted,
}

/// An upload that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBundleUpload {
    /// What it is known by.
    pub id: Uuid,
    /// Who sends it; 1 to 256 bytes without control characters.
    pub actor: String,
    /// What its file is called; 1 to 255 bytes without control characters.
    pub filename: String,
    /// What it is; at most 255 bytes without control characters.
    pub content_type: String,
    /// The bytes it has.
    pub size: u64,
    /// The hash that its sender says it has.
    pub declared_hash: Option<ContentHash>,
    /// What the store calls it, where its parts come in requests of their own; 1 to 1024 bytes.
    pub store_upload: Option<String>,
}

/// How far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadProgress {
    /// The bytes that were there before.
    pub from: u64,
    /// The bytes that are there now.
    pub to: u64,
    /// The `ETag`s of all parts that are there, each of 1 to 255 bytes; as they were where this is absent.
    pub parts: Option<Vec<String>>,
}

/// How an upload ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadEnd {
    /// All of it is staged.
    Staged {
        /// The hash of its bytes, where they were hashed while they came.
        hash: Option<ContentHash>,
        /// The state of the object; 1 to 255 bytes.
        etag: String,
    },
    /// It was not received.
    Failed {
        /// The code of the error; 1 to 64 bytes.
        code: String,
    },
    /// It is a version.
    Published,
    /// Somebody gave it up.
    Aborted,
}

impl UploadState {
    const ALL: [Self; 5] = [
        Self::Receiving,
        Self::Staged,
        Self::Failed,
        Self::Published,
        Self::Aborted,
    ];

    /// Its name, as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Staged => "staged",
            Self::Failed => "failed",
            Self::Published => "published",
            Self::Aborted => "aborted",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

const SHORT: &str = "1 to 255 bytes without control characters";
const MAX_SHORT_BYTES: usize = 255;
const MAX_PARTS: usize = 10_000;

impl NewBundleUpload {
    const MAX_ACTOR_BYTES: usize = 256;
    const MAX_STORE_UPLOAD_BYTES: usize = 1_024;

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        ensure_plain_text(
            "the actor",
            "1 to 256 bytes without control characters",
            &self.actor,
            Self::MAX_ACTOR_BYTES,
        )?;
        ensure_plain_text("the filename", SHORT, &self.filename, MAX_SHORT_BYTES)?;
        let content_type = &self.content_type;
        if !content_type.is_empty() {
            ensure_plain_text("the content type", SHORT, content_type, MAX_SHORT_BYTES)?;
        }
        if let Some(name) = &self.store_upload {
            let rule = "1 to 1024 bytes without control characters";
            let most = Self::MAX_STORE_UPLOAD_BYTES;
            ensure_plain_text("the store's name of the upload", rule, name, most)?;
        }
        ensure(i64::try_from(self.size).is_ok(), "size", "less than 2^63")
    }
}

impl UploadProgress {
    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        ensure(self.from <= self.to, "progress", "forward")?;
        ensure(i64::try_from(self.to).is_ok(), "progress", "less than 2^63")?;
        let parts = self.parts.as_deref().unwrap_or_default();
        ensure(parts.len() <= MAX_PARTS, "the parts", "at most 10000")?;
        parts
            .iter()
            .try_for_each(|etag| ensure_plain_text("an ETag", SHORT, etag, MAX_SHORT_BYTES))
    }
}

impl UploadEnd {
    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        match self {
            Self::Staged { etag, .. } => ensure_plain_text("an ETag", SHORT, etag, MAX_SHORT_BYTES),
            Self::Failed { code } => ensure_plain_text("the code", "1 to 64 plain bytes", code, 64),
            Self::Published | Self::Aborted => Ok(()),
        }
    }

    pub(crate) const fn state(&self) -> UploadState {
        match self {
            Self::Staged { .. } => UploadState::Staged,
            Self::Failed { .. } => UploadState::Failed,
            Self::Published => UploadState::Published,
            Self::Aborted => UploadState::Aborted,
        }
    }

    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { code } => Some(code),
            Self::Staged { .. } | Self::Published | Self::Aborted => None,
        }
    }

    pub(crate) const fn hash(&self) -> Option<&ContentHash> {
        match self {
            Self::Staged { hash, .. } => hash.as_ref(),
            Self::Failed { .. } | Self::Published | Self::Aborted => None,
        }
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        match self {
            Self::Staged { etag, .. } => Some(etag),
            Self::Failed { .. } | Self::Published | Self::Aborted => None,
        }
    }
}

pub(crate) fn ensure_removal_limit(limit: u32) -> Result<(), RegistryError> {
    let fits = (1..=MAX_UPLOADS_REMOVAL).contains(&limit);
    ensure(fits, "limit", "1 to 10000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_known_by_its_name() {
        for state in UploadState::ALL {
            assert_eq!(UploadState::from_name(state.as_str()), Some(state));
        }
        assert_eq!(UploadState::from_name("Staged"), None);
    }
}
