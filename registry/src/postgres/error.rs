//! The one place that says what a failure of PostgreSQL means to the registry.

use alga_postgres::{DriverError, Failure, ListenError};

use crate::error::RegistryError;

/// Any failure inside this folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostgresError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Refused(#[from] RegistryError),
}

impl Failure for PostgresError {
    fn driver(&self) -> Option<&DriverError> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Refused(_) => None,
        }
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl From<PostgresError> for RegistryError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Driver(error) if error.is_passing() => Self::Unavailable {
                source: error.into(),
            },
            PostgresError::Driver(error) => Self::Internal {
                source: error.into(),
            },
            PostgresError::Refused(error) => error,
        }
    }
}

/// Whoever listens tries again, and what is changed is read in time without.
impl From<ListenError> for RegistryError {
    fn from(error: ListenError) -> Self {
        Self::Unavailable {
            source: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_is_unavailable_and_a_defect_is_internal() {
        let passing = RegistryError::from(PostgresError::Driver(DriverError::Closed));
        assert!(
            matches!(passing, RegistryError::Unavailable { .. }),
            "{passing:?}"
        );
        let defect = RegistryError::from(PostgresError::from(sqlx::Error::RowNotFound));
        assert!(
            matches!(defect, RegistryError::Internal { .. }),
            "{defect:?}"
        );
    }
}
