//! What a write asks for, in short: whoever repeats it asks for the same.

use sha2::{Digest as _, Sha256};

use super::Put;
use crate::contract::{DeleteRequest, Guard};

/// SHA-256 of everything a write says, cut to 16 bytes.
pub(crate) type WriteDigest = [u8; 16];

impl Put {
    pub(crate) fn digest(&self) -> WriteDigest {
        let mut said = Said::of("put", self.namespace.as_str());
        said.number([self.return_previous, self.return_current].map(u64::from));
        for item in &self.items {
            said.text(item.key.as_str());
            said.text(item.value.as_str());
            said.text(item.metadata.as_str());
            said.guard(item.guard);
            let ttl = item.ttl.map_or(0, |ttl| ttl.as_secs());
            said.number([ttl, item.schema_version.map_or(0, u64::from)]);
        }
        said.digest()
    }
}

impl DeleteRequest {
    pub(crate) fn digest(&self) -> WriteDigest {
        let mut said = Said::of("delete", self.namespace.as_str());
        said.text(self.key.as_str());
        said.guard(self.guard);
        said.digest()
    }
}

/// What has been said so far, each part with its length.
struct Said(Sha256);

impl Said {
    fn of(operation: &str, namespace: &str) -> Self {
        let mut said = Self(Sha256::new());
        said.text(operation);
        said.text(namespace);
        said
    }

    fn text(&mut self, text: &str) {
        self.number([text.len() as u64]);
        self.0.update(text);
    }

    fn number<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.0.update(number.to_be_bytes());
        }
    }

    fn guard(&mut self, guard: Guard) {
        self.number(match guard {
            Guard::Any => [0, 0],
            Guard::Absent => [1, 0],
            Guard::Exists => [2, 0],
            Guard::Exactly(revision) => [3, revision.get()],
        });
    }

    fn digest(self) -> WriteDigest {
        let mut digest = WriteDigest::default();
        for (to, from) in digest.iter_mut().zip(self.0.finalize()) {
            *to = from;
        }
        digest
    }
}
