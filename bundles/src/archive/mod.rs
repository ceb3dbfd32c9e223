//! One streaming pass over a bundle: SHA-256, zstd and tar, with every rule of the archive.
//!
//! The tar blocks are read here and not by the `tar` crate's iterator, which resolves extension
//! records by itself and does not tell an archive that ends from one that was cut off: a name is
//! decided once, checked once, and that one value is what a [`Sink`] gets. Whatever two readers of
//! tar could understand differently is refused: two names for one entry, two sizes, a repeated
//! name, sparse files, bytes after the end.

mod error;
mod extension;
mod header;
mod input;
mod names;
mod sink;
mod stream;

use std::io::Read;

use alga_model::ContentHash;
use zstd::stream::read::Decoder;

pub use error::{ArchiveError, Rejection};
pub use sink::{Sink, SinkError};

use crate::manifest::Manifest;
use crate::path::BundlePath;
use extension::Extensions;
use header::{Header, Kind};
use input::Input;
use names::Names;
use stream::TarStream;

/// What every bundle starts with: the magic number of a zstd frame (RFC 8878, section 3.1.1).
pub const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// How large a bundle may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of the bundle itself; 200 MiB unless set.
    pub compressed_bytes: u64,
    /// The most bytes of the tar stream, headers and padding included; 1 GiB unless set.
    pub unpacked_bytes: u64,
    /// The most files and folders, with the folders that names imply; 10 000 unless set.
    pub entries: usize,
    /// The most bytes of tar stream per byte of bundle; 200 unless set.
    pub ratio: u64,
    /// The bytes of tar stream that are free whatever the ratio; 1 MiB unless set. Headers and
    /// padding alone compress a thousandfold, and so little can do no harm.
    pub ratio_free_bytes: u64,
    /// The most bytes of the component, which is held in memory; 128 MiB unless set.
    pub component_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed_bytes: 200 << 20,
            unpacked_bytes: 1 << 30,
            entries: 10_000,
            ratio: 200,
            ratio_free_bytes: 1 << 20,
            component_bytes: 128 << 20,
        }
    }
}

/// Told the bytes of a bundle read so far, each time some were read.
pub type Progress<'a> = dyn Fn(u64) + Send + Sync + 'a;

/// What is known of a bundle before it is read, and who wants to know while it is.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// The bytes the bundle has.
    pub size: u64,
    /// The hash it must have, if that is known.
    pub expected: Option<ContentHash>,
    /// The limits to keep.
    pub limits: &'a Limits,
    /// Who wants to see progress.
    pub progress: Option<&'a Progress<'a>>,
}

/// What a walk learned of a bundle that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// The hash of the bundle.
    pub hash: ContentHash,
    /// The bytes of the bundle.
    pub size: u64,
    /// The bytes of the tar stream in it.
    pub unpacked: u64,
}

/// Reads a bundle once, to its last byte, and hands its files to `sink`.
///
/// When this returns `Ok`, the bundle is `walk.size` bytes with the returned hash, the expected one
/// if there was one, and every rule held for every entry. Before that the sink may have been given
/// files of a bundle that turned out to be refused, so it must not let anybody use them.
///
/// Blocking: call it where blocking is allowed.
///
/// # Errors
///
/// [`ArchiveError::HashMismatch`] wins over damage and refusal, which are but its consequences.
pub fn walk(input: impl Read, walk: Walk<'_>, sink: &mut dyn Sink) -> Result<Walked, ArchiveError> {
    walk_known(input, walk, None, sink)
}

/// Reads a bundle as [`walk`] does. Where somebody vouches for its hash, that is taken for it and compared with the
/// expected one; the bytes are not hashed.
pub(crate) fn walk_known(
    input: impl Read,
    walk: Walk<'_>,
    known: Option<ContentHash>,
    sink: &mut dyn Sink,
) -> Result<Walked, ArchiveError> {
    let Walk {
        size,
        expected,
        limits,
        progress,
    } = walk;
    if size > limits.compressed_bytes {
        return Err(ArchiveError::TooLarge {
            size,
            limit: limits.compressed_bytes,
        });
    }
    let mut input = Input::new(input, size, known, progress);
    let unpacked = walk_frame(&mut input, size, limits, sink);
    // What failed needs no hash of the whole unless it is to be told from another bundle.
    let ended = if unpacked.is_ok() || expected.is_some() {
        input.drain()
    } else {
        Ok(())
    };
    if let Some(error) = input.take_failure() {
        return Err(ArchiveError::Read(error));
    }
    if let Err(error @ ArchiveError::Write { .. }) = unpacked {
        return Err(error);
    }
    let hash = input.into_hash();
    if let Some(expected) = expected.filter(|expected| *expected != hash) {
        return Err(ArchiveError::HashMismatch {
            expected,
            actual: hash,
        });
    }
    let unpacked = unpacked?;
    ended?;
    Ok(Walked {
        hash,
        size,
        unpacked,
    })
}

