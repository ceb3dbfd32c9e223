//! A folder becomes a bundle.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zstd::stream::write::Encoder;

use crate::archive::{ArchiveError, Limits};
use crate::collect::{Inspection, inspect};
use crate::manifest::{InvalidManifest, Issues, Manifest};
use crate::path::{BundlePath, BundlePathError};

/// Why a folder was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Something in the folder that a bundle cannot hold.
    #[error("cannot pack {path}: it is {kind}", path = .path.display())]
    Kind {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A name in the folder that a bundle cannot hold.
    #[error("cannot pack {path}", path = .path.display())]
    Name {
        /// Where it is.
        path: PathBuf,
        /// The rule it breaks.
        #[source]
        source: BundlePathError,
    },
    /// A name in the folder that is not UTF-8.
    #[error("cannot pack {path}: its name is not UTF-8", path = .path.display())]
    NotUtf8 {
        /// Where it is.
        path: PathBuf,
    },
    /// The folder has no `manifest.json`.
    #[error("the folder has no manifest.json")]
    NoManifest,
    /// The manifest is wrong, or names files that are not there.
    #[error(transparent)]
    Manifest(InvalidManifest),
    /// A file changed its size while it was packed.
    #[error("cannot pack {path}: it changed while it was read", path = .path.display())]
    Changed {
        /// Where it is.
        path: PathBuf,
    },
    /// The bundle would be refused when it is published.
    #[error("the bundle would not be accepted")]
    NotAcceptable(#[source] ArchiveError),
}

/// Packs `folder` into the bundle `target`, which appears whole or not at all. Blocking.
///
/// The same folder gives the same bytes: names are sorted, and owners, times and permissions are left
/// out. What is packed was read back under the same rules that publishing applies, so that it will
/// be accepted unless its component is not. A `target` inside the folder is left out of the bundle.
pub fn pack(folder: &Path, target: &Path, limits: &Limits) -> Result<Inspection, PackError> {
    let entries = scan(folder, target)?;
    check_manifest(&entries)?;

    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temp = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(failed("write", target))?;
    write(&entries, temp.as_file())?;
    temp.as_file().sync_all().map_err(failed("write", target))?;

    let inspection = inspect(temp.path(), limits, None).map_err(PackError::NotAcceptable)?;
    if !inspection.is_complete() {
        return Err(PackError::Manifest(InvalidManifest {
            issues: inspection.issues,
        }));
    }
    temp.persist(target)
        .map_err(|error| failed("write", target)(error.error))?;
    Ok(inspection)
}

/// A file or folder to be packed.
struct Found {
    source: PathBuf,
    /// `None` for a folder.
    size: Option<u64>,
}

type Entries = BTreeMap<BundlePath, Found>;

fn scan(root: &Path, target: &Path) -> Result<Entries, PackError> {
    let target = target.canonicalize().ok();
    let mut entries = Entries::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let source = entry.map_err(failed("read", &folder))?.path();
            if target.is_some() && source.canonicalize().ok() == target {
                continue;
            }
            let meta = source.symlink_metadata().map_err(failed("read", &source))?;
            let path = bundle_path(root, &source)?;
            if meta.is_dir() {
                folders.push(source.clone());
                entries.insert(path, Found { source, size: None });
            } else if meta.is_file() {
                entries.insert(
                    path,
                    Found {
                        source,
                        size: Some(meta.len()),
                    },
                );
            } else {
                return Err(PackError::Kind {
                    kind: kind(meta.file_type()),
                    path: source,
                });
            }
        }
    }
    Ok(entries)
}

fn bundle_path(root: &Path, source: &Path) -> Result<BundlePath, PackError> {
    let relative = source.strip_prefix(root).unwrap_or(source);
    let text = relative.to_str().ok_or_else(|| PackError::NotUtf8 {
        path: source.to_owned(),
    })?;
    text.parse().map_err(|error| PackError::Name {
        path: source.to_owned(),
        source: error,
    })
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_fifo() {
        "a fifo"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Finds out what is wrong before minutes are spent on compression.
fn check_manifest(entries: &Entries) -> Result<(), PackError> {
    let Some(Found {
        source,
        size: Some(_),
    }) = entries.get(Manifest::FILE)
    else {
        return Err(PackError::NoManifest);
    };
    let mut bytes = Vec::new();
    File::open(source)
        .and_then(|file| {
            file.take(Manifest::MAX_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(failed("read", source))?;
    let manifest = Manifest::parse(&bytes)
        .map_err(PackError::Manifest)?
        .manifest;
    let is_file = |path: &BundlePath| entries.get(path).is_some_and(|found| found.size.is_some());
    let mut issues = Issues::default();
    issues.extend(manifest.missing_files(is_file));
    issues.into_result().map_err(PackError::Manifest)
}

fn write(entries: &Entries, target: &File) -> Result<(), PackError> {
    /// The highest level whose window every decoder provides; packing is rare, fetching is not.
    const LEVEL: i32 = 19;

    let broken = |error| failed("write", Path::new("the bundle"))(error);
    let mut encoder = Encoder::new(target, LEVEL).map_err(broken)?;
    encoder.include_checksum(true).map_err(broken)?;
    let mut tar = tar::Builder::new(encoder);
    // The manifest goes first: a reader then knows which file is the component when it comes.
    let is_manifest = |path: &BundlePath| path.as_str() == Manifest::FILE;
    let manifest = entries.iter().filter(|(path, _)| is_manifest(path));
    let others = entries.iter().filter(|(path, _)| !is_manifest(path));
    for (path, found) in manifest.chain(others) {
        append(&mut tar, path, found)?;
    }
    tar.into_inner().and_then(Encoder::finish).map_err(broken)?;
    Ok(())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &BundlePath,
    found: &Found,
) -> Result<(), PackError> {
    let source = &found.source;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let Some(size) = found.size else {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        return tar
            .append_data(&mut header, format!("{path}/"), io::empty())
            .map_err(failed("pack", source));
    };
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    let file = File::open(source).map_err(failed("read", source))?;
    let mut content = Counted {
        source: file.take(size),
        read: 0,
    };
    tar.append_data(&mut header, path.as_str(), &mut content)
        .map_err(failed("pack", source))?;
    let grown = content
        .source
        .into_inner()
        .read(&mut [0])
        .map_err(failed("read", source))?
        > 0;
    if content.read == size && !grown {
        Ok(())
    } else {
        Err(PackError::Changed {
            path: source.clone(),
        })
    }
}

/// Counts what was read.
struct Counted<R> {
    source: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = path.to_owned();
    move |source| PackError::Io {
        action,
        path,
        source,
    }
}
