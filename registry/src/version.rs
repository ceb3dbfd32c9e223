//! Versions: what was published under an extension's name.

use alga_model::{ContentHash, ExtensionName, Timestamp, parse_json};
use uuid::Uuid;

use crate::bounds::{ensure, ensure_plain_text};
use crate::error::RegistryError;
use crate::extension::Extension;

/// A published version of an extension. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Identifies the version for ever.
    pub id: Uuid,
    /// The extension it is a version of.
    pub extension_id: Uuid,
    /// The version, as semver text.
    pub version: String,
    /// The bundle it consists of; no other version consists of the same one.
    pub content_hash: ContentHash,
    /// The manifest it was registered with, as the JSON text given.
    pub manifest: String,
    /// The size of the bundle in bytes.
    pub size: u64,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl Version {
    /// The version without its manifest.
    pub fn summary(&self) -> VersionSummary {
        VersionSummary {
            id: self.id,
            extension_id: self.extension_id,
            version: self.version.clone(),
            content_hash: self.content_hash,
            size: self.size,
            created_at: self.created_at,
        }
    }

    /// Ensures that `new`, which has this version's name and number, is this version.
    pub(crate) fn ensure_same_as(&self, new: &NewVersion) -> Result<(), RegistryError> {
        if self.content_hash != new.content_hash {
            return Err(RegistryError::DuplicateVersion {
                registered: self.content_hash,
            });
        }
        if self.manifest != new.manifest {
            return Err(RegistryError::ManifestConflict);
        }
        Ok(())
    }
}

/// A version without its manifest, as lists have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    /// Identifies the version for ever.
    pub id: Uuid,
    /// The extension it is a version of.
    pub extension_id: Uuid,
    /// The version, as semver text.
    pub version: String,
    /// The bundle it consists of.
    pub content_hash: ContentHash,
    /// The size of the bundle in bytes.
    pub size: u64,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A version to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVersion {
    /// The extension's name.
    pub name: ExtensionName,
    /// Who publishes it; 1 to 512 bytes without control characters.
    pub publisher: String,
    /// The version, semver text of at most 128 bytes.
    pub version: String,
    /// The bundle.
    pub content_hash: ContentHash,
    /// The manifest, the text of a JSON object of at most 256 KiB.
    pub manifest: String,
    /// The size of the bundle in bytes.
    pub size: u64,
}

impl NewVersion {
    const MAX_PUBLISHER_BYTES: usize = 512;
    const MAX_VERSION_BYTES: usize = 128;
    const MAX_MANIFEST_BYTES: usize = 256 * 1024;

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        ensure_plain_text(
            "publisher",
            "1 to 512 bytes without control characters",
            &self.publisher,
            Self::MAX_PUBLISHER_BYTES,
        )?;
        let is_semver = self.version.len() <= Self::MAX_VERSION_BYTES
            && semver::Version::parse(&self.version).is_ok();
        ensure(is_semver, "version", "semver of at most 128 bytes")?;
        let is_object = self.manifest.len() <= Self::MAX_MANIFEST_BYTES
            && parse_json(self.manifest.as_bytes()).is_ok_and(|(value, _)| value.is_object());
        ensure(is_object, "manifest", "a JSON object of at most 256 KiB")?;
        ensure(i64::try_from(self.size).is_ok(), "size", "less than 2^63")
    }

    pub(crate) fn ensure_publisher_of(&self, extension: &Extension) -> Result<(), RegistryError> {
        if self.publisher == extension.publisher {
            Ok(())
        } else {
            Err(RegistryError::PublisherMismatch {
                owner: extension.publisher.clone(),
            })
        }
    }
}

/// What a version can be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionKey {
    /// Its id.
    Id(Uuid),
    /// The bundle it consists of.
    Content(ContentHash),
    /// The extension's name and the version's text.
    Named {
        /// The extension's name.
        name: ExtensionName,
        /// The version's text.
        version: String,
    },
}

/// The outcome of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The extension.
    pub extension: Extension,
    /// The version.
    pub version: Version,
    /// Whether this registration made the version; `false` when it was there already.
    pub created: bool,
}
