//! The one place that says what a failure of SQLite means to the registry.

use alga_sqlite::is_passing;

use crate::error::RegistryError;

/// Any failure inside this folder.
#[derive(Debug)]
pub(super) enum SqliteError {
    Driver(sqlx::Error),
    Refused(RegistryError),
}

impl From<SqliteError> for RegistryError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Driver(error) if is_passing(&error) => Self::Unavailable {
                source: error.into(),
            },
            SqliteError::Driver(error) => Self::Internal {
                source: error.into(),
            },
            SqliteError::Refused(error) => error,
        }
    }
}

impl From<sqlx::Error> for SqliteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<RegistryError> for SqliteError {
    fn from(error: RegistryError) -> Self {
        Self::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_is_unavailable_and_a_defect_is_internal() {
        let passing = RegistryError::from(SqliteError::from(sqlx::Error::PoolTimedOut));
        assert!(
            matches!(passing, RegistryError::Unavailable { .. }),
            "{passing:?}"
        );
        let defect = RegistryError::from(SqliteError::from(sqlx::Error::RowNotFound));
        assert!(
            matches!(defect, RegistryError::Internal { .. }),
            "{defect:?}"
        );
    }
}
