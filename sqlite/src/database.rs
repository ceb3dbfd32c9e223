//! An open database.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alga_schema::{DatabaseError, MigrationStatus, Schema};
use async_trait::async_trait;
use rusqlite::config::DbConfig;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{DriverError, SqliteError};
use crate::migrate::{self, MigrationLock, create_private};
use crate::pool::{Connect, Pool};

/// The log target of the statements that are run. A connection says them, at level TRACE and
/// without their parameters, if the target is heard when it is opened.
pub const STATEMENTS: &str = "alga_sqlite::statements";

/// Statements that a connection keeps prepared; there are a few dozen.
const PREPARED: usize = 64;

/// Pages of 4 KiB in the log after which the commit that finds so many moves them to the database.
/// Four times SQLite's own figure: a page that is written again and again is moved once.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Where a database is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the database is.
    pub location: Location,
    /// How many reads may run at once; 4 by default. In memory, everything shares one connection.
    pub read_connections: NonZeroU32,
    /// How long an operation waits for a connection, and then again for another process that is
    /// writing; 5 s by default.
    pub busy_timeout: Duration,
    /// Whether the connection that writes enforces the schema's CHECK constraints, as it does by
    /// default, also in migrations. They are there for other hands; who has types that can't break them need not pay, as
    /// they cost about as much as the rest of inserting a small row.
    pub enforce_checks: bool,
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
            enforce_checks: true,
            migrate_on_open: true,
        }
    }
}

/// A database that is open.
///
/// One connection writes, a few read. SQLite has one writer at a time anyway; queueing for the
/// connection is fair, where contending for the file's lock isn't. What a commit answered is
/// durable: write-ahead logging, synced at every commit.
///
/// What is done with a connection is done on a thread that may block, and goes on to its end once it
/// has begun, also where nobody waits for it any more.
#[derive(Debug)]
pub struct Database {
    schema: Schema,
    writer: Arc<Pool>,
    readers: Arc<Pool>,
    file: Option<PathBuf>,
}

impl Database {
    /// Opens a database, and brings its schema up to date unless told not to.
    ///
    /// Any number of processes may open the same new file at once.
    ///
    /// # Errors
    /// [`TooNew`](alga_schema::SchemaError::TooNew) when a newer release has migrated the database,
    /// [`Diverged`](alga_schema::SchemaError::Diverged) when a migration it has was changed since.
    /// Nothing is done to the schema of such a database, here or by the other methods.
    pub async fn open(schema: Schema, options: Options) -> Result<Self, SqliteError> {
        let migrate = options.migrate_on_open;
        let (database, _lock) = Self::connect(schema, options).await?;
        if migrate {
            migrate::up(&database.schema, &database.writer).await?;
        } else {
            migrate::applied(&database.schema, &database.writer).await?;
        }
        Ok(database)
    }

