//! A bundle in the cache.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alga_model::{ContentHash, ContentHasher};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::FetchError;
use super::lease::Lease;
use crate::manifest::Manifest;
use crate::path::BundlePath;

/// What was written into a bundle's folder, to be compared with what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) bundle: ContentHash,
    /// Whether the manifest was in the archive, and so is covered by the hash. Else it was beside it, and is
    /// worth no more than its digest among the files says.
    pub(super) has_own_manifest: bool,
    pub(super) files: BTreeMap<BundlePath, Record>,
}

impl Index {
    /// The index's own file, in the bundle's folder.
    pub(super) const FILE: &str = "index.json";
    /// The folder of the bundle's files, beside the index.
    pub(super) const FILES: &str = "files";
    /// What files are counted in: that many bytes even a small one takes.
    const BLOCK: u64 = 4 << 10;

    /// The index in the folder of the bundle `hash`.
    pub(super) fn load(folder: &Path, hash: ContentHash) -> Result<Self, String> {
        let text = fs::read(folder.join(Self::FILE))
            .map_err(|error| format!("cannot read the index: {error}"))?;
        let index: Self = serde_json::from_slice(&text)
            .map_err(|error| format!("the index is no index: {error}"))?;
        if index.bundle == hash {
            Ok(index)
        } else {
            Err(format!("the index is that of {}", index.bundle))
        }
    }

    /// What the bundle takes on a disk.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.files.values().map(|record| record.size);
        sizes.map(Self::on_disk).fold(0, u64::saturating_add)
    }

    /// What a file of `size` bytes takes on a disk.
    pub(super) fn on_disk(size: u64) -> u64 {
        size.div_ceil(Self::BLOCK).saturating_mul(Self::BLOCK)
    }
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

/// A verified bundle, unpacked in the cache. It stays there as long as this value lives.
#[derive(Debug)]
pub struct CachedBundle {
    contents: Arc<Contents>,
    lease: Lease,
}

/// What is known of a bundle in the cache, whether or not anybody uses it.
#[derive(Debug)]
pub(super) struct Contents {
    folder: PathBuf,
    manifest: Manifest,
    index: Index,
    /// Set when a file was read that is not as it was written.
    is_suspect: AtomicBool,
    /// When a use was noted last.
    noted: Mutex<Option<Instant>>,
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
    /// What is wrong, and the lease of the folder in which it is.
    Damaged(String, Lease),
    Ready(Arc<CachedBundle>),
}

impl CachedBundle {
    /// The hash of the bundle.
    pub fn hash(&self) -> ContentHash {
        self.contents.index.bundle
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.contents.manifest
    }

    /// Whether its manifest is that of its archive, or, where that has none, the one with this digest.
    pub(super) fn has_manifest(&self, expected: Option<ContentHash>) -> bool {
        let index = &self.contents.index;
        let record = index.files.get(Manifest::FILE);
        index.has_own_manifest || record.map(|record| record.sha256) == expected
    }

    /// Where its component is.
    pub fn component_path(&self) -> PathBuf {
        self.contents.path_of(self.manifest().entry().as_str())
    }

