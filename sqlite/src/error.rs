//! What a failure of SQLite means.

use std::io;
use std::time::Duration;

use alga_schema::SchemaError;
use rusqlite::ErrorCode;

/// A database that could not be opened or migrated.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// A statement failed.
    #[error("cannot run a statement on the {schema} database")]
    Statement {
        /// Whose database.
        schema: &'static str,
        /// How it failed.
        #[source]
        source: DriverError,
    },
    /// A migration failed.
    #[error("cannot apply or revert migration {version} of the {schema} database")]
    Migration {
        /// Whose database.
        schema: &'static str,
        /// The migration's version.
        version: i64,
        /// How it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The database's file could not be made or locked.
    #[error("cannot use the file of the {schema} database")]
    File {
        /// Whose database.
        schema: &'static str,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// The database is not one of this release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl SqliteError {
    /// Whether the same might work a moment later, on the same machine and release.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Statement { source, .. } => source.is_passing(),
            Self::Migration { source, .. } => is_passing(source),
            Self::File { .. } => true,
            Self::Schema(_) => false,
        }
    }
}

/// Why something could not be done with an open database.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] rusqlite::Error),
    /// A transaction could not be made durable. Whatever the reason, nothing of it happened as far as
    /// anybody may know, and the same may work a moment later.
    #[error("cannot commit")]
    Commit(#[source] rusqlite::Error),
    /// All connections were in use for too long.
    #[error("no connection to the database became free in {} ms", .0.as_millis())]
    NoConnection(Duration),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// What was to be done has panicked. Of a transaction, nothing was committed.
    #[error("the work on the database panicked")]
    Panicked,
}

impl DriverError {
    /// Whether it tells of a state of the machine (a lock, a full disk, connections in use) rather
    /// than of a defect.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Statement(error) => is_passing(error),
            Self::Commit(_) | Self::NoConnection(_) | Self::Closed => true,
            Self::Panicked => false,
        }
    }
}

fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_passes_and_a_broken_statement_does_not() {
        // Result codes, https://www.sqlite.org/rescode.html, some of them extended.
        const BUSY_SNAPSHOT: i32 = 517;
        const CONSTRAINT_UNIQUE: i32 = 2067;
        let failure = |code| {
            let error = rusqlite::ffi::Error::new(code);
            DriverError::from(rusqlite::Error::SqliteFailure(error, None))
        };
        for code in [5, BUSY_SNAPSHOT, 6, 7, 8, 10, 13, 14, 15] {
            assert!(failure(code).is_passing(), "{code}");
        }
        for code in [1, CONSTRAINT_UNIQUE, 11, 26] {
            assert!(!failure(code).is_passing(), "{code}");
        }
        assert!(DriverError::NoConnection(Duration::ZERO).is_passing());
        assert!(!DriverError::from(rusqlite::Error::QueryReturnedNoRows).is_passing());
    }
}
