//! Uploads whose parts come in calls of their own.

use super::{ObjectKey, StagingKey, StoreError};

/// The bytes of every part of an upload but the last: the fewest that S3 allows.
pub const PART_BYTES: usize = 5 << 20;
/// The most parts of an upload: what S3 allows.
const MAX_PARTS: u32 = 10_000;

/// An upload whose parts come in calls of their own, in whichever process: what must be remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartedUpload {
    /// What it becomes.
    pub key: StagingKey,
    /// What the store calls it: opaque, at most 1024 bytes.
    pub id: String,
}

impl PartedUpload {
    const MAX_ID_BYTES: usize = 1024;

    pub(super) fn object(&self) -> ObjectKey {
        self.key.into()
    }

    /// Whether a store may have given it this id.
    pub(super) fn has_id(&self) -> bool {
        (1..=Self::MAX_ID_BYTES).contains(&self.id.len())
            && self.id.bytes().all(|byte| byte.is_ascii_graphic())
    }

    pub(super) fn is_gone(&self) -> StoreError {
        StoreError::NotFound { key: self.object() }
    }

    /// A part is not the one that was told.
    pub(super) fn has_changed(&self) -> StoreError {
        StoreError::Changed { key: self.object() }
    }

    /// Refuses what can be no part.
    pub(super) fn check_part(&self, number: u32, bytes: usize) -> Result<(), StoreError> {
        let invalid = if !(1..=MAX_PARTS).contains(&number) {
            InvalidParts::Number { number }
        } else if !(1..=PART_BYTES).contains(&bytes) {
            InvalidParts::Length { bytes }
        } else {
            return Ok(());
        };
        Err(StoreError::failed(self.object(), invalid))
    }

    /// Refuses parts of these lengths, in order, that make no object of `size` bytes.
    pub(super) fn check_lengths(&self, lengths: &[u64], size: u64) -> Result<(), StoreError> {
        let key = self.object();
        let Some((_, full)) = lengths.split_last() else {
            return Err(StoreError::failed(key, InvalidParts::None));
        };
        let actual = lengths.iter().copied().fold(0, u64::saturating_add);
        if actual != size {
            return Err(StoreError::WrongSize {
                key,
                expected: size,
                actual,
            });
        }
        match full.iter().find(|bytes| **bytes != PART_BYTES as u64) {
            Some(bytes) => Err(StoreError::failed(
                key,
                InvalidParts::Short { bytes: *bytes },
            )),
            None => Ok(()),
        }
    }
}

/// Why parts are refused.
#[derive(Debug, thiserror::Error)]
enum InvalidParts {
    #[error("parts are numbered from 1 to {max}, and not {number}", max = MAX_PARTS)]
    Number { number: u32 },
    #[error("a part has 1 to {max} bytes, and not {bytes}", max = PART_BYTES)]
    Length { bytes: usize },
    #[error("every part but the last has {full} bytes, and not {bytes}", full = PART_BYTES)]
    Short { bytes: u64 },
    #[error("an upload is joined of at least one part")]
    None,
}
