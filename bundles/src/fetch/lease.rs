//! Who uses a bundle.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

/// A lock on a bundle's folder, shared by all processes that use it. It ends with the value, or with
/// the process, whichever way that ends.
///
/// Whoever wants to remove the folder needs the lock alone. The time of the folder's last change is that
/// of its last use.
#[derive(Debug)]
pub(super) struct Lease(File);

impl Lease {
    /// The lease of a folder, unless there is no such folder. Waits for one who is about to move the
    /// folder away, which doesn't take long.
    pub(super) fn take(folder: &Path) -> io::Result<Option<Self>> {
        loop {
            let Some(file) = open(folder)? else {
                return Ok(None);
            };
            file.lock_shared()?;
            if is_at(&file, folder)? {
                return Ok(Some(Self(file)));
            }
        }
    }

    /// The lease of a folder that is there and that nobody is about to move away. Waits for nobody.
    pub(super) fn try_take(folder: &Path) -> Option<Self> {
        let file = open(folder).ok()??;
        file.try_lock_shared().ok()?;
        is_at(&file, folder).ok()?.then_some(Self(file))
    }

    /// Whether the folder at this path is still the one that is leased.
    pub(super) fn is_of(&self, folder: &Path) -> io::Result<bool> {
        is_at(&self.0, folder)
    }

    /// Notes that the folder is used now. Where that can't be noted, it goes sooner than it should.
    pub(super) fn touch(&self) {
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let now = Timestamps {
            last_access: time(UTIME_OMIT),
            last_modification: time(UTIME_NOW),
        };
        let _ = futimens(&self.0, &now);
    }
}

/// The lock of a folder that nobody uses.
#[derive(Debug)]
pub(super) struct Eviction(File);

impl Eviction {
    /// The lock of a folder, unless it is gone or somebody uses it.
    pub(super) fn begin(folder: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(folder)? else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(is_at(&file, folder)?.then_some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// When the folder was used last.
    pub(super) fn last_use(&self) -> io::Result<SystemTime> {
        self.0.metadata()?.modified()
    }
}

fn open(folder: &Path) -> io::Result<Option<File>> {
    match File::open(folder) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `file` is still what `folder` leads to, and wasn't moved away while its lock was waited for.
fn is_at(file: &File, folder: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(folder) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_leased_by_many_or_evicted_by_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        assert!(Lease::take(&folder).unwrap().is_none() && Lease::try_take(&folder).is_none());
        assert!(Eviction::begin(&folder).unwrap().is_none());

        fs::create_dir(&folder).unwrap();
        let leases = [Lease::take(&folder).unwrap(), Lease::try_take(&folder)];
        assert!(leases.iter().all(Option::is_some));
        assert!(Eviction::begin(&folder).unwrap().is_none());
        drop(leases);
        let eviction = Eviction::begin(&folder).unwrap().unwrap();
        assert!(Lease::try_take(&folder).is_none());
        assert!(Eviction::begin(&folder).unwrap().is_none());
        drop(eviction);
        assert!(Lease::try_take(&folder).is_some());
    }

    #[test]
    fn who_waited_while_the_folder_was_moved_away_gets_what_is_there_then() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, grave) = (parent.path().join("bundle"), parent.path().join("grave"));
        fs::create_dir(&folder).unwrap();
        let eviction = Eviction::begin(&folder).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lease::take(&folder).unwrap());
            fs::rename(&folder, &grave).unwrap();
            drop(eviction);
            assert!(waiting.join().unwrap().is_none());
        });
        fs::create_dir(&folder).unwrap();
        let lease = Lease::take(&folder).unwrap().unwrap();
        let inode = |file: &File| file.metadata().unwrap().ino();
        assert_ne!(inode(&lease.0), inode(&File::open(&grave).unwrap()));
    }

    #[test]
    fn a_use_shows_in_the_time_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        Lease::take(folder.path()).unwrap().unwrap().touch();
        let used = Eviction::begin(folder.path()).unwrap().unwrap().last_use();
        assert!(used.unwrap() > SystemTime::UNIX_EPOCH);
    }
}
