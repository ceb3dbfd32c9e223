//! What a failure of SQLite means.

use std::io;

use sqlx::migrate::MigrateError;

// Primary result codes, https://www.sqlite.org/rescode.html; the lowest byte of an extended one.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_NOMEM: i32 = 7;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_PROTOCOL: i32 = 15;

/// A database that could not be opened, migrated or used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// A statement failed.
    #[error("cannot run a statement on the {schema} database")]
    Statement {
        /// Whose database.
        schema: &'static str,
        /// How it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("cannot migrate the {schema} database")]
    Migration {
        /// Whose database.
        schema: &'static str,
        /// How it failed.
        #[source]
        source: MigrateError,
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
    /// A newer release has migrated the database.
    #[error(
        "the {schema} database has schema version {applied}, but this release knows none after {known}; \
         run a newer release, or revert the newer migrations with it"
    )]
    SchemaTooNew {
        /// Whose database.
        schema: &'static str,
        /// The newest version the database has.
        applied: i64,
        /// The newest version this release knows.
        known: i64,
    },
    /// A migration the database has is not the one this release has under that version.
    #[error(
        "cannot use a {schema} database whose migration {version} is not the one of this release"
    )]
    SchemaDiverged {
        /// Whose database.
        schema: &'static str,
        /// The migration's version.
        version: i64,
    },
    /// There is no migration of this version.
    #[error("the {schema} database has no migration {version}")]
    UnknownVersion {
        /// Whose database.
        schema: &'static str,
        /// The version asked for.
        version: i64,
    },
}

impl SqliteError {
    /// Whether the same might work a moment later, on the same machine and release.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Statement { source, .. } => is_passing(source),
            Self::Migration {
                source: MigrateError::Execute(error),
                ..
            }
            | Self::Migration {
                source: MigrateError::ExecuteMigration(error, _),
                ..
            } => is_passing(error),
            Self::File { .. } => true,
            Self::Migration { .. }
            | Self::SchemaTooNew { .. }
            | Self::SchemaDiverged { .. }
            | Self::UnknownVersion { .. } => false,
        }
    }
}

/// Whether a failure tells of a state of the machine (a lock, a full disk, a pool in use) rather
/// than of a defect.
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing_code(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn is_passing_code(code: &str) -> bool {
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
                | SQLITE_PROTOCOL
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
        for code in [
            "5",
            SQLITE_BUSY_SNAPSHOT,
            "6",
            "7",
            "8",
            "10",
            "13",
            "14",
            "15",
        ] {
            assert!(is_passing_code(code), "{code}");
        }
        for code in ["1", SQLITE_CONSTRAINT_UNIQUE, "11", "26", ""] {
            assert!(!is_passing_code(code), "{code}");
        }
        assert!(is_passing(&sqlx::Error::PoolTimedOut));
        assert!(!is_passing(&sqlx::Error::RowNotFound));
    }
}
