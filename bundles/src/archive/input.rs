//! The bytes of a bundle on their way to zstd.

use std::io::{self, Read};

use alga_model::{ContentHash, ContentHasher};

use super::{ArchiveError, Progress};

/// Counts what is read, hashes it unless its hash is known, and remembers a failure of the source, which zstd would hand on
/// as if the data were at fault.
pub(super) struct Input<'a, R> {
    source: R,
    digest: Digest,
    size: u64,
    position: u64,
    failure: Option<io::Error>,
    progress: Option<&'a Progress<'a>>,
}

/// The hash of what is read.
enum Digest {
    Computed(ContentHasher),
    Known(ContentHash),
}

impl<'a, R: Read> Input<'a, R> {
    /// `known` is the hash that the whole has, where somebody vouches for it.
    pub(super) fn new(
        source: R,
        size: u64,
        known: Option<ContentHash>,
        progress: Option<&'a Progress<'a>>,
    ) -> Self {
        Self {
            source,
            digest: known.map_or_else(|| Digest::Computed(ContentHasher::new()), Digest::Known),
            size,
            position: 0,
            failure: None,
            progress,
        }
    }

    /// Reads whatever the walk left, so that the hash is that of the whole.
    pub(super) fn drain(&mut self) -> Result<(), ArchiveError> {
        let before = self.position;
        let mut buffer = vec![0; 64 << 10];
        while self
            .read(&mut buffer)
            .map_err(|error| ArchiveError::damaged(&error))?
            > 0
        {}
        if self.position != self.size {
            let (position, size) = (self.position, self.size);
            Err(ArchiveError::Damaged(format!(
                "it has {position} bytes instead of {size}"
            )))
        } else if self.position > before {
            Err(ArchiveError::Damaged(
                "there are bytes after the end of the zstd frame".to_owned(),
            ))
        } else {
            Ok(())
        }
    }

    /// What the source failed with, if it did.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// The hash of what was read.
    pub(super) fn into_hash(self) -> ContentHash {
        match self.digest {
            Digest::Computed(hasher) => hasher.finish(),
            Digest::Known(hash) => hash,
        }
    }
}

impl<R: Read> Read for Input<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // One byte more than announced is enough to know that there is more.
        let left = usize::try_from(self.size.saturating_add(1).saturating_sub(self.position))
            .unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let read = loop {
            match self.source.read(buffer.get_mut(..len).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(read) => break read,
            }
        };
        if let Digest::Computed(hasher) = &mut self.digest {
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        self.position += read as u64;
        if let Some(progress) = self.progress {
            progress(self.position.min(self.size));
        }
        Ok(read)
    }
}
