//! Where bundles are kept: objects that are written once and then never change.

mod local;
#[cfg(feature = "suite")]
pub mod suite;

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::pin::Pin;

use alga_model::ContentHash;
use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};

pub use local::LocalStore;

/// The name of an object, spelled as in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// A published bundle.
    Bundle(ContentHash),
    /// The copy of its manifest beside it.
    Manifest(ContentHash),
}

impl ObjectKey {
    /// The hash the object's bytes must have, where its name promises one.
    pub const fn promised_hash(&self) -> Option<ContentHash> {
        match self {
            Self::Bundle(hash) => Some(*hash),
            Self::Manifest(_) => None,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(hash) => write!(f, "sha256/{}/bundle.tar.zst", hash.to_hex()),
            Self::Manifest(hash) => write!(f, "sha256/{}/manifest.json", hash.to_hex()),
        }
    }
}

/// The bytes of an object, as they come in.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// An object that is being read.
pub struct StoredObject {
    /// The bytes it has.
    pub size: u64,
    /// Its bytes; an end before `size` is a failure of the store.
    pub body: Body,
}

impl fmt::Debug for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredObject")
            .field("size", &self.size)
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

/// A store of bundles.
///
/// An object is visible whole or not at all, and nothing ever changes one that is. Every
/// implementation passes the functions of the `suite` module.
#[async_trait]
pub trait BundleStore: fmt::Debug + Send + Sync + 'static {
    /// The bytes an object has, or `None` when there is no such object.
    async fn size(&self, key: ObjectKey) -> Result<Option<u64>, StoreError>;

    /// Opens an object for reading from its start.
    ///
    /// The bytes are as the store has them: whoever needs them unharmed checks their hash.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object.
    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError>;

    /// Writes an object unless it is there. Durable when it returns, by whichever call it was written.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongContent`] when the key promises a hash that `content` does not have, or
    /// has no more since it was checked; nothing is visible then.
    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError>;

    /// Reads a whole object of at most `limit` bytes.
    async fn read(&self, key: ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let StoredObject { size, body } = self.open(key).await?;
        if size > limit {
            return Err(StoreError::TooLarge { key, size, limit });
        }
        let mut bytes = Vec::new();
        let read = body.take(size).read_to_end(&mut bytes).await;
        match read {
            Ok(_) if bytes.len() as u64 == size => Ok(bytes),
            Ok(_) => Err(StoreError::unavailable(
                key,
                std::io::ErrorKind::UnexpectedEof.into(),
            )),
            Err(error) => Err(StoreError::unavailable(key, error)),
        }
    }
}

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no {key}")]
    NotFound {
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
    /// The bytes to be written do not have the hash that the key promises.
    #[error("the content to be written as {key} is {actual}")]
    WrongContent {
        /// The object.
        key: ObjectKey,
        /// The hash the bytes have.
        actual: ContentHash,
    },
    /// The store cannot be reached or is overloaded; the same call may succeed later.
    #[error("the bundle store is unavailable for {key}")]
    Unavailable {
        /// The object.
        key: ObjectKey,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store refuses or is broken; the same call will fail again.
    #[error("the bundle store failed for {key}")]
    Failed {
        /// The object.
        key: ObjectKey,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn unavailable(key: ObjectKey, error: std::io::Error) -> Self {
        Self::Unavailable {
            key,
            source: Box::new(error),
        }
    }
}
