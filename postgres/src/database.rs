//! A database that is open.

use std::fmt;

use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, Postgres, QueryBuilder};

use alga_schema::{DatabaseError, MigrationStatus, Schema};
use async_trait::async_trait;

use crate::error::{DriverError, PostgresError};
use crate::listener::{ListenError, Listener};
use crate::migrate;
use crate::options::Options;
use crate::pool::Pool;

/// A database that is open.
///
/// It connects when it is first used, and again when a connection is lost.
pub struct Database {
    schema: Schema,
    /// What is run after migrations, whenever they are looked at.
    afterwards: &'static str,
    pool: Pool,
    direct: PgConnectOptions,
    statements: Statements,
}

/// How the statements of a database are sent.
#[derive(Debug, Clone, Copy)]
pub struct Statements {
    stay_prepared: bool,
}

/// A statement that is being sent.
pub type Sent<'q> = Query<'q, Postgres, PgArguments>;

impl Statements {
    /// A statement, to bind its parameters.
    pub fn of<'q>(self, statement: &'static str) -> Sent<'q> {
        sqlx::query(statement).persistent(self.stay_prepared)
    }

    /// A statement that was put together, with its parameters. There should be few different ones, as
    /// each may stay prepared.
    pub fn built(self, statement: &mut QueryBuilder<Postgres>) -> Sent<'_> {
        statement.build().persistent(self.stay_prepared)
    }
}

impl Database {
    /// Opens a database, and brings its schema up to date unless told not to. `afterwards` is run then,
    /// each time: statements that change nothing where there is nothing to change.
    ///
    /// Any number of processes may open the same new database at once.
    ///
    /// # Errors
    /// [`TooNew`](alga_schema::SchemaError::TooNew) when a newer release has migrated the database,
    /// [`Diverged`](alga_schema::SchemaError::Diverged) when a migration it has was changed since.
    /// Nothing is done to the schema of such a database, here or by the other methods.
    pub async fn open(
        schema: Schema,
        afterwards: &'static str,
        options: &Options,
    ) -> Result<Self, PostgresError> {
        let database = Self {
            schema,
            afterwards,
            pool: options.pool()?,
            direct: options.direct()?,
            statements: Statements {
                stay_prepared: options.prepared_statements,
            },
        };
        if options.migrate_on_open {
            database.migrate_up().await?;
        } else {
            database.migration_status().await?;
        }
        Ok(database)
    }

    /// Does something with a connection, in one statement, which is a transaction by itself.
    ///
    /// The statement must be one of [`Self::statements`]. Where nobody waits for it any more, it may or may
    /// not be done.
    pub async fn run<T, E: From<DriverError>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.statements.stay_prepared {
            // A statement is prepared and then run: between the two a pooler would hand the connection to
            // somebody else, if it were not in a transaction.
            return self.transact(work).await;
        }
        let mut lent = self.pool.get().await?;
        let done = work(lent.connection()).await?;
        lent.finish();
        Ok(done)
    }

    /// Does something with a connection, in a transaction, which is undone where it fails.
    pub async fn transact<T, E: From<DriverError>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut lent = self.pool.get().await?;
        let mut transaction = lent.connection().begin().await.map_err(DriverError::from)?;
        let done = match work(&mut transaction).await {
            Ok(done) => done,
            Err(failed) => {
                // Where the connection is lost, the transaction is too.
                if transaction.rollback().await.is_ok() {
                    lent.finish();
                }
                return Err(failed);
            }
        };
        transaction.commit().await.map_err(DriverError::from)?;
        lent.finish();
        Ok(done)
    }

    /// How statements are sent to it.
    pub const fn statements(&self) -> Statements {
        self.statements
    }

    /// Hears from now on what is sent to `channel`, in a session of its own.
    ///
    /// # Errors
    /// Also where a notification is tried and doesn't arrive.
    pub async fn listen(&self, channel: &'static str) -> Result<Listener, ListenError> {
        Listener::open(self, &self.direct, channel).await
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), DriverError> {
        let mut lent = self.pool.get().await?;
        lent.connection().ping().await?;
        lent.finish();
        Ok(())
    }

    /// Applies the migrations that are missing. Safe from several processes at once.
    pub async fn migrate_up(&self) -> Result<(), PostgresError> {
        migrate::up(&self.schema, self.afterwards, &self.direct).await
    }

    /// Reverts the migrations after `version`, the last one first, and with them what only they can
    /// store; 0 reverts all. Safe from several processes at once.
    pub async fn migrate_down_to(&self, version: i64) -> Result<(), PostgresError> {
        migrate::down_to(&self.schema, &self.direct, version).await
    }

    /// The migrations of this release and whether the database has them. Writes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, PostgresError> {
        migrate::status(&self.schema, &self.direct).await
    }

    /// Waits for what is going on and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Without the way there, which shows a password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("schema", &self.schema.name())
            .finish_non_exhaustive()
    }
}

/// Boxes what the methods of the same names fail with.
#[async_trait]
impl alga_schema::Database for Database {
    async fn ping(&self) -> Result<(), DatabaseError> {
        Ok(self.ping().await?)
    }

    async fn migrate_up(&self) -> Result<(), DatabaseError> {
        Ok(self.migrate_up().await?)
    }

    async fn migrate_down_to(&self, version: i64) -> Result<(), DatabaseError> {
        Ok(self.migrate_down_to(version).await?)
    }

    async fn migration_status(&self) -> Result<Vec<MigrationStatus>, DatabaseError> {
        Ok(self.migration_status().await?)
    }

    async fn close(&self) {
        self.close().await;
    }
}
