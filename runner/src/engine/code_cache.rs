//! Compiled code on disk.
//!
//! Compiled code is machine code: whoever can put a file here can run anything as this process. So
//! each file is sealed, and read as a whole before its seal is checked: nobody can change the bytes in
//! between.
//!
//! The folder has a budget. What was used least recently goes first, after everything that another
//! version or another processor left. The time of a file's last change is that of its last use.
//! Several processes may share the folder: a file that another one removed is compiled again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

use super::code::Code;
use super::code_seal::Seal;
use super::component_id::ComponentId;

/// What the name of a file ends with.
const EXTENSION: &str = "cwasm";
/// What the name of a file begins with until it is written completely.
const UNFINISHED: &str = ".tmp";

/// A folder of compiled components, for one engine configuration.
#[derive(Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
    seal: Seal,
    /// Bytes that the files may have together.
    budget: u64,
}

/// A file of compiled code, whoever wrote it.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// Whether this engine could load it.
    compatible: bool,
}

impl CodeCache {
    /// Uses `folder`, which is made for this user alone if it is missing. What a process that died left
    /// half written is removed, and what is beyond the budget of so many bytes.
    pub(super) fn open(folder: PathBuf, seal: Seal, budget: u64) -> io::Result<Self> {
        make_private(&folder)?;
        remove_unfinished(&folder)?;
        let cache = Self {
            folder,
            seal,
            budget,
        };
        cache.trim()?;
        Ok(cache)
    }

    /// The compiled code of a component, if it is here and genuine. What isn't genuine is
    /// removed.
    pub(super) fn read(&self, id: ComponentId) -> Option<Code> {
        let path = self.path(id);
        let file = match read_and_touch(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(bundle = %id.bundle(), %error, "cannot read compiled code");
                return None;
            }
        };
        let genuine = self.seal.open(id, file);
        if genuine.is_none() {
            metrics::counter!("alga_engine_code_cache_rejected_total").increment(1);
            tracing::error!(bundle = %id.bundle(), "compiled code is not what was written; it is removed and compiled again");
            drop(fs::remove_file(&path));
        }
        genuine
    }

    /// Keeps compiled code. A failure costs the next start a compilation and nothing else.
    pub(super) fn write(&self, id: ComponentId, code: &Code) {
        let written = self.try_write(id, code.bytes());
        if let Err(error) = written.and_then(|()| self.trim()) {
            tracing::warn!(bundle = %id.bundle(), %error, "cannot keep compiled code");
        }
    }

    fn try_write(&self, id: ComponentId, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        // Tells that somebody is at work. Who removes the file before costs a compilation.
        file.as_file().lock()?;
        file.write_all(&self.seal.of(id, code))?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(self.path(id))?;
        Ok(())
    }

    /// Removes files until the others are within the budget.
    fn trim(&self) -> io::Result<()> {
        let mut kept = self.kept()?;
        let mut bytes = kept.iter().map(|file| file.bytes).sum::<u64>();
        if bytes <= self.budget {
            return Ok(());
        }
        kept.sort_by_key(|file| (file.compatible, file.used));
        for file in kept {
            if bytes <= self.budget {
                break;
            }
            remove(&file.path)?;
            bytes -= file.bytes;
            tracing::debug!(path = %file.path.display(), "compiled code was removed to make room");
        }
        Ok(())
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let suffix = self.suffix();
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension() != Some(OsStr::new(EXTENSION)) {
                continue;
            }
            let metadata = match path.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let name = path.file_name().unwrap_or_default();
            kept.push(Kept {
                bytes: metadata.len(),
                used: metadata.modified()?,
                compatible: name.as_encoded_bytes().ends_with(suffix.as_bytes()),
                path,
            });
        }
        Ok(kept)
    }

    /// Where the sealed code of a component is, if it is kept.
    pub(super) fn path(&self, id: ComponentId) -> PathBuf {
        self.folder
            .join(format!("{}{}", id.digest().to_hex(), self.suffix()))
    }

    /// What the name of a file ends with that this engine can load.
    fn suffix(&self) -> String {
        let mut settings = self.seal.compatibility().to_hex();
        settings.truncate(16);
        format!("-{settings}.{EXTENSION}")
    }
}

/// All of a file, which was used just now.
fn read_and_touch(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(length)?;
    file.read_to_end(&mut bytes)?;
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let now = Timestamps {
        last_access: time(UTIME_OMIT),
        last_modification: time(UTIME_NOW),
    };
    // Somewhere nobody may: then the oldest files go first.
    let _ = futimens(&file, &now);
    Ok(bytes)
}

