//! What tells one component from another.

use alga_model::{ContentHash, ContentHasher};

/// A file of a bundle that is run, or was to be run.
///
/// The hash of the bundle alone does not tell which file that is: a bundle may hold several components, and
/// where it has no manifest, one from outside names the file. So whatever is known or kept of a component is
/// known and kept under this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComponentId {
    bundle: ContentHash,
    digest: ContentHash,
}

impl ComponentId {
    /// The file `entry` of a bundle.
    pub fn new(bundle: ContentHash, entry: &str) -> Self {
        let mut hasher = ContentHasher::new();
        hasher.update(bundle.as_bytes());
        hasher.update(entry.as_bytes());
        Self {
            bundle,
            digest: hasher.finish(),
        }
    }

    /// A component that is in no bundle, by the hash of its own bytes.
    pub fn alone(component: ContentHash) -> Self {
        Self::new(component, "")
    }

    /// The bundle that it is in.
    pub const fn bundle(self) -> ContentHash {
        self.bundle
    }

    /// One digest of the bundle and the file.
    pub(super) const fn digest(self) -> ContentHash {
        self.digest
    }
}
