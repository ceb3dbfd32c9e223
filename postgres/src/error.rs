//! What a failure of PostgreSQL means.

use std::borrow::Cow;
use std::time::Duration;

use alga_schema::SchemaError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

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
    Statement(sqlx::Error),
    /// The certificate of the server is of a version that is not taken, whatever is checked of it.
    #[error(
        "the certificate of the server is one of X.509 version 1, which TLS is not done with here; give the server one of version 3, or, on a network that is trusted, say sslmode=disable in the URL"
    )]
    OldCertificate(#[source] sqlx::Error),
    /// The server lets nobody in like this: not to that database, or not as that user.
    #[error("{}; {advice}", said(.error))]
    Unwelcome {
        /// What the server said, with a line of its own source that would be taken for one of a file.
        error: sqlx::Error,
        /// What to do.
        advice: &'static str,
    },
    /// All connections were in use for too long, or none could be made in that time.
    #[error("there was no connection to the database in {} ms", .0.as_millis())]
    NoConnection(Duration),
    /// The database said nothing, not even that it has given up.
    #[error("the database did not answer in {} ms", .0.as_millis())]
    NoAnswer(Duration),
    /// A statement that was prepared is not there any more, or another one is.
    #[error("a pooler does not keep prepared statements; turn database.prepared_statements off")]
    NotPrepared(#[source] sqlx::Error),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

/// A failure that may have come from a database.
pub trait Failure: From<DriverError> {
    /// What the database, or the way there, failed with; none where it was something else.
    fn driver(&self) -> Option<&DriverError>;
}

impl Failure for DriverError {
    fn driver(&self) -> Option<&Self> {
        Some(self)
    }
}

impl From<sqlx::Error> for DriverError {
    fn from(error: sqlx::Error) -> Self {
        const UNKNOWN_OR_ANOTHER: [&str; 2] = ["26000", "42P05"];
        const NO_SUCH_DATABASE: &str = "3D000";
        const NOT_AUTHORIZED: &str = "28";
        let state = state(&error).map(Cow::into_owned).unwrap_or_default();
        if UNKNOWN_OR_ANOTHER.contains(&&*state) {
            Self::NotPrepared(error)
        } else if state == NO_SUCH_DATABASE {
            let advice = "make it first, with `createdb` for instance";
            Self::Unwelcome { error, advice }
        } else if state.starts_with(NOT_AUTHORIZED) {
            let advice = "see whether user and password of the URL are right";
            Self::Unwelcome { error, advice }
        } else if is_old_certificate(&error) {
            Self::OldCertificate(error)
        } else {
            Self::Statement(error)
        }
    }
}

impl DriverError {
    /// Whether it tells of a state (the database is gone, full, busy or being replaced) rather than of a
    /// defect.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::NoAnswer(_) | Self::Closed => true,
            Self::NotPrepared(_) | Self::OldCertificate(_) | Self::Unwelcome { .. } => false,
            Self::Statement(error) => match error {
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
                error => state(error).is_some_and(|state| is_passing(&state)),
            },
        }
    }

    /// Whether the connection is gone, or not worth keeping.
    pub(crate) fn is_loss(&self) -> bool {
        const ENDED: [&str; 5] = [
            "08",    // connection exception
            "25006", // a standby by now: the name may lead to another server since
            "57P01", // ended by an administrator
            "57P02", // ended as another session had crashed
            "57P05", // ended as it was idle
        ];
        match self {
            Self::Statement(sqlx::Error::Io(_)) => true,
            _ if self.is_of_a_node() => false,
            Self::Statement(error) => {
                state(error).is_some_and(|state| ENDED.iter().any(|ended| state.starts_with(ended)))
            }
            _ => false,
        }
    }

    /// Whether what is gone is not the connection to the server but one of its own to a node behind it, as on
    /// Citus: the server says so and goes on with the session. What poolers say of themselves is `08P01`.
    pub(crate) fn is_of_a_node(&self) -> bool {
        const LOST: [&str; 3] = [
            "08000", // connection exception
            "08001", // could not connect
            "08006", // connection failure
        ];
        let Self::Statement(error) = self else {
            return false;
        };
        let told = error.as_database_error();
        let told = told.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        told.is_some_and(|error| {
            error.severity() == PgSeverity::Error && LOST.contains(&error.code())
        })
    }

    /// Whether the database has undone what it was told to do, and would do it if it were told again.
    pub(crate) fn is_rollback(&self) -> bool {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK: &str = "40P01";
        let Self::Statement(error) = self else {
            return false;
        };
        matches!(
            state(error).as_deref(),
            Some(SERIALIZATION_FAILURE | DEADLOCK)
        )
    }
}

/// Whether a handshake ended because of the version of the server's certificate. There is no telling but by the name
/// that the library of TLS has for it.
fn is_old_certificate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_))
        && error.to_string().contains("UnsupportedCertVersion")
}

/// The words of the database alone.
fn said(error: &sqlx::Error) -> String {
    let database = error.as_database_error();
    database.map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// By which the database says what happened.
fn state(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// Goes by the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_passing(state: &str) -> bool {
    const CLASSES: [&str; 5] = [
        "08",    // connection exception
        "25006", // read-only: a standby, or a full disk
        "40",    // rolled back: deadlock, serialization
        "53",    // out of disk, memory or connections
        "57",    // canceled, shut down, starting
    ];
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    state == LOCK_NOT_AVAILABLE || CLASSES.iter().any(|class| state.starts_with(class))
}
