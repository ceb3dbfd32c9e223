//! The one place that says what a failure of SQLite means to the registry.

use alga_sqlite::DriverError;

use crate::error::RegistryError;

/// Any failure inside this folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqliteError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Refused(#[from] RegistryError),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl From<SqliteError> for RegistryError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Driver(error) if error.is_passing() => Self::Unavailable {
                source: error.into(),
            },
            SqliteError::Driver(error) => Self::Internal {
                source: error.into(),
            },
            SqliteError::Refused(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_is_unavailable_and_a_defect_is_internal() {
        let passing = RegistryError::from(SqliteError::from(DriverError::Closed));
        assert!(
            matches!(passing, RegistryError::Unavailable { .. }),
            "{passing:?}"
        );
        let defect = rusqlite::Error::QueryReturnedNoRows;
        let defect = RegistryError::from(SqliteError::from(defect));
        assert!(
            matches!(defect, RegistryError::Internal { .. }),
            "{defect:?}"
        );
    }
}
