//! Settings of the database.

use std::num::NonZeroU32;
use std::time::Duration;

use alga_model::Secret;
use alga_postgres::Options;

use super::kind::{Flag, Kind, MASK, Optional, Raw, count_from_one, millis};
use super::setting::section;

section! {
    /// Where records, installs and all that is set for them are kept.
    pub struct DatabaseConfig {
        /// The PostgreSQL database, with Citus or without. Where it is not set, everything is in files in
        /// the data folder.
        url: Option<Secret<String>> = None, "database.url" or "DATABASE_URL": Optional(PostgresUrl);
        /// The same database without a pooler in between: migrations, and hearing what other processes
        /// change, need a session. Where it is not set, they go by the same way as everything.
        direct_url: Option<Secret<String>> = None,
            "database.direct_url" or "DATABASE_DIRECT_URL": Optional(PostgresUrl);
        /// The most connections that the storage keeps, and as many again the registry.
        max_connections: NonZeroU32 = NonZeroU32::MIN.saturating_add(15), "database.max_connections": count_from_one(1_000);
        /// How long an operation waits for a connection.
        acquire_timeout: Duration = Duration::from_secs(5), "database.acquire_timeout_ms": millis(1..=60_000);
        /// How long the server lets a statement run or wait for a lock. Not behind a pooler:
        /// set it for the role there.
        statement_timeout: Duration = Duration::from_secs(10), "database.statement_timeout_ms": millis(1..=600_000);
        /// Whether statements stay prepared. A pooler in transaction mode that doesn't know them, as
        /// `PgBouncer` before 1.21, needs this off; each statement then takes four round trips.
        prepared_statements: bool = true, "database.prepared_statements": Flag;
    }
}

impl DatabaseConfig {
    /// The PostgreSQL database, if one is configured.
    pub fn postgres(&self, migrate_on_open: bool) -> Option<Options> {
        Some(Options {
            url: self.url.clone()?,
            direct_url: self.direct_url.clone(),
            max_connections: self.max_connections,
            acquire_timeout: self.acquire_timeout,
            statement_timeout: self.statement_timeout,
            prepared_statements: self.prepared_statements,
            migrate_on_open,
        })
    }
}

/// The URL of a PostgreSQL database, which may hold a password.
struct PostgresUrl;

impl Kind for PostgresUrl {
    type Value = Secret<String>;

    fn parse(&self, raw: &Raw) -> Result<Secret<String>, Vec<String>> {
        let url = raw.as_text().map(|text| Secret::new(text.to_owned()));
        self.expect_value(url.filter(|url| Options::at(url.clone()).check().is_ok()))
    }

    fn show(&self, _: &Secret<String>) -> Option<String> {
        Some(MASK.to_owned())
    }

    fn expects(&self) -> String {
        "a URL such as postgres://user:password@host:5432/database?sslmode=verify-full".into()
    }
}