/// Walks the one zstd frame that a bundle is, and gives the bytes of the tar stream in it.
fn walk_frame(
    input: &mut Input<'_, impl Read>,
    size: u64,
    limits: &Limits,
    sink: &mut dyn Sink,
) -> Result<u64, ArchiveError> {
    /// 8 MiB, what every decoder is expected to provide and what zstd's levels up to 19 ask for.
    const WINDOW_LOG_MAX: u32 = 23;

    let mut start = Vec::new();
    input
        .by_ref()
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut start)
        .map_err(|error| ArchiveError::damaged(&error))?;
    // zstd's own words for it tell nobody what to do.
    if start != ZSTD_MAGIC {
        return Err(ArchiveError::NotZstd);
    }
    let mut decoder = Decoder::new(start.as_slice().chain(input))
        .map_err(|error| ArchiveError::damaged(&error))?
        .single_frame();
    decoder
        .window_log_max(WINDOW_LOG_MAX)
        .map_err(|error| ArchiveError::damaged(&error))?;
    let mut stream = TarStream::new(decoder, size, limits);
    walk_entries(&mut stream, limits, sink)?;
    stream.finish_tar()?;
    let unpacked = stream.position();
    // Reading to the end of the frame made zstd check the frame's own checksum.
    let rest = stream.into_inner().finish();
    if rest.buffer().is_empty() {
        Ok(unpacked)
    } else {
        Err(ArchiveError::Damaged(
            "there are bytes after the end of the zstd frame".to_owned(),
        ))
    }
}

fn walk_entries(
    stream: &mut TarStream<impl Read>,
    limits: &Limits,
    sink: &mut dyn Sink,
) -> Result<(), ArchiveError> {
    let mut names = Names::new(limits.entries);
    let mut extensions = Extensions::default();
    let mut extension_records = 0;
    while let Some(block) = stream.next_header()? {
        let header = Header::parse(&block)?;
        if header.kind().is_extension() {
            // Empty ones cost next to nothing in the bundle, but each costs a look.
            extension_records += 1;
            if extension_records > limits.entries.saturating_mul(2) {
                let reason = Rejection::TooManyEntries {
                    limit: limits.entries,
                };
                return Err(ArchiveError::rejected(&header.name(), reason));
            }
            extensions.read(&header, stream)?;
            continue;
        }
        let (path, is_folder) = entry_path(&header, std::mem::take(&mut extensions))?;
        let reject = |reason| ArchiveError::rejected(path.as_str().as_bytes(), reason);
        if is_folder && path.as_str() == Manifest::FILE {
            return Err(reject(Rejection::Kind(
                "a folder where the manifest belongs",
            )));
        }
        names.add(&path, is_folder).map_err(reject)?;
        stream.ensure_room(header.size()).map_err(reject)?;
        if is_folder {
            sink.folder(&path).map_err(|error| error.at(&path))?;
        } else {
            sink.file(&path, header.size())
                .map_err(|error| error.at(&path))?;
            stream.content(header.size(), |chunk| {
                sink.data(chunk).map_err(|error| error.at(&path))
            })?;
            sink.end().map_err(|error| error.at(&path))?;
        }
    }
    extensions.ensure_used()
}

/// The one name of an entry and whether it is a folder, when it may be in a bundle at all.
fn entry_path(
    header: &Header<'_>,
    extensions: Extensions,
) -> Result<(BundlePath, bool), ArchiveError> {
    let name = extensions.name(header)?;
    let reject = |reason| ArchiveError::rejected(&name, reason);
    let is_folder = match header.kind() {
        Kind::File => false,
        Kind::Folder if header.size() == 0 => true,
        Kind::Folder => return Err(reject(Rejection::FolderWithContent)),
        Kind::Refused(what) => return Err(reject(Rejection::Kind(what))),
        Kind::LongName | Kind::Pax | Kind::GlobalPax => {
            return Err(reject(Rejection::Kind("an extension record")));
        }
    };
    let text = std::str::from_utf8(&name).map_err(|_| reject(Rejection::NotUtf8))?;
    // A folder is customarily written with a slash at the end; on a file some readers take it for a folder.
    let text = if is_folder {
        text.strip_suffix('/').unwrap_or(text)
    } else {
        text
    };
    let path = text
        .parse()
        .map_err(|error| reject(Rejection::Name(error)))?;
    Ok((path, is_folder))
}
