//! Compiled code on disk.
//!
//! Compiled code is machine code: whoever can put a file here can run anything as this process. So
//! each file begins with an HMAC-SHA256 over what it is for and what it holds, under a key that
//! only this deployment has, and nothing is mapped or even parsed before it was checked. The bytes
//! that were checked are the bytes that are used, so nobody can change the file in between.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use alga_model::{ContentHash, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const TAG_BYTES: usize = 32;

/// A folder of compiled components, for one engine configuration.
#[derive(Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
    key: Secret<[u8; 32]>,
    /// Wasmtime's version, the engine's settings and the processor, as one digest.
    compatibility: ContentHash,
}

impl CodeCache {
    /// Uses `folder`, which is made for this user alone if it is missing.
    pub(super) fn open(
        folder: PathBuf,
        key: Secret<[u8; 32]>,
        engine: &wasmtime::Engine,
    ) -> io::Result<Self> {
        make_private(&folder)?;
        let mut compatibility = Sha256Hasher(Sha256::new());
        engine
            .precompile_compatibility_hash()
            .hash(&mut compatibility);
        let compatibility = ContentHash::from_digest(compatibility.0.finalize().into());
        Ok(Self {
            folder,
            key,
            compatibility,
        })
    }

    /// The compiled code of a bundle's component, if it is here and genuine. What isn't genuine is
    /// removed.
    pub(super) fn read(&self, bundle: ContentHash) -> Option<Vec<u8>> {
        let path = self.path(bundle);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%bundle, %error, "cannot read compiled code");
                return None;
            }
        };
        let genuine = file
            .split_at_checked(TAG_BYTES)
            .filter(|(tag, code)| self.authenticate(bundle, code).verify_slice(tag).is_ok())
            .map(|(_, code)| code.to_vec());
        if genuine.is_none() {
            metrics::counter!("alga_engine_code_cache_rejected_total").increment(1);
            tracing::error!(%bundle, "compiled code is not what was written; it is removed and compiled again");
            drop(fs::remove_file(&path));
        }
        genuine
    }

    /// Keeps compiled code. A failure costs the next start a compilation and nothing else.
    pub(super) fn write(&self, bundle: ContentHash, code: &[u8]) {
        if let Err(error) = self.try_write(bundle, code) {
            tracing::warn!(%bundle, %error, "cannot keep compiled code");
        }
    }

    fn try_write(&self, bundle: ContentHash, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&self.authenticate(bundle, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(self.path(bundle))?;
        Ok(())
    }

    fn path(&self, bundle: ContentHash) -> PathBuf {
        let mut settings = self.compatibility.to_hex();
        settings.truncate(16);
        self.folder
            .join(format!("{}-{settings}.cwasm", bundle.to_hex()))
    }

    fn authenticate(&self, bundle: ContentHash, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose())
            .expect("HMAC takes a key of any length");
        mac.update(bundle.as_bytes());
        mac.update(self.compatibility.as_bytes());
        mac.update(code);
        mac
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A `Hasher` whose result doesn't change from one release of Rust to the next.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, key: u8) -> CodeCache {
        let engine = wasmtime::Engine::default();
        CodeCache::open(folder.to_owned(), Secret::new([key; 32]), &engine).unwrap()
    }

    #[test]
    fn what_was_written_comes_back_for_the_same_bundle_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (ContentHash::of(b"one"), ContentHash::of(b"other"));
        cache(folder.path(), 1).write(one, b"code");
        assert_eq!(
            cache(folder.path(), 1).read(one).as_deref(),
            Some(b"code".as_slice())
        );
        assert_eq!(cache(folder.path(), 1).read(other), None);
        assert_eq!(cache(folder.path(), 2).read(one), None);
        assert_eq!(
            cache(folder.path(), 1).read(one),
            None,
            "what isn't genuine is removed"
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = ContentHash::of(b"bundle");
        let cache = cache(folder.path(), 1);
        for position in 0..TAG_BYTES + 4 {
            cache.write(bundle, b"code");
            let mut file = fs::read(cache.path(bundle)).unwrap();
            file[position] ^= 1;
            fs::write(cache.path(bundle), file).unwrap();
            assert_eq!(cache.read(bundle), None, "byte {position}");
        }
    }

    #[test]
    fn code_of_another_bundle_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (ContentHash::of(b"one"), ContentHash::of(b"other"));
        let cache = cache(folder.path(), 1);
        cache.write(one, b"code");
        fs::rename(cache.path(one), cache.path(other)).unwrap();
        assert_eq!(cache.read(other), None);
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = ContentHash::of(b"bundle");
        let cache = cache(folder.path(), 1);
        for length in [0, 1, TAG_BYTES - 1, TAG_BYTES] {
            fs::write(cache.path(bundle), vec![0; length]).unwrap();
            assert_eq!(cache.read(bundle), None, "{length} bytes");
        }
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
