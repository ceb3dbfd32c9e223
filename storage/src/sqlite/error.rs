//! The one place that says what a failure of SQLite means to the contract.

use std::sync::Arc;

use alga_sqlite::DriverError;

use crate::error::{Cause, Error};

/// Any failure inside this folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqliteError {
    /// A statement failed, or there was no connection for it.
    #[error("cannot use the storage database")]
    Driver(#[from] DriverError),
    /// A write panicked.
    #[error("writing panicked")]
    Panic,
    /// A row holds what this crate would not have written.
    #[error("a row of {table} holds no valid {column}")]
    Inconsistency {
        table: &'static str,
        column: &'static str,
    },
}

impl SqliteError {
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Driver(error) => error.is_passing(),
            Self::Panic | Self::Inconsistency { .. } => false,
        }
    }

    /// The error of each write of a group that failed as one.
    pub(super) fn shared(this: &Arc<Self>) -> Error {
        let cause: Cause = Box::new(Arc::clone(this));
        if this.is_passing() {
            Error::Unavailable(cause)
        } else {
            Error::Internal(cause)
        }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl From<SqliteError> for Error {
    fn from(error: SqliteError) -> Self {
        if error.is_passing() {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error.into())
        }
    }
}
