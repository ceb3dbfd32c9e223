//! What a bundle must prove before it is published: its files, its manifest, its component.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use alga_model::ContentHash;

use crate::archive::{
    self, ArchiveError, Limits, Progress, Rejection, Sink, SinkError, Walk, Walked,
};
use crate::manifest::{InvalidManifest, Issue, Issues, Manifest, Parsed};
use crate::path::BundlePath;

/// What `bundle inspect` shows of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The hash of the bundle.
    pub hash: ContentHash,
    /// The bytes of the bundle.
    pub size: u64,
    /// The bytes of the tar stream in it.
    pub unpacked: u64,
    /// Its files and their sizes.
    pub files: BTreeMap<BundlePath, u64>,
    /// Its manifest, when it has a valid one.
    pub manifest: Option<Manifest>,
    /// What is odd about the manifest but not wrong.
    pub warnings: Vec<Issue>,
    /// What is wrong with the manifest, files that it names and the bundle lacks included.
    pub issues: Vec<Issue>,
}

impl Inspection {
    /// Whether publishing would only have the component left to check.
    pub fn is_complete(&self) -> bool {
        self.manifest.is_some() && self.issues.is_empty()
    }
}

/// Reads a bundle file and checks everything but its component. Blocking.
pub fn inspect<'a>(
    file: &Path,
    limits: &'a Limits,
    progress: Option<&'a Progress<'a>>,
) -> Result<Inspection, ArchiveError> {
    let Collected {
        walked,
        files,
        manifest,
        ..
    } = collect(file, None, limits, progress)?;
    let Walked {
        hash,
        size,
        unpacked,
    } = walked;
    let (manifest, warnings, issues) = match manifest {
        None => (None, Vec::new(), Vec::new()),
        Some(Found {
            parsed: Err(InvalidManifest { issues }),
            ..
        }) => (None, Vec::new(), issues),
        Some(Found {
            parsed: Ok(Parsed { manifest, warnings }),
            ..
        }) => {
            let mut issues = Issues::default();
            issues.extend(manifest.missing_files(|file| files.contains_key(file)));
            (Some(manifest), warnings, issues.into_list())
        }
    };
    Ok(Inspection {
        hash,
        size,
        unpacked,
        files,
        manifest,
        warnings,
        issues,
    })
}

/// A bundle in order, as far as its archive goes.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) walked: Walked,
    pub(crate) files: BTreeMap<BundlePath, u64>,
    pub(crate) manifest: Option<Found>,
    /// The component when the manifest was read, else every file that may turn out to be it.
    pub(crate) components: BTreeMap<BundlePath, Vec<u8>>,
}

/// A manifest in a bundle.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) bytes: Vec<u8>,
    pub(crate) parsed: Result<Parsed, InvalidManifest>,
}

/// Walks a bundle file and keeps what publishing needs. Blocking.
pub(crate) fn collect<'a>(
    file: &Path,
    expected: Option<ContentHash>,
    limits: &'a Limits,
    progress: Option<&'a Progress<'a>>,
) -> Result<Collected, ArchiveError> {
    let (file, size) = open(file).map_err(ArchiveError::Read)?;
    collect_from(
        file,
        Walk {
            size,
            expected,
            limits,
            progress,
        },
        None,
    )
}

/// Walks a bundle, whose hash may be known, and keeps what publishing needs. Blocking.
pub(crate) fn collect_from(
    input: impl Read,
    walk: Walk<'_>,
    known: Option<ContentHash>,
) -> Result<Collected, ArchiveError> {
    let mut collector = Collector::new(walk.limits.component_bytes);
    let walked = archive::walk_known(input, walk, known, &mut collector)?;
    let Collector {
        files,
        manifest,
        components,
        ..
    } = collector;
    Ok(Collected {
        walked,
        files,
        manifest,
        components,
    })
}

