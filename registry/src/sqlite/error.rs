//! The one place that says what a failure of SQLite means.

use std::io;

use sqlx::migrate::MigrateError;

use crate::error::RegistryError;

// Primary result codes, https://www.sqlite.org/rescode.html; the lowest byte of an extended one.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_NOMEM: i32 = 7;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;

/// Any failure inside this folder.
#[derive(Debug)]
pub(crate) enum SqliteError {
    Driver(sqlx::Error),
    Migration(MigrateError),
    File(io::Error),
    Refused(RegistryError),
}

impl From<SqliteError> for RegistryError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Driver(error) => from_driver(error),
            SqliteError::Migration(error) => from_migration(error),
            SqliteError::File(error) => Self::Unavailable {
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

impl From<MigrateError> for SqliteError {
    fn from(error: MigrateError) -> Self {
        Self::Migration(error)
    }
}

impl From<io::Error> for SqliteError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<RegistryError> for SqliteError {
    fn from(error: RegistryError) -> Self {
        Self::Refused(error)
    }
}

fn from_driver(error: sqlx::Error) -> RegistryError {
    let may_pass = match &error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    };
    if may_pass {
        RegistryError::Unavailable {
            source: error.into(),
        }
    } else {
        RegistryError::Internal {
            source: error.into(),
        }
    }
}

fn from_migration(error: MigrateError) -> RegistryError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            from_driver(error)
        }
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            RegistryError::SchemaDiverged { version }
        }
        error => RegistryError::Internal {
            source: error.into(),
        },
    }
}

/// Whether a result code tells of a state of the machine rather than of a defect.
fn is_passing(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|extended| {
        matches!(
            extended & 0xff,
            SQLITE_BUSY
                | SQLITE_LOCKED
                | SQLITE_NOMEM
                | SQLITE_READONLY
                | SQLITE_IOERR
                | SQLITE_FULL
                | SQLITE_CANTOPEN
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_passes_and_a_broken_statement_does_not() {
        const SQLITE_BUSY_SNAPSHOT: &str = "517";
        const SQLITE_CONSTRAINT_UNIQUE: &str = "2067";
        for code in ["5", SQLITE_BUSY_SNAPSHOT, "6", "8", "10", "13", "14"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["1", SQLITE_CONSTRAINT_UNIQUE, "11", "26", ""] {
            assert!(!is_passing(code), "{code}");
        }
    }

    #[test]
    fn a_pool_that_times_out_is_unavailable() {
        let error = RegistryError::from(SqliteError::from(sqlx::Error::PoolTimedOut));
        assert!(
            matches!(error, RegistryError::Unavailable { .. }),
            "{error:?}"
        );
    }
}