    /// Its component, checked once more against its digest.
    pub async fn read_component(&self) -> Result<Vec<u8>, FetchError> {
        let path = self.component_path();
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| FetchError::cache(&path, error))?;
        let record = self.contents.index.files.get(self.manifest().entry());
        if record.map(|record| record.sha256) == Some(ContentHash::of(&bytes)) {
            Ok(bytes)
        } else {
            self.contents.is_suspect.store(true, Ordering::Relaxed);
            Err(FetchError::Changed {
                hash: self.hash(),
                path,
            })
        }
    }

    /// One of its files, by the path it has in the bundle.
    pub fn file(&self, path: &str) -> Option<CachedFile> {
        // Only what was unpacked is in the index, so that a path can't lead anywhere else.
        let Record { size, sha256, .. } = *self.contents.index.files.get(path)?;
        Some(CachedFile {
            path: self.contents.path_of(path),
            size,
            sha256,
        })
    }

    /// The paths of all its files.
    pub fn files(&self) -> impl Iterator<Item = &BundlePath> {
        self.contents.index.files.keys()
    }

    pub(super) fn contents(&self) -> &Arc<Contents> {
        &self.contents
    }

    /// Whether it is as it was, as far as sizes and times tell; that is a use of it then.
    pub(super) fn is_unchanged(&self) -> bool {
        let is_unchanged = self.contents.is_unchanged();
        if is_unchanged {
            self.contents.note_use(&self.lease);
        }
        is_unchanged
    }

    /// Opens a folder, reading every byte of it.
    pub(super) fn load(folder: &Path, hash: ContentHash) -> Result<OnDisk, FetchError> {
        let failed = |error| FetchError::cache(folder, error);
        loop {
            let Some(lease) = Lease::take(folder).map_err(failed)? else {
                return Ok(OnDisk::Absent);
            };
            match Contents::verify(folder, hash) {
                Ok(contents) => return Ok(OnDisk::Ready(Self::new(Arc::new(contents), lease))),
                // Unless another process has repaired it meanwhile, and we looked at half of each.
                Err(reason) if lease.is_of(folder).map_err(failed)? => {
                    return Ok(OnDisk::Damaged(reason, lease));
                }
                Err(_) => {}
            }
        }
    }

    /// Opens a folder that this process has just written.
    pub(super) fn open(
        folder: &Path,
        hash: ContentHash,
        lease: Lease,
    ) -> Result<Arc<Self>, FetchError> {
        Contents::read(folder, hash)
            .map(|contents| Self::new(Arc::new(contents), lease))
            .map_err(|reason| FetchError::cache(folder, io::Error::other(reason)))
    }

    /// What keeps its folder from being removed.
    pub(super) const fn lease(&self) -> &Lease {
        &self.lease
    }

    fn new(contents: Arc<Contents>, lease: Lease) -> Arc<Self> {
        contents.note_use(&lease);
        Arc::new(Self { contents, lease })
    }
}

impl Contents {
    /// How often uses are noted at most.
    const NOTE_EVERY: Duration = Duration::from_secs(60);
    /// Bundles with more files are not looked at without a thread to do so on.
    const FEW_FILES: usize = 16;

    /// Compares sizes and times; only what does not fit is read again, from its index on.
    ///
    /// A folder that differs need not be damaged: another process may have repaired it, or may have
    /// removed it and fetched it again.
    pub(super) fn recheck(self: Arc<Self>) -> Result<OnDisk, FetchError> {
        let hash = self.index.bundle;
        let lease = Lease::take(&self.folder);
        match lease.map_err(|error| FetchError::cache(&self.folder, error))? {
            None => Ok(OnDisk::Absent),
            Some(lease) if self.is_unchanged() => Ok(OnDisk::Ready(CachedBundle::new(self, lease))),
            Some(_) => CachedBundle::load(&self.folder, hash),
        }
    }

    /// The bundle, if nothing shows that it changed, and that is quickly seen: a few calls about files
    /// that the kernel has at hand cost less than another thread to do them on.
    pub(super) fn use_at_once(self: Arc<Self>) -> Option<Arc<CachedBundle>> {
        let lease = Lease::try_take(&self.folder)?;
        self.is_unchanged().then(|| CachedBundle::new(self, lease))
    }

    /// Whether it takes but a moment to see that nothing changed.
    pub(super) fn is_small(&self) -> bool {
        self.index.files.len() <= Self::FEW_FILES
    }

    fn is_unchanged(&self) -> bool {
        !self.is_suspect.load(Ordering::Relaxed) && self.compare().is_ok()
    }

    /// Notes that the bundle is used, unless that was done a moment ago.
    fn note_use(&self, lease: &Lease) {
        let now = Instant::now();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|at| now.duration_since(at) >= Self::NOTE_EVERY) {
            lease.touch();
            *noted = Some(now);
        }
    }

    fn verify(folder: &Path, hash: ContentHash) -> Result<Self, String> {
        let contents = Self::read(folder, hash)?;
        contents.compare()?;
        for (path, record) in &contents.index.files {
            let actual = digest(&contents.path_of(path.as_str()));
            if actual.map_err(|error| format!("cannot read {path}: {error}"))? != record.sha256 {
                return Err(format!("{path} has other bytes"));
            }
        }
        Ok(contents)
    }

    /// Reads the index and the manifest.
    fn read(folder: &Path, hash: ContentHash) -> Result<Self, String> {
        let index = Index::load(folder, hash)?;
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
            noted: Mutex::default(),
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