/// Removes what processes were writing that are gone: nobody holds the lock.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let unfinished = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes());
        if unfinished && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, unless another process was faster.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alga_model::{ContentHash, Secret};

    use super::*;

    fn cache(folder: &Path, key: u8) -> CodeCache {
        cache_of(folder, key, 1 << 20)
    }

    fn cache_of(folder: &Path, key: u8, budget: u64) -> CodeCache {
        let engine = wasmtime::Engine::default();
        let seal = Seal::new(Secret::new([key; 32]), &engine);
        CodeCache::open(folder.to_owned(), seal, budget).unwrap()
    }

    fn code(bytes: &[u8]) -> Code {
        Code::of_our_own(bytes.to_vec(), 0)
    }

    fn read(cache: &CodeCache, id: ComponentId) -> Option<Vec<u8>> {
        Some(cache.read(id)?.bytes().to_vec())
    }

    /// The one component of a bundle with these bytes.
    fn component(bytes: &[u8]) -> ComponentId {
        ComponentId::new(ContentHash::of(bytes), "dist/main.wasm")
    }

    /// Files of 32 + 68 bytes, last used in this order.
    fn filled(folder: &Path, bundles: &[ComponentId]) {
        let cache = cache(folder, 1);
        for (second, bundle) in (1..).zip(bundles) {
            cache.write(*bundle, &code(&[7; 68]));
            used_at(&cache.path(*bundle), second);
        }
    }

    fn used_at(path: &Path, second: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_was_written_comes_back_for_the_same_bundle_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (component(b"one"), component(b"other"));
        cache(folder.path(), 1).write(one, &code(b"code"));
        let came_back = read(&cache(folder.path(), 1), one);
        assert_eq!(came_back.as_deref(), Some(b"code".as_slice()));
        assert_eq!(read(&cache(folder.path(), 1), other), None);
        assert_eq!(read(&cache(folder.path(), 2), one), None);
        assert_eq!(
            read(&cache(folder.path(), 1), one),
            None,
            "what isn't genuine is removed"
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        let cache = cache(folder.path(), 1);
        for position in 0..Seal::BYTES + 4 {
            cache.write(bundle, &code(b"code"));
            let mut file = fs::read(cache.path(bundle)).unwrap();
            file[position] ^= 1;
            fs::write(cache.path(bundle), file).unwrap();
            assert_eq!(read(&cache, bundle), None, "byte {position}");
        }
    }

    #[test]
    fn code_of_another_bundle_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (component(b"one"), component(b"other"));
        let cache = cache(folder.path(), 1);
        cache.write(one, &code(b"code"));
        fs::rename(cache.path(one), cache.path(other)).unwrap();
        assert_eq!(read(&cache, other), None);
    }

    #[test]
    fn code_of_another_file_of_the_bundle_is_neither_found_nor_taken() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = ContentHash::of(b"bundle");
        let [debug, main] = ["dist/debug.wasm", "dist/main.wasm"];
        let [debug, main] = [debug, main].map(|entry| ComponentId::new(bundle, entry));
        let cache = cache(folder.path(), 1);
        cache.write(debug, &code(b"code"));
        assert_eq!(read(&cache, main), None);
        fs::rename(cache.path(debug), cache.path(main)).unwrap();
        assert_eq!(read(&cache, main), None);
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        let cache = cache(folder.path(), 1);
        for length in [0, 1, Seal::BYTES - 1, Seal::BYTES] {
            fs::write(cache.path(bundle), vec![0; length]).unwrap();
            assert_eq!(read(&cache, bundle), None, "{length} bytes");
        }
    }

    #[test]
    fn what_was_used_least_recently_makes_room() {
        let bundles = [b"a", b"b", b"c"].map(|name| component(name));
        for (budget, left) in [
            (300, [true, true, true]),
            (299, [true, false, true]),
            (100, [true, false, false]),
            (99, [false, false, false]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            filled(folder.path(), &bundles);
            // The first one is used again, so the second one is the oldest.
            cache(folder.path(), 1).read(bundles[0]).unwrap();
            let cache = cache_of(folder.path(), 1, budget);
            let there = bundles.map(|bundle| cache.path(bundle).exists());
            assert_eq!(there, left, "{budget} bytes");
        }
    }

    #[test]
    fn what_is_written_makes_room_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let bundles = [b"a", b"b"].map(|name| component(name));
        filled(folder.path(), &bundles);
        let (cache, new) = (cache_of(folder.path(), 1, 250), component(b"new"));
        cache.write(new, &code(&[7; 68]));
        assert_eq!(read(&cache, bundles[0]).map(|code| code.len()), None);
        assert_eq!(read(&cache, bundles[1]).map(|code| code.len()), Some(68));
        assert_eq!(read(&cache, new).map(|code| code.len()), Some(68));
    }

    #[test]
    fn what_another_engine_left_makes_room_first() {
        let folder = tempfile::tempdir().unwrap();
        let ours = component(b"ours");
        filled(folder.path(), &[ours]);
        let foreign = folder.path().join("ab-0123456789abcdef.cwasm");
        fs::write(&foreign, [7; 100]).unwrap();
        let unknown = folder.path().join("notes.txt");
        fs::write(&unknown, [7; 1000]).unwrap();
        cache_of(folder.path(), 1, 200);
        assert!(foreign.exists(), "it is within the budget");
        let cache = cache_of(folder.path(), 1, 199);
        assert!(!foreign.exists() && cache.path(ours).exists());
        assert!(unknown.exists(), "what isn't code is none of our business");
    }

    #[test]
    fn what_the_dead_left_unfinished_is_removed_and_work_of_the_living_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".tmpDead"), b"half").unwrap();
        let living = File::create(folder.path().join(".tmpLiving")).unwrap();
        living.lock().unwrap();
        cache(folder.path(), 1);
        assert_eq!(names(folder.path()), 1);
        drop(living);
        cache(folder.path(), 1);
        assert_eq!(names(folder.path()), 0);
    }

    #[test]
    fn a_folder_that_others_empty_meanwhile_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let bundles: Vec<_> = (0..64_u8).map(|name| component(&[name])).collect();
        let caches = [0, 150, 350].map(|budget| cache_of(folder.path(), 1, budget));
        std::thread::scope(|scope| {
            for cache in &caches {
                scope.spawn(|| {
                    for bundle in &bundles {
                        cache.try_write(*bundle, &[7; 68]).unwrap();
                        cache.trim().unwrap();
                        cache.read(*bundle);
                    }
                });
            }
        });
        caches[0].trim().unwrap();
        assert_eq!(names(folder.path()), 0);
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("code");
        cache(&folder, 1);
        assert_eq!(
            fs::metadata(folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
