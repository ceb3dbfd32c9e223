//! What a write is known by where it may have to be repeated.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, Violation};

/// What one write is known by, so that it is done once however often it is sent: whoever repeats it
/// because its answer was lost gets the answer to the first one. Remembered for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// How long an answer is remembered.
    pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    /// How long one is that holds a value, which no quota counts: far longer than anybody repeats.
    pub const RETENTION_OF_VALUES: Duration = Duration::from_secs(10 * 60);

    /// A new one.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads a UUID.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] where it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let id = Uuid::try_parse(text);
        id.map(Self)
            .map_err(|_| Violation::argument(Self::ARGUMENT, "an operation id is a UUID"))
    }

    pub(crate) const ARGUMENT: &'static str = "operationId";

    pub(crate) const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// The refusal of an id that another write has had.
    pub(crate) fn taken() -> Error {
        Violation::argument(Self::ARGUMENT, "another write was known by this id")
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
