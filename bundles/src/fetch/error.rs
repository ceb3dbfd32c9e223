//! Why a bundle cannot be had.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alga_model::ContentHash;

use crate::archive::ArchiveError;
use crate::manifest::InvalidManifest;
use crate::store::StoreError;

/// A bundle that cannot be had; the same value goes to everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The store has no such bundle.
    #[error("there is no bundle {hash}")]
    NotFound {
        /// The bundle.
        hash: ContentHash,
    },
    /// The bundle is not in the cache, and nothing may be fetched.
    #[error("the bundle {hash} is {}, and none may be fetched", in_the_cache(.damage.as_deref()))]
    Offline {
        /// The bundle.
        hash: ContentHash,
        /// What is wrong with the one in the cache, where there is one.
        damage: Option<String>,
    },
    /// The bytes are not those of the bundle. They were thrown away.
    #[error("the bundle {expected} has other bytes, with the hash {actual}")]
    Integrity {
        /// The bundle.
        expected: ContentHash,
        /// What the bytes have.
        actual: ContentHash,
    },
    /// The manifest beside the bundle, whose archive has none, is not the one that was registered. It was
    /// thrown away.
    #[error(
        "the manifest beside the bundle {hash} has the hash {actual}, the registered one {expected}"
    )]
    ManifestIntegrity {
        /// The bundle.
        hash: ContentHash,
        /// The digest of the manifest that was registered.
        expected: ContentHash,
        /// The digest of the one in the store.
        actual: ContentHash,
    },
    /// The bytes are right, but no bundle that may be used here.
    #[error("the bundle {hash} cannot be used")]
    Archive {
        /// The bundle.
        hash: ContentHash,
        /// What is wrong with it.
        #[source]
        source: Arc<ArchiveError>,
    },
    /// The bundle has a manifest that is not accepted.
    #[error("the bundle {hash} cannot be used")]
    Manifest {
        /// The bundle.
        hash: ContentHash,
        /// What is wrong with it.
        #[source]
        source: InvalidManifest,
    },
    /// The store failed, and kept failing if that could have passed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The folder of the cache failed.
    #[error("cannot use the bundle cache at {path}", path = .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file of the bundle changed on the disk after it was verified. Getting the bundle again
    /// brings it back.
    #[error("the file {path} of the bundle {hash} changed on the disk", path = .path.display())]
    Changed {
        /// The bundle.
        hash: ContentHash,
        /// The file.
        path: PathBuf,
    },
    /// The process is shutting down, or the fetch ran into a defect.
    #[error("the fetch was interrupted")]
    Interrupted,
}

fn in_the_cache(damage: Option<&str>) -> String {
    match damage {
        Some(damage) => format!("damaged in the cache ({damage})"),
        None => "not in the cache".to_owned(),
    }
}

impl FetchError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }

    /// Whether the disk of the cache is full.
    pub(super) fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Cache { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    pub(super) fn from_store(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { key } => match key.promised_hash() {
                Some(hash) => Self::NotFound { hash },
                None => Self::Store(Arc::new(error)),
            },
            StoreError::Exists { .. }
            | StoreError::Changed { .. }
            | StoreError::TooLarge { .. }
            | StoreError::WrongSize { .. }
            | StoreError::WrongContent { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Failed { .. } => Self::Store(Arc::new(error)),
        }
    }

    pub(super) fn cache(path: &Path, error: io::Error) -> Self {
        Self::Cache {
            path: path.to_owned(),
            source: Arc::new(error),
        }
    }
}
