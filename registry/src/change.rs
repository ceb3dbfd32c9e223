//! Who changes something, and when.

use alga_model::Timestamp;

use crate::bounds::ensure_plain_text;
use crate::error::RegistryError;

/// What the audit says of a mutation besides what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Who asked for it; 1 to 256 bytes without control characters.
    pub actor: &'a str,
    /// The request it was asked for in; 1 to 256 bytes without control characters.
    pub request_id: Option<&'a str>,
    /// When it happens. Becomes the time of whatever the mutation creates or updates.
    pub now: Timestamp,
}

impl Change<'_> {
    const MAX_BYTES: usize = 256;
    const RULE: &'static str = "1 to 256 bytes without control characters";

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        ensure_plain_text("actor", Self::RULE, self.actor, Self::MAX_BYTES)?;
        match self.request_id {
            Some(id) => ensure_plain_text("request id", Self::RULE, id, Self::MAX_BYTES),
            None => Ok(()),
        }
    }
}

/// Ensures that what is to be changed is at the generation the caller expects, if it expects one.
pub(crate) fn ensure_generation(actual: u64, expected: Option<u64>) -> Result<(), RegistryError> {
    match expected {
        Some(expected) if expected != actual => Err(RegistryError::Conflict { expected, actual }),
        Some(_) | None => Ok(()),
    }
}
