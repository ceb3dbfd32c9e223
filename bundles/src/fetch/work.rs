//! Where a process puts what is not finished yet.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A folder that belongs to one process, inside the cache so that a rename takes things out of it.
///
/// Its lock lives as long as the process does, whichever way that ends: a work folder that can be
/// locked belongs to nobody.
#[derive(Debug)]
pub(super) struct WorkFolder {
    path: PathBuf,
    _lock: File,
}

impl WorkFolder {
    const LOCK: &str = "lock";

    /// Makes a work folder below `cache`, which is made too when it isn't there, and removes those of dead
    /// processes. Refuses a `cache` that isn't this user's alone.
    pub(super) fn open(cache: &Path) -> io::Result<Self> {
        make(cache)?;
        ensure_private(cache)?;
        let all = cache.join(".work");
        make(&all)?;
        // Between making a folder and locking it, it looks like a dead one: one process at a time.
        let turn = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(cache.join(".work.lock"))?;
        turn.lock()?;
        sweep(&all)?;
        let path = all.join(Uuid::new_v4().to_string());
        make(&path)?;
        let lock = File::create_new(path.join(Self::LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the folder that nothing has.
    pub(super) fn new_path(&self) -> PathBuf {
        self.path.join(Uuid::new_v4().to_string())
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What is left is removed at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what dead processes left. What can't be judged or removed stays, and costs disk alone.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if !is_dead(&path) {
            continue;
        }
        tracing::info!(path = %path.display(), "removing what a dead process left in the bundle cache");
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what a dead process left");
        }
    }
    Ok(())
}

/// Whether the process of a work folder is surely gone: nobody holds its lock, or it never got so far.
fn is_dead(folder: &Path) -> bool {
    match File::open(folder.join(WorkFolder::LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Refuses a folder that somebody else can put things into. They would be run: what is in the cache is compared
/// with an index that is in it too.
fn ensure_private(cache: &Path) -> io::Result<()> {
    // With a slash at its end, a link would be what it leads to.
    let meta = fs::symlink_metadata(cache.components().as_path())?;
    let (user, mode) = (rustix::process::geteuid().as_raw(), meta.mode() & 0o7777);
    let fault = if meta.is_symlink() {
        "is a symbolic link: name the folder that it leads to".to_owned()
    } else if meta.uid() != user {
        let owner = meta.uid();
        format!(
            "belongs to user {owner} and not to user {user}, who runs this: remove it, or name another"
        )
    } else if mode & 0o022 != 0 {
        format!(
            "can be written by others (mode {mode:o}): remove it, or take that right away (chmod go-w) if nobody has \
             used it"
        )
    } else {
        return Ok(());
    };
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the bundle cache {} {fault}", cache.display()),
    ))
}

fn make(folder: &Path) -> io::Result<()> {
    // Whoever can write here decides what runs.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_cache_that_others_can_write_is_refused_and_told_how_to_mend() {
        let room = tempfile::tempdir().unwrap();
        let cache = room.path().join("cache");
        fs::create_dir(&cache).unwrap();
        let mut refusals = Vec::new();
        for mode in [0o700, 0o755, 0o720, 0o702, 0o1777] {
            fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).unwrap();
            let opened = WorkFolder::open(&cache);
            refusals.extend(opened.err().map(|error| (mode, error.to_string())));
        }
        assert_eq!(refusals.len(), 3, "{refusals:?}");
        for (mode, refusal) in refusals {
            assert!(refusal.contains(&format!("mode {mode:o}")), "{refusal}");
            assert!(refusal.contains("chmod go-w"), "{refusal}");
        }
        assert_eq!(
            fs::read_dir(&cache).unwrap().count(),
            2,
            "only .work and its lock"
        );
    }

    #[test]
    fn a_cache_that_is_a_link_is_refused_also_with_a_slash_behind() {
        let room = tempfile::tempdir().unwrap();
        let (cache, link) = (room.path().join("cache"), room.path().join("link"));
        WorkFolder::open(&cache).unwrap();
        std::os::unix::fs::symlink(&cache, &link).unwrap();
        for link in [link.clone(), link.join("")] {
            let refusal = WorkFolder::open(&link).unwrap_err().to_string();
            assert!(refusal.contains("symbolic link"), "{refusal}");
        }
    }

    #[test]
    fn the_folders_of_the_dead_are_removed_and_those_of_the_living_are_not() {
        let cache = tempfile::tempdir().unwrap();
        let living = WorkFolder::open(cache.path()).unwrap();
        fs::write(living.new_path(), b"half a bundle").unwrap();
        let dead = cache.path().join(".work/dead");
        fs::create_dir_all(dead.join("files")).unwrap();
        fs::write(dead.join(WorkFolder::LOCK), b"").unwrap();
        let stillborn = cache.path().join(".work/stillborn");
        fs::create_dir(&stillborn).unwrap();

        let next = WorkFolder::open(cache.path()).unwrap();
        assert!(living.path().exists() && next.path().exists());
        assert!(!dead.exists() && !stillborn.exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }
}
