//! Uploads into the folder whose parts come in calls of their own.
//!
//! Each is a file beside the other uploads, in which every part lies at its place. Whoever writes a part or joins
//! them holds the lock of the file, in whichever process, and looks then whether it still is an upload: one
//! that was joined is an object, which nobody may write.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use alga_model::ContentHash;
use uuid::Uuid;

use super::super::{ETag, PART_BYTES, PartedUpload, StagingKey, Stat, StoreError};
use super::{LocalStore, UNFINISHED, existing, ignore_missing, make_folder, stat};

/// Done, or refused for a reason that is not the folder's. Failures of the folder are around it.
type Judged<T> = Result<T, StoreError>;

pub(super) fn begin(store: &LocalStore, key: StagingKey) -> io::Result<Judged<PartedUpload>> {
    if existing(&store.path(key))?.is_some() {
        return Ok(Err(StoreError::Exists { key: key.into() }));
    }
    let folder = store.staging();
    make_folder(&folder)?;
    let id = format!("{}{}", prefix(key), Uuid::new_v4().simple());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(folder.join(&id))?;
    store.sync(&folder)?;
    Ok(Ok(PartedUpload { key, id }))
}

pub(super) fn put(
    store: &LocalStore,
    upload: &PartedUpload,
    number: u32,
    bytes: &[u8],
) -> io::Result<Judged<ETag>> {
    if let Err(refused) = upload.check_part(number, bytes.len()) {
        return Ok(Err(refused));
    }
    let Some((file, _)) = open(store, upload)? else {
        return Ok(Err(upload.is_gone()));
    };
    file.write_all_at(bytes, offset(u64::from(number)))?;
    file.sync_all()?;
    Ok(Ok(Part::of(bytes).etag()))
}

pub(super) fn join(
    store: &LocalStore,
    upload: &PartedUpload,
    told: &[ETag],
    size: u64,
) -> io::Result<Judged<Stat>> {
    let Some((file, path)) = open(store, upload)? else {
        return joined_before(store, upload, size);
    };
    let parts: Option<Vec<_>> = told.iter().map(Part::told).collect();
    let Some(parts) = parts else {
        return Ok(Err(upload.has_changed()));
    };
    let lengths: Vec<_> = parts.iter().map(|part| part.bytes).collect();
    if let Err(refused) = upload.check_lengths(&lengths, size) {
        return Ok(Err(refused));
    }
    if !has_parts(&file, &parts)? {
        return Ok(Err(upload.has_changed()));
    }
    // The last part may have been longer before it was written again.
    file.set_len(size)?;
    match store.publish(&file, &path, upload.key) {
        Ok(Some(stat)) => {
            ignore_missing(fs::remove_file(path))?;
            Ok(Ok(stat))
        }
        Ok(None) => Ok(Err(StoreError::Exists {
            key: upload.object(),
        })),
        Err(_) if existing(&path)?.is_none() => Ok(Err(upload.is_gone())),
        Err(error) => Err(error),
    }
}

pub(super) fn abort(store: &LocalStore, upload: &PartedUpload) -> io::Result<()> {
    path(store, upload).map_or(Ok(()), |path| ignore_missing(fs::remove_file(path)))
}

/// The file of an upload that goes on, and its path. It is locked until it is closed.
fn open(store: &LocalStore, upload: &PartedUpload) -> io::Result<Option<(File, PathBuf)>> {
    let Some(path) = path(store, upload) else {
        return Ok(None);
    };
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.lock()?;
    let (held, named) = (file.metadata()?, existing(&path)?);
    let is_there = named.is_some_and(|named| named.ino() == held.ino());
    // A second name is that of the object, of which a crash kept the first from being removed.
    Ok((is_there && held.nlink() == 1).then_some((file, path)))
}

/// What an upload that doesn't go on was joined to, if it was.
fn joined_before(store: &LocalStore, upload: &PartedUpload, size: u64) -> io::Result<Judged<Stat>> {
    let object = store.path(upload.key);
    let found = existing(&object)?.filter(|found| found.len() == size);
    let Some(found) = found else {
        return Ok(Err(upload.is_gone()));
    };
    // Whoever joined it may not have come this far.
    store.sync(object.parent().unwrap_or(&store.root))?;
    abort(store, upload)?;
    stat(&found).map(Ok)
}

/// Whether these parts, and no others, are in the file.
fn has_parts(file: &File, parts: &[Part]) -> io::Result<bool> {
    if file.metadata()?.len() > offset(parts.len() as u64 + 1) {
        return Ok(false);
    }
    let mut buffer = vec![0; PART_BYTES];
    for (number, part) in (1..).zip(parts) {
        let len = usize::try_from(part.bytes).unwrap_or(usize::MAX);
        let Some(bytes) = buffer.get_mut(..len) else {
            return Ok(false);
        };
        match file.read_exact_at(bytes, offset(number)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if ContentHash::of(bytes) != part.hash {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A part as its `ETag` tells it.
struct Part {
    hash: ContentHash,
    bytes: u64,
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        Self {
            hash: ContentHash::of(bytes),
            bytes: bytes.len() as u64,
        }
    }

    fn told(etag: &ETag) -> Option<Self> {
        let (hash, bytes) = etag.as_str().split_once('-')?;
        Some(Self {
            hash: hash.parse().ok()?,
            bytes: bytes.parse().ok()?,
        })
    }

    fn etag(&self) -> ETag {
        ETag::new(format!("{}-{}", self.hash.to_hex(), self.bytes))
    }
}

/// Where an upload lies. There is none of an id that this store doesn't give, which may come from anywhere.
fn path(store: &LocalStore, upload: &PartedUpload) -> Option<PathBuf> {
    let unique = upload.id.strip_prefix(&prefix(upload.key))?;
    let is_ours = unique.len() == 32 && unique.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| store.staging().join(&upload.id))
}

/// What [`LocalUpload::key_of`](super::upload::LocalUpload::key_of) knows the upload by.
fn prefix(key: StagingKey) -> String {
    format!("{UNFINISHED}-{}-", key.id())
}

fn offset(number: u64) -> u64 {
    (number - 1) * PART_BYTES as u64
}
