//! A database that is open.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::query::Query;
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, Postgres, QueryBuilder,
};

use alga_schema::{DatabaseError, MigrationStatus, Schema};
use async_trait::async_trait;

use crate::error::{DriverError, Failure, PostgresError};
use crate::listener::{ListenError, Listener};
use crate::migrate;
use crate::options::Options;
use crate::pool::{Lent, Pool};

/// How often something is done again that the database has undone in favour of others, or that met a
/// connection which was lost.
const REPEATS: usize = 3;

/// A database that is open.
///
/// It connects when it is first used, and again when a connection is lost.
pub struct Database {
    schema: Schema,
    /// What is run after migrations, whenever they are looked at.
    afterwards: &'static str,
    pool: Pool,
    /// How long an answer is waited for.
    patience: Duration,
    direct: PgConnectOptions,
    /// Whether even `direct` leads to a pooler.
    is_never_direct: bool,
    statements: Statements,
}

/// How something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As one statement, which is a transaction by itself.
    Alone,
    InTransaction,
    /// Not over a connection of the pool.
    Unhurried,
}

/// Something that was tried and failed.
struct Failed<E> {
    error: E,
    /// Whether the connection had been used before, so that it may have been lost without its knowledge.
    was_used: bool,
    /// Whether it may have been done all the same.
    maybe_done: bool,
    /// Whether the connection can be used again.
    is_settled: bool,
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
            patience: options.patience(),
            direct: options.direct()?,
            is_never_direct: options.is_never_direct(),
            statements: Statements {
                stay_prepared: options.prepared_statements,
            },
        };
        if options.migrate_on_open {
            database.migrate_up().await?;
            if options.direct_url.is_some() {
                let tried = database.try_pooler(options.max_connections.get() > 1);
                let tried = tokio::time::timeout(database.patience, tried).await;
                let tried = tried.unwrap_or(Err(DriverError::NoAnswer(database.patience)));
                tried.map_err(|source| PostgresError::Driver {
                    schema: database.schema.name(),
                    source,
                })?;
            }
        } else {
            database.migration_status().await?;
        }
        Ok(database)
    }

    /// Reads with one statement. Where the connection turns out to be lost, it is sent again over a new
    /// one.
    ///
    /// The statement must be one of [`Self::statements`].
    pub async fn read<T, E: Failure>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        self.repeated(self.way(), Failed::may_be_read_again, work)
            .await
    }

    /// Writes with one statement, which is a transaction by itself. It is sent again only where it is
    /// certain that nothing was done.
    ///
    /// The statement must be one of [`Self::statements`]. Where nobody waits for it any more, or the
    /// connection is lost, it may or may not be done.
    pub async fn write<T, E: Failure>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        self.repeated(self.way(), Failed::may_be_written_again, work)
            .await
    }

    /// Writes with one statement that may take as long as it does, over a connection of its own that goes
    /// to the server itself. It is sent again as by [`Self::write`].
    pub async fn write_unhurried<T, E: Failure>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        self.repeated(Way::Unhurried, Failed::may_be_written_again, work)
            .await
    }

    /// Does something in a transaction, which is undone where it fails, and is done again only where it is
    /// certain that it was. All of it has as long as one statement has.
    pub async fn transact<T, E: Failure>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        self.repeated(Way::InTransaction, Failed::may_be_written_again, work)
            .await
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
        self.read(async |connection: &mut PgConnection| Ok(connection.ping().await?))
            .await
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

    /// Waits for what is going on, though no longer than it may take, and closes the database.
    pub async fn close(&self) {
        self.pool.close(self.patience).await;
    }

    /// A statement is prepared and then run: between the two a pooler would hand the connection to
    /// somebody else, if it were not in a transaction.
    const fn way(&self) -> Way {
        if self.statements.stay_prepared {
            Way::Alone
        } else {
            Way::InTransaction
        }
    }

    /// Tries again while that is safe and of use.
    async fn repeated<T, E: Failure>(
        &self,
        way: Way,
        may_be_repeated: fn(&Failed<E>) -> bool,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        let mut repeats = 0;
        loop {
            let failed = match self.attempt(way, work.clone()).await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            if failed.error.driver().is_some_and(DriverError::is_loss) {
                self.pool.note_loss();
            }
            if repeats == REPEATS || !may_be_repeated(&failed) {
                return Err(failed.error);
            }
            repeats += 1;
        }
    }

    async fn attempt<T, E: Failure>(
        &self,
        way: Way,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, Failed<E>> {
        let is_transaction = match way {
            Way::Alone => false,
            Way::InTransaction => true,
            Way::Unhurried => return self.attempt_unhurried(work).await,
        };
        let lent = self.pool.get().await.map_err(Failed::undone)?;
        let was_used = lent.is_used();
        let done =
            tokio::time::timeout(self.patience, attempt_with(lent, is_transaction, work)).await;
        let done = done.unwrap_or_else(|_| {
            self.pool.note_loss();
            let error = DriverError::NoAnswer(self.patience);
            Err(Failed::maybe_done(error.into()))
        });
        done.map_err(|failed| Failed { was_used, ..failed })
    }

    async fn attempt_unhurried<T, E: Failure>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, Failed<E>> {
        let connecting = tokio::time::timeout(self.patience, self.direct.connect()).await;
        let connected = connecting.map_err(|_| DriverError::NoConnection(self.patience));
        let mut connection = connected.map_err(Failed::undone)?.map_err(Failed::undone)?;
        let done = if self.is_never_direct {
            let work = async |connection: &mut PgConnection| {
                take_time(connection).await?;
                work(connection).await
            };
            in_transaction(&mut connection, work).await?
        } else {
            work(&mut connection).await.map_err(Failed::maybe_done)?
        };
        // It is done, however they part.
        drop(connection.close().await);
        Ok(done)
    }

    /// Fails where a pooler can't be used as it is told to be: one that keeps no prepared statements
    /// gives two clients one session, in which both want to prepare their first.
    async fn try_pooler(&self, with_two: bool) -> Result<(), DriverError> {
        const ANY: &str = "SELECT 1";
        let mut one = self.pool.get().await?;
        if with_two && self.statements.stay_prepared {
            let mut other = self.pool.get().await?;
            for lent in [&mut one, &mut other] {
                self.statements.of(ANY).execute(lent.connection()).await?;
            }
            other.finish();
        }
        one.finish();
        Ok(())
    }
}

