//! What a store tells and is told of objects.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::time::SystemTime;

use alga_model::ContentHash;
use tokio::io::AsyncRead;

use super::{ObjectKey, StagingKey};

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The bytes it has.
    pub size: u64,
    /// Which state of it this is.
    pub etag: ETag,
    /// When it was written.
    pub modified: SystemTime,
}

/// Tells one state of an object from another. Opaque: it says nothing about the bytes.
///
/// Equal as long as nobody writes the object, also after a restart and for every replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// An `ETag` as a store told it, with or without the quotes of a header.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let bare = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        Self(bare.map(str::to_owned).unwrap_or(text))
    }

    /// It, without the quotes of a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The bytes of an object, as they come in.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// An object that is being read.
pub struct StoredObject {
    /// What is being read: exactly this state of the object.
    pub stat: Stat,
    /// Its bytes; an end before `stat.size` is a failure of the store.
    pub body: Body,
}

impl fmt::Debug for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredObject")
            .field("stat", &self.stat)
            .finish_non_exhaustive()
    }
}

/// The bytes of an object to be written, from a source that can be read again.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Those of a file.
    File(&'a Path),
    /// These.
    Bytes(&'a [u8]),
}

/// How an object came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This call wrote it.
    Written,
    /// It was there already and was left alone.
    Existing {
        /// The bytes it has.
        size: u64,
    },
}

/// A staged upload whose bytes somebody has read, hashed and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The upload.
    pub key: StagingKey,
    /// The state of it that was read.
    pub etag: ETag,
    /// The hash that these bytes have.
    pub hash: ContentHash,
    /// How many they are.
    pub size: u64,
}

/// Which objects are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Uploads that nobody has accepted yet, and what checks of the store left that were interrupted.
    Staging,
    /// Published bundles and manifests.
    Canonical,
    /// Compiled components.
    Compiled,
}

impl Listing {
    /// Whether an object belongs to it.
    pub const fn contains(self, key: &ObjectKey) -> bool {
        match key {
            ObjectKey::Bundle(_) | ObjectKey::Manifest(_) => matches!(self, Self::Canonical),
            ObjectKey::Compiled { .. } => matches!(self, Self::Compiled),
            ObjectKey::Staging(_) | ObjectKey::Check(_) => matches!(self, Self::Staging),
            ObjectKey::Owner => false,
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staging => "staged uploads",
            Self::Canonical => "published bundles",
            Self::Compiled => "compiled components",
        })
    }
}

/// A part of a list. It may be empty though more follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Objects, in the order of their keys.
    pub objects: Vec<Listed>,
    /// Where the next page begins, unless this was the last.
    pub next: Option<Cursor>,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: ObjectKey,
    /// What is known of it.
    pub stat: Stat,
}

/// A place in a list, for the store that gave it. Objects that come or go meanwhile don't move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

/// An upload that somebody began and neither finished nor aborted. It takes room and nobody sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// What was to be written, where that is known.
    pub key: Option<ObjectKey>,
    /// When it began, or was last written.
    pub started: SystemTime,
    /// Where it is.
    pub(super) name: String,
    /// Which one of several uploads under this name.
    pub(super) id: String,
}
