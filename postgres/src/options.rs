//! Where a database is and how it is used.

use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use alga_model::Secret;
use sqlx::postgres::PgConnectOptions;

use crate::pool::Pool;

/// Statements that a connection keeps prepared; there are a few dozen.
const PREPARED: usize = 128;
/// How long an answer may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Where a database is and how it is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where requests go: `postgres://user:password@host:port/database?sslmode=verify-full`, perhaps to a
    /// pooler in transaction mode.
    pub url: Secret<String>,
    /// Where migrations and notifications go, which need sessions; `url` when absent.
    pub direct_url: Option<Secret<String>>,
    /// Connections at once; 16 by default.
    pub max_connections: NonZeroU32,
    /// How long an operation waits for a connection; 5 s by default.
    pub acquire_timeout: Duration,
    /// How long the server lets a statement run, wait for a lock, and a transaction wait for its next
    /// statement; 10 s by default. A pooler takes no such setting: behind one, set them for the role. A
    /// server that says nothing for a little longer is given up.
    pub statement_timeout: Duration,
    /// Whether statements stay prepared, as they do by default. A pooler in transaction mode that
    /// doesn't know them (`PgBouncer` before 1.21) needs this off; each statement then takes four
    /// round trips instead of one.
    pub prepared_statements: bool,
    /// Whether opening brings the schema up to date, as it does by default. Without, a database
    /// that is behind opens but can't be used; that is for the commands that migrate.
    pub migrate_on_open: bool,
}

/// A text that is not the URL of a PostgreSQL database.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the URL of the database; expected postgres://user:password@host:port/database"
)]
pub struct InvalidUrl(#[source] sqlx::Error);

impl Options {
    /// The database at `url`, used as by default.
    pub const fn at(url: Secret<String>) -> Self {
        Self {
            url,
            direct_url: None,
            max_connections: NonZeroU32::MIN.saturating_add(15),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            prepared_statements: true,
            migrate_on_open: true,
        }
    }

    /// Fails unless the URLs are some.
    pub fn check(&self) -> Result<(), InvalidUrl> {
        parsed(&self.url)?;
        self.direct()?;
        Ok(())
    }

    /// Connects when it is first used.
    pub(crate) fn pool(&self) -> Result<Pool, InvalidUrl> {
        let options = parsed(&self.url)?;
        let options = if self.prepared_statements {
            self.limited(options).statement_cache_capacity(PREPARED)
        } else {
            // Neither does such a pooler take settings of a session.
            options.statement_cache_capacity(0).extra_float_digits(None)
        };
        Ok(Pool::new(options, self))
    }

    /// For one session. Its statements may take as long as they do.
    pub(crate) fn direct(&self) -> Result<PgConnectOptions, InvalidUrl> {
        let direct = parsed(self.direct_url.as_ref().unwrap_or(&self.url))?;
        Ok(if self.is_never_direct() {
            direct
        } else {
            // Also where the role is given less.
            direct.options([("statement_timeout", "0"), ("lock_timeout", "0")])
        })
    }

    /// Whether sessions go through a pooler too, as far as can be told.
    pub(crate) const fn is_never_direct(&self) -> bool {
        self.direct_url.is_none() && !self.prepared_statements
    }

    /// How long the server is waited for: until it would have said that it took too long, and for that
    /// to arrive.
    pub(crate) const fn patience(&self) -> Duration {
        self.statement_timeout.saturating_add(ON_ITS_WAY)
    }

    fn limited(&self, options: PgConnectOptions) -> PgConnectOptions {
        let timeout = format!("{}ms", self.statement_timeout.as_millis());
        // The last one: the locks of a process whose host is gone are not held for hours.
        let limited = [
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
        ];
        options.options(limited.map(|name| (name, timeout.clone())))
    }
}

fn parsed(url: &Secret<String>) -> Result<PgConnectOptions, InvalidUrl> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(InvalidUrl)?;
    Ok(options.application_name("alga-runner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_options_nor_mistakes_show_a_password() {
        for url in [
            "postgres://alga:hunter2@db.example:5432/alga",
            "postgres://alga:hunter2@db.example:port/alga",
            "postgres://alga:hunter2@[db/alga",
            "mysql://alga:hunter2@db.example/alga",
        ] {
            let options = Options::at(Secret::new(url.to_owned()));
            let text = format!("{options:?} {:?}", options.direct().err());
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