impl<E> Failed<E> {
    /// Nothing was done; the connection is lost.
    fn undone(error: impl Into<DriverError>) -> Self
    where
        E: From<DriverError>,
    {
        Self {
            error: error.into().into(),
            was_used: false,
            maybe_done: false,
            is_settled: false,
        }
    }
}

impl<E: Failure> Failed<E> {
    /// Nobody knows what was done.
    fn maybe_done(error: E) -> Self {
        Self {
            is_settled: error.driver().is_some_and(DriverError::is_of_a_node),
            error,
            was_used: false,
            maybe_done: true,
        }
    }

    fn may_be_read_again(&self) -> bool {
        let error = self.error.driver();
        error.is_some_and(|error| error.is_rollback() || (error.is_loss() && self.was_used))
    }

    fn may_be_written_again(&self) -> bool {
        let is_undone =
            !self.maybe_done || self.error.driver().is_some_and(DriverError::is_rollback);
        is_undone && self.may_be_read_again()
    }
}

async fn attempt_with<T, E: Failure>(
    mut lent: Lent,
    is_transaction: bool,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, Failed<E>> {
    let done = if is_transaction {
        in_transaction(lent.connection(), work).await
    } else {
        work(lent.connection()).await.map_err(Failed::maybe_done)
    };
    if done.as_ref().err().is_none_or(|failed| failed.is_settled) {
        lent.finish();
    }
    done
}

async fn in_transaction<T, E: Failure>(
    connection: &mut PgConnection,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, Failed<E>> {
    let mut transaction = connection.begin().await.map_err(Failed::undone)?;
    match work(&mut transaction).await {
        Ok(done) => {
            let committed = transaction.commit().await;
            committed.map_err(|error| Failed::maybe_done(DriverError::from(error).into()))?;
            Ok(done)
        }
        Err(error) => {
            let is_lost = error.driver().is_some_and(DriverError::is_loss);
            Err(Failed {
                error,
                was_used: false,
                maybe_done: false,
                // Where the connection is lost, the transaction is too.
                is_settled: transaction.rollback().await.is_ok() && !is_lost,
            })
        }
    }
}

/// For what follows in this transaction.
async fn take_time(connection: &mut PgConnection) -> Result<(), DriverError> {
    connection
        .execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .await?;
    Ok(())
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
