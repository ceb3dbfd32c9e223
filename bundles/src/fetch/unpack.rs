//! A bundle becomes a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alga_model::{ContentHash, ContentHasher};

use super::bundle::{Index, Record};
use super::download::count_damage;
use super::{FetchError, sync, write_synced};
use crate::archive::{ArchiveError, Limits, Rejection, Sink, SinkError, Walk, walk};
use crate::manifest::{Issues, Manifest};
use crate::path::BundlePath;

/// A folder that is removed unless it was renamed in the meantime.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> io::Result<Self> {
        // It becomes the bundle's folder.
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone when it was renamed; else what is left goes with the work folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A bundle unpacked into a scratch folder, not yet complete.
#[derive(Debug)]
pub(super) struct Unpacked {
    scratch: Scratch,
    hash: ContentHash,
    has_own_manifest: bool,
    files: BTreeMap<BundlePath, Record>,
    folders: BTreeSet<PathBuf>,
}

impl Unpacked {
    /// Unpacks the file `bundle` into a new folder at `scratch`, reading it with every rule.
    pub(super) fn from_bundle(
        bundle: &Path,
        scratch: &Path,
        hash: ContentHash,
        limits: &Limits,
    ) -> Result<Self, FetchError> {
        let failed = |error| FetchError::cache(scratch, error);
        let folder = Scratch::new(scratch).map_err(failed)?;
        let input = File::open(bundle).map_err(failed)?;
        let size = input.metadata().map_err(failed)?.len();
        let mut unpacker = Unpacker::new(folder.path().join(Index::FILES)).map_err(failed)?;
        let walk_of = Walk {
            size,
            expected: Some(hash),
            limits,
            progress: None,
        };
        match walk(input, walk_of, &mut unpacker) {
            Ok(_) => {}
            Err(ArchiveError::HashMismatch { expected, actual }) => {
                count_damage();
                return Err(FetchError::Integrity { expected, actual });
            }
            Err(ArchiveError::Read(error)) => return Err(FetchError::cache(bundle, error)),
            Err(ArchiveError::Write { path, source }) => {
                return Err(FetchError::cache(&scratch.join(path), source));
            }
            Err(
                error @ (ArchiveError::Damaged(_)
                | ArchiveError::NotZstd
                | ArchiveError::Rejected { .. }
                | ArchiveError::TooLarge { .. }),
            ) => {
                return Err(FetchError::Archive {
                    hash,
                    source: Arc::new(error),
                });
            }
        }
        let Unpacker { files, folders, .. } = unpacker;
        Ok(Self {
            scratch: folder,
            hash,
            has_own_manifest: files.contains_key(Manifest::FILE),
            files,
            folders,
        })
    }

    pub(super) const fn has_own_manifest(&self) -> bool {
        self.has_own_manifest
    }

    /// Adds the manifest that the archive lacks.
    pub(super) fn with_manifest(mut self, bytes: &[u8]) -> Result<Self, FetchError> {
        let path = self.scratch.path().join(Index::FILES).join(Manifest::FILE);
        let failed = |error| FetchError::cache(&path, error);
        write_synced(&path, bytes).map_err(failed)?;
        let meta = path.symlink_metadata().map_err(failed)?;
        if let Ok(name) = Manifest::FILE.parse() {
            self.files
                .insert(name, Record::new(&meta, ContentHash::of(bytes)));
        }
        Ok(self)
    }

    /// Checks what only the whole bundle shows, writes the index and syncs everything.
    pub(super) fn seal(self, hash: ContentHash) -> Result<Scratch, FetchError> {
        self.check_manifest()?;
        let failed = |error| FetchError::cache(self.scratch.path(), error);
        let index = Index {
            bundle: hash,
            has_own_manifest: self.has_own_manifest,
            files: self.files,
        };
        let text = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
        write_synced(&self.scratch.path().join(Index::FILE), &text).map_err(failed)?;
        for folder in &self.folders {
            sync(folder).map_err(failed)?;
        }
        sync(self.scratch.path()).map_err(failed)?;
        Ok(self.scratch)
    }

    fn check_manifest(&self) -> Result<(), FetchError> {
        let path = self.scratch.path().join(Index::FILES).join(Manifest::FILE);
        let bytes = fs::read(&path).map_err(|error| FetchError::cache(&path, error))?;
        let invalid = |source| FetchError::Manifest {
            hash: self.hash,
            source,
        };
        let manifest = Manifest::parse(&bytes).map_err(invalid)?.manifest;
        let mut issues = Issues::default();
        issues.extend(manifest.missing_files(|file| self.files.contains_key(file)));
        issues.into_result().map_err(invalid)
    }
}

/// Writes the entries of a walk below `root`, where nothing was before.
struct Unpacker {
    root: PathBuf,
    files: BTreeMap<BundlePath, Record>,
    folders: BTreeSet<PathBuf>,
    current: Option<Current>,
}

struct Current {
    path: BundlePath,
    file: File,
    hasher: ContentHasher,
}

impl Unpacker {
    fn new(root: PathBuf) -> io::Result<Self> {
        fs::create_dir(&root)?;
        let folders = BTreeSet::from([root.clone()]);
        Ok(Self {
            root,
            files: BTreeMap::new(),
            folders,
            current: None,
        })
    }

    fn make_folders<'p>(&mut self, folders: impl Iterator<Item = &'p str>) -> io::Result<()> {
        for folder in folders {
            let folder = self.root.join(folder);
            if self.folders.insert(folder.clone()) {
                fs::create_dir(&folder)?;
            }
        }
        Ok(())
    }
}

impl Sink for Unpacker {
    fn folder(&mut self, path: &BundlePath) -> Result<(), SinkError> {
        Ok(self.make_folders(path.ancestors().chain([path.as_str()]))?)
    }

    fn file(&mut self, path: &BundlePath, size: u64) -> Result<(), SinkError> {
        // It is read whole later.
        let limit = Manifest::MAX_BYTES as u64;
        if path.as_str() == Manifest::FILE && size > limit {
            return Err(SinkError::Rejected(Rejection::ManifestTooLarge { limit }));
        }
        self.make_folders(path.ancestors())?;
        let file = File::create_new(self.root.join(path.as_str()))?;
        self.current = Some(Current {
            path: path.clone(),
            file,
            hasher: ContentHasher::new(),
        });
        Ok(())
    }

    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        if let Some(Current { file, hasher, .. }) = &mut self.current {
            hasher.update(chunk);
            file.write_all(chunk)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        if let Some(Current { path, file, hasher }) = self.current.take() {
            file.sync_all()?;
            self.files
                .insert(path, Record::new(&file.metadata()?, hasher.finish()));
        }
        Ok(())
    }
}