    /// Reads, in a transaction: all of `work` sees one moment, that of its first statement.
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        let work = |connection: &mut Connection| {
            let moment = connection.transaction().map_err(DriverError::from)?;
            work(&moment)
        };
        self.readers.run(work).await
    }

    /// Writes, in a transaction that is committed where `work` succeeds and undone where it fails.
    ///
    /// It holds the write lock from its first statement on: what it reads can't change before it
    /// commits, and it never fails half-way because another process wrote first.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        let work = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(DriverError::Commit)?;
            Ok(done)
        };
        self.writer.run(work).await
    }

    /// Does something with the one connection that writes: a transaction of its own, for instance,
    /// begun with [`begin`]. One that is left open is undone.
    pub async fn with_writer<T, E>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), DriverError> {
        // A statement without a table would not touch the file.
        const LOOK: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema)";
        let look = |connection: &Connection| {
            let _any: bool = connection.query_row(LOOK, (), |row| row.get(0))?;
            Ok(())
        };
        self.read(look).await
    }

    /// Applies the migrations that are missing. Safe from several processes at once.
    pub async fn migrate_up(&self) -> Result<(), SqliteError> {
        let _lock = self.lock().await?;
        migrate::up(&self.schema, &self.writer).await
    }

    /// Reverts the migrations after `version`, the last one first, and with them what only they can
    /// store; 0 reverts all. Safe from several processes at once.
    pub async fn migrate_down_to(&self, version: i64) -> Result<(), SqliteError> {
        let _lock = self.lock().await?;
        migrate::down_to(&self.schema, &self.writer, version).await
    }

    /// The migrations of this release and whether the database has them. Writes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, SqliteError> {
        migrate::status(&self.schema, &self.readers).await
    }

    /// Waits for what is going on and closes the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Connects, and holds the lock under which the schema is made.
    async fn connect(
        schema: Schema,
        options: Options,
    ) -> Result<(Self, Option<MigrationLock>), SqliteError> {
        let Location::File(path) = &options.location else {
            return Ok((Self::in_memory(schema, &options), None));
        };
        let on_file = |source| SqliteError::File {
            schema: schema.name(),
            source,
        };
        let path = std::path::absolute(path).map_err(on_file)?;
        // Switching a new file to write-ahead logging doesn't wait for others who do the same, so
        // it happens under the lock too.
        let lock = MigrationLock::acquire(&path).await.map_err(on_file)?;
        create_private(&path).await.map_err(on_file)?;
        Ok((Self::on_file(schema, path, &options), Some(lock)))
    }

    fn on_file(schema: Schema, path: PathBuf, options: &Options) -> Self {
        let timeout = options.busy_timeout;
        let file = path.clone();
        let enforce_checks = options.enforce_checks;
        let writer: Connect = Box::new(move || open_writer(&file, timeout, enforce_checks));
        let file = path.clone();
        let reader: Connect = Box::new(move || open_reader(&file, timeout));
        Self {
            schema,
            writer: Arc::new(Pool::new(1, timeout, writer)),
            readers: Arc::new(Pool::new(options.read_connections.get(), timeout, reader)),
            file: Some(path),
        }
    }

    fn in_memory(schema: Schema, options: &Options) -> Self {
        let timeout = options.busy_timeout;
        let enforce_checks = options.enforce_checks;
        let connect: Connect = Box::new(move || {
            let connection = prepare(Connection::open_in_memory()?, timeout)?;
            connection.pragma_update(None, "ignore_check_constraints", !enforce_checks)?;
            Ok(connection)
        });
        let only = Arc::new(Pool::new(1, timeout, connect));
        Self {
            schema,
            writer: Arc::clone(&only),
            readers: only,
            file: None,
        }
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

/// Begins a transaction that holds the write lock. It is undone when it is dropped.
pub fn begin(connection: &mut Connection) -> Result<Transaction<'_>, DriverError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn open_writer(
    path: &Path,
    timeout: Duration,
    enforce_checks: bool,
) -> rusqlite::Result<Connection> {
    let connection = open_file(path, timeout)?;
    connection.pragma_update(None, "ignore_check_constraints", !enforce_checks)?;
    // Fails where there can't be such a log, which would have readers block the writer.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" {
            return Ok(());
        }
        let reason = format!("the database can't have a write-ahead log, only {mode}");
        Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(reason),
        ))
    })?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    Ok(connection)
}

fn open_reader(path: &Path, timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = open_file(path, timeout)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open_file(path: &Path, timeout: Duration) -> rusqlite::Result<Connection> {
    // Neither made where it is missing, nor read as a URI. Nobody else uses the connection, so that it
    // needs no mutex.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepare(Connection::open_with_flags(path, flags)?, timeout)
}

fn prepare(connection: Connection, timeout: Duration) -> rusqlite::Result<Connection> {
    connection.busy_timeout(timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // A statement's plan never depends on what is bound to it, so that it is made once: with statistics
    // that SQLite could go by, binding another end of a range has it prepared anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if tracing::enabled!(target: STATEMENTS, tracing::Level::TRACE) {
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(say));
    }
    Ok(connection)
}

fn say(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(statement, _) = event {
        let statement = statement.sql();
        tracing::trace!(target: STATEMENTS, statement = &*statement);
    }
}
