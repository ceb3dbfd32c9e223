//! Where the files of a bundle go.

use std::io;

use super::{ArchiveError, Rejection};
use crate::path::BundlePath;

/// Takes the entries of a bundle in their order, each after its name, kind and size were checked.
pub trait Sink {
    /// A folder. Not every folder is announced: a file's name may imply more.
    fn folder(&mut self, path: &BundlePath) -> Result<(), SinkError>;

    /// A file begins; its `size` bytes follow as [`Sink::data`], then one [`Sink::end`].
    fn file(&mut self, path: &BundlePath, size: u64) -> Result<(), SinkError>;

    /// The next bytes of the file.
    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError>;

    /// The file is complete.
    fn end(&mut self) -> Result<(), SinkError>;
}

/// Why a sink stops a walk.
#[derive(Debug)]
pub enum SinkError {
    /// The entry breaks a rule that only the sink knows.
    Rejected(Rejection),
    /// It could not be written.
    Io(io::Error),
}

impl SinkError {
    pub(super) fn at(self, path: &BundlePath) -> ArchiveError {
        match self {
            Self::Rejected(reason) => ArchiveError::rejected(path.as_str().as_bytes(), reason),
            Self::Io(source) => ArchiveError::Write {
                path: path.to_string(),
                source,
            },
        }
    }
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
