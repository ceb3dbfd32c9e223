//! The master key, and the keys for single uses that are derived from it.

use std::path::{Path, PathBuf};

use alga_model::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};

use crate::config::secret_file::{random, read_or_create};
use crate::config::{KeysConfig, SecretFileError, parse_key};

/// What a derived key is for. Keys for different uses have nothing to do with each other, nor with
/// the master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// Authenticates the cursors of lists.
    Cursor,
    /// Authenticates compiled code on disk.
    CodeCache,
}

impl KeyUse {
    /// What goes into the derivation. A label never changes: all products of its key would go
    /// stale.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Cursor => b"alga-runner cursor v1",
            Self::CodeCache => b"alga-runner code-cache v1",
        }
    }
}

/// The derivation behind the id of a key, which tells nothing about the key.
const ID_LABEL: &[u8] = b"alga-runner key-id v1";

/// The key that all others are derived from, and the one before it while its products are still
/// accepted.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    current: MasterKey,
    former: Option<MasterKey>,
}

/// A key that others are derived from.
#[derive(Debug, Clone)]
pub struct MasterKey {
    id: String,
    key: Secret<[u8; 32]>,
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file can't be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Its file holds something else.
    #[error(
        "cannot use the master key in {}: it must be 32 bytes in base64 or hexadecimal digits",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The current key and the former one are the same, so nothing was rotated.
    #[error("cannot use the same master key as the current and the former one")]
    NotRotated,
}

impl MasterKeys {
    /// The configured keys; without a current one, that in the file `embedded`, which is made
    /// if it is missing.
    pub fn open(config: &KeysConfig, embedded: &Path) -> Result<Self, KeyError> {
        let current = match config.current() {
            Some(key) => key.clone(),
            None => open_embedded(embedded)?,
        };
        let former = config.former();
        if former.is_some_and(|former| former.expose() == current.expose()) {
            return Err(KeyError::NotRotated);
        }
        Ok(Self {
            current: MasterKey::new(current),
            former: former.cloned().map(MasterKey::new),
        })
    }

    /// The key that new things are made with.
    pub const fn current(&self) -> &MasterKey {
        &self.current
    }

    /// The key whose products are still accepted.
    pub const fn former(&self) -> Option<&MasterKey> {
        self.former.as_ref()
    }
}

impl MasterKey {
    fn new(key: Secret<[u8; 32]>) -> Self {
        let digest = Sha256::digest(expand(&key, ID_LABEL).expose());
        let [a, b, c, d, ..]: [u8; 32] = digest.into();
        let id = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
        Self { id, key }
    }

    /// Eight hexadecimal digits that tell this key from others, for logs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key for one use: HKDF-SHA256 (RFC 5869) without salt.
    pub fn derive(&self, key_use: KeyUse) -> Secret<[u8; 32]> {
        expand(&self.key, key_use.label())
    }
}

fn expand(key: &Secret<[u8; 32]>, label: &[u8]) -> Secret<[u8; 32]> {
    let mut derived = [0; 32];
    Hkdf::<Sha256>::new(None, key.expose())
        .expand(label, &mut derived)
        .expect("HKDF-SHA256 gives up to 8160 bytes");
    Secret::new(derived)
}

fn open_embedded(path: &Path) -> Result<Secret<[u8; 32]>, KeyError> {
    let text = read_or_create(path, || {
        Ok(Secret::new(STANDARD.encode(random()?.expose()) + "\n"))
    })?;
    parse_key(text.expose()).ok_or_else(|| KeyError::Malformed { path: path.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::new(Secret::new([byte; 32]))
    }

    fn embedded(path: &Path) -> Result<MasterKeys, KeyError> {
        MasterKeys::open(&KeysConfig::default(), path)
    }

    #[test]
    fn the_derivation_is_that_of_rfc_5869() {
        // Appendix A.3: SHA-256, no salt, no info; the key of 22 bytes doesn't fit our type.
        let mut derived = [0; 42];
        Hkdf::<Sha256>::new(None, &[0x0b; 22])
            .expand(&[], &mut derived)
            .unwrap();
        assert_eq!(
            derived[..8],
            [0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f]
        );
    }

    #[test]
    fn each_use_and_each_master_key_has_a_key_of_its_own() {
        let derived = [
            *master(1).derive(KeyUse::Cursor).expose(),
            *master(1).derive(KeyUse::CodeCache).expose(),
            *master(2).derive(KeyUse::Cursor).expose(),
            [1; 32],
        ];
        let distinct: std::collections::BTreeSet<_> = derived.iter().collect();
        assert_eq!(distinct.len(), derived.len());
    }

    #[test]
    fn the_id_of_a_key_is_stable_and_not_part_of_the_key() {
        assert_eq!(master(1).id(), master(1).id());
        assert_ne!(master(1).id(), master(2).id());
        assert_eq!(master(1).id().len(), 8);
        assert_ne!(master(1).id(), "01010101");
    }

    #[test]
    fn the_embedded_key_is_made_once_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let first = embedded(&path).unwrap();
        let second = embedded(&path).unwrap();
        assert_eq!(first.current().id(), second.current().id());
        assert!(first.former().is_none());
        let other = embedded(&folder.path().join("other.key")).unwrap();
        assert_ne!(first.current().id(), other.current().id());
    }

    #[test]
    fn a_damaged_key_stops_the_start_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        embedded(&path).unwrap();
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(embedded(&path), Err(KeyError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a key");
    }

    #[test]
    fn a_configured_key_wins_over_the_embedded_one_which_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let config = KeysConfig {
            master_key: Some(Secret::new([1; 32])),
            former_master_key: Some(Secret::new([2; 32])),
            ..KeysConfig::default()
        };
        let keys = MasterKeys::open(&config, &path).unwrap();
        assert_eq!(keys.current().id(), master(1).id());
        assert_eq!(keys.former().unwrap().id(), master(2).id());
        assert!(!path.exists());
    }

    #[test]
    fn the_former_key_must_be_another_one() {
        let config = KeysConfig {
            master_key: Some(Secret::new([1; 32])),
            former_master_key: Some(Secret::new([1; 32])),
            ..KeysConfig::default()
        };
        let keys = MasterKeys::open(&config, Path::new("unused"));
        assert!(matches!(keys, Err(KeyError::NotRotated)));
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let shown = format!("{:?}", master(1));
        assert!(shown.contains("***") && !shown.contains("[1, 1"), "{shown}");
    }
}
