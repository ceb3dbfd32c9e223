//! Makes room in a cache.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use alga_model::ContentHash;

use super::bundle::Index;
use super::lease::Eviction;
use super::work::WorkFolder;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Trimmed {
    /// What the bundles take that are left.
    pub(super) bytes: u64,
    /// The bundles that were removed.
    pub(super) evicted: Vec<ContentHash>,
}

/// A bundle's folder, whoever made it.
struct Kept {
    hash: ContentHash,
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// Whether it has an index, without which nobody can use it.
    is_sound: bool,
}

/// Removes bundles of the folder `cache` until the others have at most `budget` bytes: first what is of no
/// use, then what was used least recently, and nothing that is in use by whatever process.
///
/// Processes take turns, so that what one removes is not removed by others on top.
pub(super) fn trim(cache: &Path, budget: u64, work: &WorkFolder) -> io::Result<Trimmed> {
    let turn = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(cache.join(".evict.lock"))?;
    turn.lock()?;
    let mut kept = kept(cache)?;
    kept.sort_by_key(|bundle| (bundle.is_sound, bundle.used));
    let mut trimmed = Trimmed {
        bytes: kept.iter().map(|bundle| bundle.bytes).sum(),
        ..Trimmed::default()
    };
    for bundle in kept {
        if trimmed.bytes <= budget {
            break;
        }
        match bundle.evict(work) {
            Ok(true) => {
                trimmed.bytes -= bundle.bytes;
                trimmed.evicted.push(bundle.hash);
            }
            Ok(false) => {}
            // It stands in nobody else's way.
            Err(error) => {
                tracing::warn!(bundle = %bundle.hash, %error, "cannot remove a bundle from the cache");
            }
        }
    }
    if trimmed.bytes > budget {
        let bytes = trimmed.bytes;
        tracing::warn!(
            bytes,
            budget,
            "the bundle cache is larger than it may be, as what is left is in use"
        );
    }
    Ok(trimmed)
}

impl Kept {
    /// Removes it, unless it is in use or was a moment ago.
    fn evict(&self, work: &WorkFolder) -> io::Result<bool> {
        let Some(eviction) = Eviction::begin(&self.path)? else {
            return Ok(false);
        };
        if eviction.last_use()? != self.used {
            return Ok(false);
        }
        let grave = work.new_path();
        fs::rename(&self.path, &grave)?;
        // Whoever waits for the lock goes on, and sees that the bundle isn't there.
        drop(eviction);
        tracing::info!(bundle = %self.hash, bytes = self.bytes, "a bundle was removed from the cache to make room");
        // What can't be removed now goes with the work folder.
        let _ = fs::remove_dir_all(&grave);
        Ok(true)
    }
}

fn kept(cache: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let hash = name.and_then(|name| name.parse::<ContentHash>().ok());
        let Some(hash) = hash.filter(|hash| name == Some(&*hash.to_hex())) else {
            continue;
        };
        // What is no folder is no bundle, and one that is gone meanwhile needs no room.
        let metadata = fs::symlink_metadata(&path).ok();
        let Some(metadata) = metadata.filter(Metadata::is_dir) else {
            continue;
        };
        let used = metadata.modified()?;
        let indexed = Index::load(&path, hash).ok().map(|index| index.bytes());
        kept.push(Kept {
            hash,
            bytes: indexed.unwrap_or_else(|| weigh(&path)),
            used,
            is_sound: indexed.is_some(),
            path,
        });
    }
    Ok(kept)
}

/// What the files below `folder` take, as far as they can be looked at.
fn weigh(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let weights = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => weigh(&entry.path()),
        Ok(metadata) => Index::on_disk(metadata.len()),
        Err(_) => 0,
    });
    weights.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_or_removed_ends_nothing() {
        let room = tempfile::tempdir().unwrap();
        let cache = room.path().join("cache");
        let work = WorkFolder::open(&cache).unwrap();
        let path = |name: &[u8]| cache.join(ContentHash::of(name).to_hex());
        std::os::unix::fs::symlink(path(b"loop"), path(b"loop")).unwrap();
        for name in [b"1", b"2"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), b"content").unwrap();
        }
        // There is nowhere to move them to.
        fs::remove_dir_all(work.path()).unwrap();
        let trimmed = trim(&cache, 0, &work).unwrap();
        assert_eq!((trimmed.bytes, trimmed.evicted.len()), (2 * 4096, 0));
        let work = WorkFolder::open(&cache).unwrap();
        let trimmed = trim(&cache, 0, &work).unwrap();
        assert_eq!((trimmed.bytes, trimmed.evicted.len()), (0, 2));
    }
}
