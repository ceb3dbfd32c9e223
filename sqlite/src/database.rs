//! An open database.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::error::SqliteError;
use crate::migrate::{MigrationLock, MigrationStatus, Schema, create_private};

/// Statements that the connection which writes keeps prepared. Inserts of many rows have a statement
/// for each number of rows.
const WRITER_STATEMENTS: usize = 256;

/// Pages of 4 KiB in the log after which the commit that finds so many moves them to the database.
/// Four times SQLite's own figure: a page that is written again and again is moved once.
const CHECKPOINT_PAGES: &str = "4000";

/// Where a database is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the database is.
    pub location: Location,
    /// How many reads may run at once; 4 by default. In memory, everything shares one connection.
    pub read_connections: NonZeroU32,
    /// How long an operation waits for a connection, and for another process that is writing; 5 s
    /// by default.
    pub busy_timeout: Duration,
    /// Whether opening brings the schema up to date, as it does by default. Without, a database
    /// that is behind opens but can't be used; that is for the commands that migrate.
    pub migrate_on_open: bool,
}

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a file, which several processes may use at once. A new one is for its owner only.
    File(PathBuf),
    /// In memory, gone when the database is dropped.
    Memory,
}

impl Options {
    /// A database in the file at `path`, which is made if it is missing; its folder is not.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Location::File(path.into()))
    }

    /// An empty database in memory.
    pub fn memory() -> Self {
        Self::at(Location::Memory)
    }

    fn at(location: Location) -> Self {
        Self {
            location,
            read_connections: NonZeroU32::MIN.saturating_add(3),
            busy_timeout: Duration::from_secs(5),
            migrate_on_open: true,
        }
    }
}

/// A database that is open.
///
/// One connection writes, a few read. SQLite has one writer at a time anyway; queueing for the
/// connection is fair, where contending for the file's lock isn't. What a commit answered is
/// durable: write-ahead logging, synced at every commit.
#[derive(Debug)]
pub struct Database {
    schema: Schema,
    writer: SqlitePool,
    reader: SqlitePool,
    file: Option<PathBuf>,
}

impl Database {
    /// Opens a database, and brings its schema up to date unless told not to.
    ///
    /// Any number of processes may open the same new file at once.
    ///
    /// # Errors
    /// [`SchemaTooNew`](SqliteError::SchemaTooNew) when a newer release has migrated the database,
    /// [`SchemaDiverged`](SqliteError::SchemaDiverged) when a migration it has was changed since.
    /// Nothing is done to the schema of such a database, here or by the other methods.
    pub async fn open(schema: Schema, options: Options) -> Result<Self, SqliteError> {
        let migrate = options.migrate_on_open;
        let (database, _lock) = Self::connect(schema, options).await?;
        if migrate {
            database.schema.up(&database.writer).await?;
        } else {
            database.schema.applied(&database.writer).await?;
        }
        Ok(database)
    }

    /// The connections that read.
    pub const fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// The one connection that writes.
    pub const fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that holds the write lock from its first statement on: what it reads
    /// can't change before it commits, and it never fails half-way because another process wrote
    /// first. Rolled back when it is dropped.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        // A statement without a table would not touch the file.
        sqlx::query("SELECT EXISTS (SELECT 1 FROM sqlite_schema)")
            .execute(&self.reader)
            .await?;
        Ok(())
    }

    /// Applies the migrations that are missing. Safe from several processes at once.
    pub async fn migrate_up(&self) -> Result<(), SqliteError> {
        let _lock = self.lock().await?;
        self.schema.up(&self.writer).await
    }

    /// Reverts the migrations after `version`, the last one first, and with them what only they can
    /// store; 0 reverts all. Safe from several processes at once.
    pub async fn migrate_down_to(&self, version: i64) -> Result<(), SqliteError> {
        let _lock = self.lock().await?;
        self.schema.down_to(&self.writer, version).await
    }

    /// The migrations of this release and whether the database has them. Writes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, SqliteError> {
        self.schema.status(&self.reader).await
    }

    /// Waits for what is going on and closes the database.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Connects, and holds the lock under which the schema is made.
    async fn connect(
        schema: Schema,
        options: Options,
    ) -> Result<(Self, Option<MigrationLock>), SqliteError> {
        let Location::File(path) = &options.location else {
            return Ok((Self::connect_memory(schema, &options).await?, None));
        };
        let on_file = |source| SqliteError::File {
            schema: schema.name(),
            source,
        };
        // An absolute path is never taken for a `file:` URI.
        let path = std::path::absolute(path).map_err(on_file)?;
        // Switching a new file to write-ahead logging doesn't wait for others who do the same, so
        // it happens under the lock too.
        let lock = MigrationLock::acquire(&path).await.map_err(on_file)?;
        create_private(&path).await.map_err(on_file)?;
        Ok((
            Self::connect_file(schema, path, &options).await?,
            Some(lock),
        ))
    }

    async fn connect_file(
        schema: Schema,
        path: PathBuf,
        options: &Options,
    ) -> Result<Self, SqliteError> {
        let connect = connect_options(options).filename(&path);
        let writer = pool_options(NonZeroU32::MIN, options)
            .after_release(|connection, _| Box::pin(is_fit_for_reuse(connection)))
            .connect_with(
                connect
                    .clone()
                    .journal_mode(SqliteJournalMode::Wal)
                    .statement_cache_capacity(WRITER_STATEMENTS)
                    .pragma("wal_autocheckpoint", CHECKPOINT_PAGES),
            )
            .await
            .map_err(|source| SqliteError::Statement {
                schema: schema.name(),
                source,
            })?;
        let reader = pool_options(options.read_connections, options)
            .connect_lazy_with(connect.pragma("query_only", "ON"));
        Ok(Self {
            schema,
            writer,
            reader,
            file: Some(path),
        })
    }

    async fn connect_memory(schema: Schema, options: &Options) -> Result<Self, SqliteError> {
        let connect = connect_options(options).in_memory(true);
        let only = pool_options(NonZeroU32::MIN, options)
            .connect_with(connect)
            .await
            .map_err(|source| SqliteError::Statement {
                schema: schema.name(),
                source,
            })?;
        Ok(Self {
            schema,
            writer: only.clone(),
            reader: only,
            file: None,
        })
    }

    async fn lock(&self) -> Result<Option<MigrationLock>, SqliteError> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        let lock = MigrationLock::acquire(path).await;
        lock.map(Some).map_err(|source| SqliteError::File {
            schema: self.schema.name(),
            source,
        })
    }
}

/// Whether a connection can begin another transaction.
///
/// When the disk is full or fails, SQLite rolls a transaction back by itself. The driver's own
/// rollback fails then, and it believes for ever that the transaction goes on. Such a connection is
/// closed; the next write gets a new one.
async fn is_fit_for_reuse(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if !connection.is_in_transaction() {
        return Ok(true);
    }
    // Runs the rollback that a dropped transaction has only asked for.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn connect_options(options: &Options) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
}

/// A pool that keeps its connections: in memory, a connection that goes takes the database along.
fn pool_options(connections: NonZeroU32, options: &Options) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections.get())
        .acquire_timeout(options.busy_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        // The connections are local: asking each before its use whether it is still there would
        // double the round trips of every operation.
        .test_before_acquire(false)
}
