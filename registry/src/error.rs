//! What can go wrong, by what it means to the caller.

use std::error::Error;
use std::fmt;

use alga_model::{ContentHash, InstallId};

/// Why the registry did not do what it was asked.
///
/// A refused mutation has changed nothing and left no audit record. No message holds a config
/// value or a row's content.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Something the request names does not exist.
    #[error("cannot find {what}")]
    NotFound {
        /// What was looked for.
        what: Resource,
    },
    /// The extension's name belongs to another publisher, who registered its first version.
    #[error("cannot register under a name that belongs to publisher '{owner}'")]
    PublisherMismatch {
        /// The publisher the name belongs to.
        owner: String,
    },
    /// This version of the extension is registered with other content, or was before it was removed.
    #[error("cannot register the version again with other content than {registered}")]
    DuplicateVersion {
        /// The content it is, or was, registered with.
        registered: ContentHash,
    },
    /// This content is registered with another manifest, or as another version or extension.
    #[error("cannot register content again under another manifest")]
    ManifestConflict,
    /// The switches have a list of extensions, and this one is not on it.
    #[error("cannot install an extension that the switches leave out")]
    ExtensionNotAllowed,
    /// What is to be changed was changed since the caller saw it.
    #[error("cannot change generation {expected}, the present one is {actual}")]
    Conflict {
        /// The generation the caller expected.
        expected: u64,
        /// The generation it is at.
        actual: u64,
    },
    /// The install is uninstalled and can't be changed any more.
    #[error("cannot change an install that is uninstalled")]
    Uninstalled,
    /// The version is installed, or what an install would go back to.
    #[error("cannot remove a version that installs need")]
    VersionInUse {
        /// Those that need it, uninstalled ones among them; at most
        /// [`MAX_PAGE_ITEMS`](crate::MAX_PAGE_ITEMS).
        installs: Vec<InstallId>,
    },
    /// The install was never upgraded, or went back already.
    #[error("cannot go back to a former version where there is none")]
    NoFormerVersion,
    /// A value breaks a rule of the registry.
    #[error("{field} must be {rule}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The database cannot be reached, is busy or full; the same request may succeed later.
    #[error("cannot reach the registry's database")]
    Unavailable {
        /// What the database or the operating system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A stored value is not one the registry writes.
    #[error("cannot decode column {column} of {table} row {key}")]
    Inconsistency {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        key: String,
    },
    /// A defect of the registry or a damaged database.
    #[error("cannot complete the registry operation")]
    Internal {
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What a [`RegistryError::NotFound`] looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A version of an extension.
    Version,
    /// An install.
    Install,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the version",
            Self::Install => "the install",
        })
    }
}
