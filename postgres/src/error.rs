//! What a failure of PostgreSQL means.

use std::time::Duration;

use alga_schema::SchemaError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use crate::options::InvalidUrl;

/// A database that could not be opened or migrated.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The database can't be reached, or a statement failed.
    #[error("cannot use the {schema} database")]
    Driver {
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
        source: MigrateError,
    },
    /// The database is not one of this release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Why something could not be done with a database.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The database can't be reached, or a statement failed.
    #[error(transparent)]
    Statement(#[from] sqlx::Error),
    /// All connections were in use for too long, or none could be made in that time.
    #[error("there was no connection to the database in {} ms", .0.as_millis())]
    NoConnection(Duration),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

impl DriverError {
    /// Whether it tells of a state (the database is gone, full, busy or being replaced) rather than of a
    /// defect.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Closed => true,
            Self::Statement(error) => match error {
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
                sqlx::Error::Database(error) => is_passing(&**error),
                _ => false,
            },
        }
    }
}

/// Goes by the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_passing(error: &dyn DatabaseError) -> bool {
    const STATES: [&str; 5] = [
        "08",    // connection exception
        "25006", // read-only: a standby, or a full disk
        "40",    // rolled back: deadlock, serialization
        "53",    // out of disk, memory or connections
        "57",    // canceled, shut down, starting
    ];
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    error.code().is_some_and(|code| {
        code == LOCK_NOT_AVAILABLE || STATES.iter().any(|state| code.starts_with(state))
    })
}