fn open(file: &Path) -> io::Result<(File, u64)> {
    let file = File::open(file)?;
    let meta = file.metadata()?;
    if meta.is_file() {
        Ok((file, meta.len()))
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Keeps the manifest and the component, in memory and in one pass.
///
/// Which file is the component stands in the manifest, and that may come later in the archive: until
/// then every file that looks like WebAssembly is kept, together within the component's limit.
/// Bundles packed by this crate begin with their manifest.
struct Collector {
    component_bytes: u64,
    files: BTreeMap<BundlePath, u64>,
    manifest: Option<Found>,
    components: BTreeMap<BundlePath, Vec<u8>>,
    /// The bytes of these together.
    kept_bytes: u64,
    current: Current,
}

enum Current {
    Ignored,
    Manifest(Vec<u8>),
    Component(BundlePath, Vec<u8>),
}

impl Collector {
    /// The first bytes of every WebAssembly binary.
    const MAGIC: &[u8] = b"\0asm";
    /// What is taken for a file that isn't known to be the component.
    const AT_FIRST: u64 = 64 << 10;

    fn new(component_bytes: u64) -> Self {
        Self {
            component_bytes,
            files: BTreeMap::new(),
            manifest: None,
            components: BTreeMap::new(),
            kept_bytes: 0,
            current: Current::Ignored,
        }
    }

    /// Whether the file may be the component, by its name alone.
    fn may_be_component(&self, path: &BundlePath) -> bool {
        match &self.manifest {
            None => true,
            Some(Found {
                parsed: Ok(parsed), ..
            }) => parsed.manifest.entry() == path,
            Some(Found { parsed: Err(_), .. }) => false,
        }
    }

    /// Room for a file of `size` bytes. What doesn't fit is refused before it has as many.
    fn room(&self, size: u64) -> Vec<u8> {
        let left = self.component_bytes.saturating_sub(self.kept_bytes);
        // A size is soon written: for what may still turn out to be nothing, little is taken at first.
        let expected = match self.manifest {
            Some(_) => size.min(left),
            None => size.min(left).min(Self::AT_FIRST),
        };
        Vec::with_capacity(usize::try_from(expected).unwrap_or_default())
    }

    fn set_manifest(&mut self, bytes: Vec<u8>) {
        let parsed = Manifest::parse(&bytes);
        let entry = parsed.as_ref().ok().map(|parsed| parsed.manifest.entry());
        self.components.retain(|path, _| Some(path) == entry);
        let kept = self.components.values();
        self.kept_bytes = kept.map(|component| component.len() as u64).sum();
        self.manifest = Some(Found { bytes, parsed });
    }
}

impl Sink for Collector {
    fn folder(&mut self, _: &BundlePath) -> Result<(), SinkError> {
        Ok(())
    }

    fn file(&mut self, path: &BundlePath, size: u64) -> Result<(), SinkError> {
        self.files.insert(path.clone(), size);
        self.current = if path.as_str() == Manifest::FILE {
            let limit = Manifest::MAX_BYTES as u64;
            if size > limit {
                return Err(SinkError::Rejected(Rejection::ManifestTooLarge { limit }));
            }
            Current::Manifest(Vec::new())
        } else if self.may_be_component(path) {
            Current::Component(path.clone(), self.room(size))
        } else {
            Current::Ignored
        };
        Ok(())
    }

    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        let left = self.component_bytes.saturating_sub(self.kept_bytes);
        match &mut self.current {
            Current::Ignored => {}
            Current::Manifest(bytes) => bytes.extend_from_slice(chunk),
            Current::Component(_, bytes) => {
                bytes.extend_from_slice(chunk);
                let known = bytes.len().min(Self::MAGIC.len());
                if bytes.get(..known) != Self::MAGIC.get(..known) {
                    self.current = Current::Ignored;
                } else if bytes.len() as u64 > left {
                    let limit = self.component_bytes;
                    return Err(SinkError::Rejected(Rejection::ComponentTooLarge { limit }));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        match std::mem::replace(&mut self.current, Current::Ignored) {
            Current::Ignored => {}
            Current::Manifest(bytes) => self.set_manifest(bytes),
            Current::Component(path, bytes) => {
                if bytes.starts_with(Self::MAGIC) {
                    self.kept_bytes += bytes.len() as u64;
                    self.components.insert(path, bytes);
                }
            }
        }
        Ok(())
    }
}
