//! How a schema is brought up to date.

use std::time::Duration;

use alga_schema::{Applied, MigrationStatus, Schema};
use sqlx::migrate::{Migrate as _, MigrateError, Migration};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::error::{DriverError, PostgresError};

/// After how long it is said that others are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a server may take until it has let somebody in.
const CONNECTING: Duration = Duration::from_secs(10);

/// Applies the migrations that are missing, and runs what comes `afterwards`.
pub(crate) async fn up(
    schema: &Schema,
    afterwards: &'static str,
    database: &PgConnectOptions,
) -> Result<(), PostgresError> {
    let mut session = Session::locked(schema, database).await?;
    let applied = session.applied().await?;
    let missing = schema.missing(&applied);
    if !missing.is_empty() {
        let history = session.connection.ensure_migrations_table(schema.history());
        history.await.map_err(|source| migrating(schema, source))?;
    }
    let mut versions = Vec::new();
    for migration in missing {
        let applying = session.connection.apply(schema.history(), migration).await;
        applying.map_err(|source| failed(schema, migration, source))?;
        versions.push(migration.version);
    }
    session.execute(afterwards).await?;
    if !versions.is_empty() {
        tracing::info!(schema = schema.name(), ?versions, "applied migrations");
    }
    session.end().await
}

/// Reverts the migrations after `version`.
pub(crate) async fn down_to(
    schema: &Schema,
    database: &PgConnectOptions,
    version: i64,
) -> Result<(), PostgresError> {
    let mut session = Session::locked(schema, database).await?;
    let applied = session.applied().await?;
    for migration in schema.back_to(version, &applied)? {
        let reverting = session.connection.revert(schema.history(), migration).await;
        reverting.map_err(|source| failed(schema, migration, source))?;
    }
    tracing::info!(schema = schema.name(), version, "reverted migrations");
    session.end().await
}

/// The migrations of this release and whether the database has them.
pub(crate) async fn status(
    schema: &Schema,
    database: &PgConnectOptions,
) -> Result<Vec<MigrationStatus>, PostgresError> {
    let mut session = Session::connect(schema, database).await?;
    let status = schema.status(&session.applied().await?);
    session.end().await?;
    Ok(status)
}

/// A connection of its own, as what is done with it needs a session. The lock goes with it.
struct Session<'a> {
    schema: &'a Schema,
    connection: PgConnection,
}

impl<'a> Session<'a> {
    async fn connect(
        schema: &'a Schema,
        database: &PgConnectOptions,
    ) -> Result<Self, PostgresError> {
        // A host that accepts connections and says nothing would hold whoever opens the database for ever.
        let connecting = tokio::time::timeout(CONNECTING, database.connect()).await;
        let connection = connecting.map_err(|_| PostgresError::Driver {
            schema: schema.name(),
            source: DriverError::NoConnection(CONNECTING),
        })?;
        let connection = connection.map_err(|source| driver(schema, source))?;
        Ok(Self { schema, connection })
    }

    /// Connects, and keeps others from changing any schema of the database.
    async fn locked(
        schema: &'a Schema,
        database: &PgConnectOptions,
    ) -> Result<Self, PostgresError> {
        let mut session = Self::connect(schema, database).await?;
        let mut locking = session.connection.lock();
        let in_time = tokio::time::timeout(PATIENCE, &mut locking).await;
        let locked = if let Ok(locked) = in_time {
            locked
        } else {
            tracing::info!("waiting for another process to finish with the schema of a database");
            (&mut locking).await
        };
        drop(locking);
        locked.map_err(|source| migrating(schema, source))?;
        Ok(session)
    }

    /// What the database has, unless something of it is not as this release has it.
    async fn applied(&mut self) -> Result<Vec<Applied>, PostgresError> {
        let schema = self.schema;
        let exists =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(schema.history());
        let exists: bool = exists
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| driver(schema, source))?;
        if !exists {
            return Ok(Vec::new());
        }
        let history = format!(
            "SELECT version, checksum FROM {} ORDER BY version",
            schema.history()
        );
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(AssertSqlSafe(history))
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| driver(schema, source))?;
        let applied = rows
            .into_iter()
            .map(|(version, checksum)| Applied { version, checksum });
        let applied: Vec<_> = applied.collect();
        schema.check(&applied)?;
        Ok(applied)
    }

    async fn execute(&mut self, statements: &'static str) -> Result<(), PostgresError> {
        let done = self.connection.execute(statements).await;
        done.map_err(|source| driver(self.schema, source))?;
        Ok(())
    }

    async fn end(self) -> Result<(), PostgresError> {
        let closed = self.connection.close().await;
        closed.map_err(|source| driver(self.schema, source))
    }
}

/// A failure around migrations, rather than of one.
fn migrating(schema: &Schema, source: MigrateError) -> PostgresError {
    match source {
        MigrateError::Execute(source) => driver(schema, source),
        source => driver(schema, sqlx::Error::Migrate(Box::new(source))),
    }
}

fn driver(schema: &Schema, source: sqlx::Error) -> PostgresError {
    PostgresError::Driver {
        schema: schema.name(),
        source: DriverError::from(source),
    }
}

fn failed(schema: &Schema, migration: &Migration, source: MigrateError) -> PostgresError {
    PostgresError::Migration {
        schema: schema.name(),
        version: migration.version,
        source,
    }
}
