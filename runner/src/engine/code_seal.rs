//! What tells compiled code of this deployment from all other bytes.

use std::hash::{Hash, Hasher};

use alga_model::{ContentHash, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::code::Code;
use super::component_id::ComponentId;

/// An HMAC-SHA256 over what code is for and the code itself, under a key that only this deployment has.
///
/// Sealed code is the code behind its HMAC. Wherever it comes from, nothing of it is mapped or even
/// parsed before that was checked, and the bytes that were checked are the bytes that are used.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    key: Secret<[u8; 32]>,
    compatibility: ContentHash,
}

impl Seal {
    /// The bytes before the code.
    pub(super) const BYTES: usize = 32;

    /// The seal of code that `engine` can load.
    pub(super) fn new(key: Secret<[u8; 32]>, engine: &wasmtime::Engine) -> Self {
        let mut compatibility = Sha256Hasher(Sha256::new());
        engine
            .precompile_compatibility_hash()
            .hash(&mut compatibility);
        Self {
            key,
            compatibility: ContentHash::from_digest(compatibility.0.finalize().into()),
        }
    }

    /// Wasmtime's version, the engine's settings and the processor, as one digest.
    pub(super) const fn compatibility(&self) -> ContentHash {
        self.compatibility
    }

    /// What is to stand before the code of a component.
    pub(super) fn of(&self, id: ComponentId, code: &[u8]) -> [u8; Self::BYTES] {
        self.authenticate(id, code).finalize().into_bytes().into()
    }

    /// Sealed code of a component, if it is genuine.
    pub(super) fn open(&self, id: ComponentId, sealed: Vec<u8>) -> Option<Code> {
        let (tag, code) = sealed.split_at_checked(Self::BYTES)?;
        self.authenticate(id, code).verify_slice(tag).ok()?;
        Some(Code::of_our_own(sealed, Self::BYTES))
    }

    fn authenticate(&self, id: ComponentId, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose())
            .expect("HMAC takes a key of any length");
        mac.update(id.digest().as_bytes());
        mac.update(self.compatibility.as_bytes());
        mac.update(code);
        mac
    }
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
