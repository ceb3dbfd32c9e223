//! Why a bundle is not taken.

use std::io;

use alga_model::ContentHash;

use crate::path::BundlePathError;

/// A bundle that could not be walked to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are no whole zstd frame around a whole tar archive.
    #[error("the bundle is damaged: {0}")]
    Damaged(String),
    /// The bytes are something else than a zstd frame.
    #[error("the bundle is not a zstd file; make it with `alga-runner bundle pack`")]
    NotZstd,
    /// An entry breaks a rule.
    #[error("the entry {entry:?} is refused: {reason}")]
    Rejected {
        /// The name of the entry as far as it can be shown.
        entry: String,
        /// The rule.
        reason: Rejection,
    },
    /// The bundle itself is too large.
    #[error("the bundle has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What it has.
        size: u64,
        /// What it may have.
        limit: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the bundle is {actual}, not {expected}")]
    HashMismatch {
        /// What was announced.
        expected: ContentHash,
        /// What the bytes have.
        actual: ContentHash,
    },
    /// The source of the bytes failed; says nothing about the bundle.
    #[error("cannot read the bundle")]
    Read(#[source] io::Error),
    /// The files could not be written; says nothing about the bundle.
    #[error("cannot write {path}")]
    Write {
        /// The entry that was to be written.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// A rule of bundles that an entry breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is no path inside the bundle.
    #[error(transparent)]
    Name(BundlePathError),
    /// The name is not UTF-8.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// Neither a regular file nor a folder.
    #[error("it is {0}, only regular files and folders are allowed")]
    Kind(&'static str),
    /// A folder that claims to have bytes of its own.
    #[error("it is a folder with content")]
    FolderWithContent,
    /// The name was there before.
    #[error("the archive has this name twice")]
    Duplicate,
    /// One of the folders in its name is a file.
    #[error("{0:?} is a file and cannot hold it")]
    InsideFile(String),
    /// Extension records give it more than one name.
    #[error("it is given more than one name")]
    TwoNames,
    /// The header and an extension record disagree.
    #[error("its header says {header} bytes and its extension record {pax}")]
    TwoSizes {
        /// The header's size.
        header: u64,
        /// The extension record's.
        pax: String,
    },
    /// An extension record that is not allowed.
    #[error("its extension record {0:?} is not allowed")]
    Extension(String),
    /// Extension records with more bytes than anybody needs.
    #[error("its extension records have more than {limit} bytes")]
    ExtensionTooLarge {
        /// What they may have.
        limit: u64,
    },
    /// There are too many files and folders.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// How many there may be.
        limit: usize,
    },
    /// With it the archive unpacks to too much.
    #[error("the archive unpacks to more than {limit} bytes")]
    UnpackedTooLarge {
        /// What it may unpack to.
        limit: u64,
    },
    /// With it the archive unpacks to too much for its size.
    #[error("the archive unpacks to more than {limit} times its size")]
    Ratio {
        /// How many times its size it may unpack to.
        limit: u64,
    },
    /// The manifest is too large to be read.
    #[error("a manifest must be at most {limit} bytes")]
    ManifestTooLarge {
        /// What it may have.
        limit: u64,
    },
    /// The component is too large to be compiled.
    #[error("a component must be at most {limit} bytes")]
    ComponentTooLarge {
        /// What it may have.
        limit: u64,
    },
}

impl ArchiveError {
    pub(super) fn damaged(error: &io::Error) -> Self {
        Self::Damaged(error.to_string())
    }

    pub(super) fn rejected(name: &[u8], reason: Rejection) -> Self {
        /// Enough to recognise a name by; it may be as long as an extension record.
        const MAX_SHOWN: usize = 512;
        let shown = name.get(..MAX_SHOWN).unwrap_or(name);
        Self::Rejected {
            entry: String::from_utf8_lossy(shown).into_owned(),
            reason,
        }
    }
}
