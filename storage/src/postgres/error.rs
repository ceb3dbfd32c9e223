//! The one place that says what a failure of PostgreSQL means to the contract.

use alga_postgres::{DriverError, Failure};

use crate::contract::OperationId;
use crate::error::{BulkError, Error};

/// Any failure inside this folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostgresError {
    /// A statement failed, or there was no connection for it.
    #[error("cannot use the storage database")]
    Driver(#[from] DriverError),
    /// A row holds what this crate would not have written.
    #[error("a row of {table} holds no valid {column}")]
    Inconsistency {
        table: &'static str,
        column: &'static str,
    },
    /// A function answered what it never does.
    #[error("a function of the storage database answered {0:?}")]
    Nonsense(String),
}

impl PostgresError {
    /// Whether a write was known by an id that another one has had.
    fn is_taken_id(&self) -> bool {
        // On Citus the constraints of shards have names of their own, which begin like this.
        const KEY: &str = "ext_storage_idempotency_pkey";
        let Self::Driver(DriverError::Statement(sqlx::Error::Database(error))) = self else {
            return false;
        };
        error.constraint().is_some_and(|name| name.starts_with(KEY))
    }

    fn is_passing(&self) -> bool {
        self.driver().is_some_and(DriverError::is_passing)
    }
}

impl Failure for PostgresError {
    fn driver(&self) -> Option<&DriverError> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Inconsistency { .. } | Self::Nonsense(_) => None,
        }
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl From<PostgresError> for Error {
    fn from(error: PostgresError) -> Self {
        if error.is_taken_id() {
            OperationId::taken()
        } else if error.is_passing() {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error.into())
        }
    }
}

impl From<PostgresError> for BulkError {
    fn from(error: PostgresError) -> Self {
        Error::from(error).into()
    }
}
