//! A bundle in the cache.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alga_model::{ContentHash, ContentHasher};
use serde::{Deserialize, Serialize};

use super::FetchError;
use crate::manifest::Manifest;
use crate::path::BundlePath;

/// What was written into a bundle's folder, to be compared with what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) bundle: ContentHash,
    pub(super) files: BTreeMap<BundlePath, Record>,
}

impl Index {
    /// The index's own file, in the bundle's folder.
    pub(super) const FILE: &str = "index.json";
    /// The folder of the bundle's files, beside the index.
    pub(super) const FILES: &str = "files";
}

/// One file as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    sha256: ContentHash,
}

impl Record {
    pub(super) fn new(meta: &Metadata, sha256: ContentHash) -> Self {
        Self {
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            sha256,
        }
    }

    fn fits(&self, meta: &Metadata) -> bool {
        meta.is_file() && *self == Self::new(meta, self.sha256)
    }
}

/// A verified bundle, unpacked in the cache.
#[derive(Debug)]
pub struct CachedBundle {
    folder: PathBuf,
    manifest: Manifest,
    index: Index,
    /// Set when a file was read that is not as it was written.
    is_suspect: AtomicBool,
}

/// A file of a cached bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFile {
    /// Where it is.
    pub path: PathBuf,
    /// The bytes it has.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: ContentHash,
}

/// What a bundle's folder is worth.
pub(super) enum OnDisk {
    Absent,
    Damaged(String),
    Ready(Arc<CachedBundle>),
}

impl CachedBundle {
    /// The hash of the bundle.
    pub fn hash(&self) -> ContentHash {
        self.index.bundle
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its component is.
    pub fn component_path(&self) -> PathBuf {
        self.path_of(self.manifest.entry().as_str())
    }

    /// Its component, checked once more against its digest.
    pub async fn read_component(&self) -> Result<Vec<u8>, FetchError> {
        let path = self.component_path();
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| FetchError::cache(&path, error))?;
        let expected = self
            .index
            .files
            .get(self.manifest.entry())
            .map(|record| record.sha256);
        if expected == Some(ContentHash::of(&bytes)) {
            Ok(bytes)
        } else {
            self.is_suspect.store(true, Ordering::Relaxed);
            Err(FetchError::Changed {
                hash: self.hash(),
                path,
            })
        }
    }

    /// One of its files, by the path it has in the bundle.
    pub fn file(&self, path: &str) -> Option<CachedFile> {
        // Only what was unpacked is in the index, so that a path can't lead anywhere else.
        let Record { size, sha256, .. } = *self.index.files.get(path)?;
        Some(CachedFile {
            path: self.path_of(path),
            size,
            sha256,
        })
    }

    /// The paths of all its files.
    pub fn files(&self) -> impl Iterator<Item = &BundlePath> {
        self.index.files.keys()
    }

    /// Opens a folder, reading every byte of it.
    pub(super) fn load(folder: &Path, hash: ContentHash) -> Result<OnDisk, FetchError> {
        match fs::symlink_metadata(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OnDisk::Absent),
            Err(error) => return Err(FetchError::cache(folder, error)),
            Ok(_) => {}
        }
        Ok(match Self::verify(folder, hash) {
            Ok(bundle) => OnDisk::Ready(Arc::new(bundle)),
            Err(reason) => OnDisk::Damaged(reason),
        })
    }

    /// Opens a folder that this process has just written.
    pub(super) fn open(folder: &Path, hash: ContentHash) -> Result<Arc<Self>, FetchError> {
        Self::read(folder, hash)
            .map(Arc::new)
            .map_err(|reason| FetchError::cache(folder, io::Error::other(reason)))
    }

    /// Compares sizes and times; only what does not fit is read again, from its index on.
    ///
    /// A folder that differs need not be damaged: another process may have repaired it.
    pub(super) fn recheck(self: Arc<Self>) -> Result<OnDisk, FetchError> {
        if self.is_suspect.load(Ordering::Relaxed) || self.compare().is_err() {
            Self::load(&self.folder, self.hash())
        } else {
            Ok(OnDisk::Ready(self))
        }
    }

    fn verify(folder: &Path, hash: ContentHash) -> Result<Self, String> {
        let bundle = Self::read(folder, hash)?;
        bundle.compare()?;
        for (path, record) in &bundle.index.files {
            let actual = digest(&bundle.path_of(path.as_str()));
            if actual.map_err(|error| format!("cannot read {path}: {error}"))? != record.sha256 {
                return Err(format!("{path} has other bytes"));
            }
        }
        Ok(bundle)
    }

    /// Reads the index and the manifest.
    fn read(folder: &Path, hash: ContentHash) -> Result<Self, String> {
        let text = fs::read(folder.join(Index::FILE))
            .map_err(|error| format!("cannot read the index: {error}"))?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|error| format!("the index is no index: {error}"))?;
        if index.bundle != hash {
            return Err(format!("the index is that of {}", index.bundle));
        }
        let text = fs::read(folder.join(Index::FILES).join(Manifest::FILE))
            .map_err(|error| format!("cannot read the manifest: {error}"))?;
        let manifest = Manifest::parse(&text)
            .map_err(|error| error.to_string())?
            .manifest;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
            index,
            is_suspect: AtomicBool::new(false),
        })
    }

    fn compare(&self) -> Result<(), String> {
        for (path, record) in &self.index.files {
            match fs::symlink_metadata(self.path_of(path.as_str())) {
                Ok(meta) if record.fits(&meta) => {}
                Ok(_) => return Err(format!("{path} has another size or time")),
                Err(error) => return Err(format!("cannot find {path}: {error}")),
            }
        }
        Ok(())
    }

    fn path_of(&self, path: &str) -> PathBuf {
        self.folder.join(Index::FILES).join(path)
    }
}

fn digest(path: &Path) -> io::Result<ContentHash> {
    let mut file = File::open(path)?;
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
