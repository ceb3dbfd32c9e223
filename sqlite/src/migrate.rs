//! How a schema is brought up to date, and the lock under which it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use alga_schema::{Applied, MigrationStatus, Schema};
use rusqlite::{Connection, params};
use sqlx::migrate::Migration;
use tokio::task::spawn_blocking;

use crate::database::begin;
use crate::error::{DriverError, SqliteError};
use crate::pool::Pool;

/// Applies the migrations that are missing. Writes nothing when none is.
pub(crate) async fn up(schema: &Schema, pool: &Arc<Pool>) -> Result<(), SqliteError> {
    let applied = applied(schema, pool).await?;
    let mut versions = Vec::new();
    for migration in schema.missing(&applied) {
        run(schema, pool, migration, apply).await?;
        versions.push(migration.version);
    }
    if !versions.is_empty() {
        tracing::info!(schema = schema.name(), ?versions, "applied migrations");
    }
    Ok(())
}

/// Reverts the migrations after `version`.
pub(crate) async fn down_to(
    schema: &Schema,
    pool: &Arc<Pool>,
    version: i64,
) -> Result<(), SqliteError> {
    let applied = applied(schema, pool).await?;
    for migration in schema.back_to(version, &applied)? {
        run(schema, pool, migration, revert).await?;
    }
    tracing::info!(schema = schema.name(), version, "reverted migrations");
    Ok(())
}

/// The migrations of this release and whether the database has them.
pub(crate) async fn status(
    schema: &Schema,
    pool: &Arc<Pool>,
) -> Result<Vec<MigrationStatus>, SqliteError> {
    Ok(schema.status(&applied(schema, pool).await?))
}

/// What the database has, unless something of it is not as this release has it.
pub(crate) async fn applied(
    schema: &Schema,
    pool: &Arc<Pool>,
) -> Result<Vec<Applied>, SqliteError> {
    let table = schema.history();
    let history = pool.run(move |connection| history(connection, table)).await;
    let history = history.map_err(|source| SqliteError::Statement {
        schema: schema.name(),
        source,
    })?;
    schema.check(&history)?;
    Ok(history)
}

/// Applies or reverts a migration, and notes it in the history in the same transaction.
async fn run(
    schema: &Schema,
    pool: &Arc<Pool>,
    migration: &Migration,
    step: fn(&Connection, &Migration, &'static str) -> rusqlite::Result<()>,
) -> Result<(), SqliteError> {
    let (name, table, version) = (schema.name(), schema.history(), migration.version);
    let migration = migration.clone();
    let work = move |connection: &mut Connection| {
        let transaction = begin(connection)?;
        step(&transaction, &migration, table)?;
        transaction.commit()?;
        Ok(())
    };
    pool.run(work).await.map_err(|source| match source {
        DriverError::Statement(source) => SqliteError::Migration {
            schema: name,
            version,
            source,
        },
        source => SqliteError::Statement {
            schema: name,
            source,
        },
    })
}

/// What is written in the table of the history, by version; nothing while there is no table.
fn history(connection: &Connection, table: &'static str) -> Result<Vec<Applied>, DriverError> {
    // `Connection::table_exists` would not see what another connection has made meanwhile.
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)";
    if !connection.query_row(exists, [table], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let history = format!("SELECT version, checksum FROM {table} ORDER BY version");
    let mut statement = connection.prepare(&history)?;
    let applied = statement.query_map((), |row| {
        Ok(Applied {
            version: row.get(0)?,
            checksum: row.get(1)?,
        })
    })?;
    Ok(applied.collect::<Result<_, _>>()?)
}

fn apply(
    connection: &Connection,
    migration: &Migration,
    table: &'static str,
) -> rusqlite::Result<()> {
    // The table that sqlx keeps, which has the migrations of PostgreSQL: one shape for both.
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            version BIGINT PRIMARY KEY,
            description TEXT NOT NULL,
            installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            success BOOLEAN NOT NULL,
            checksum BLOB NOT NULL,
            execution_time BIGINT NOT NULL
        )"
    ))?;
    let started = Instant::now();
    connection.execute_batch(migration.sql.as_str())?;
    let nanos = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let note = format!(
        "INSERT INTO {table} (version, description, success, checksum, execution_time)
         VALUES (?, ?, TRUE, ?, ?)"
    );
    let (description, checksum) = (&*migration.description, &*migration.checksum);
    let row = params![migration.version, description, checksum, nanos];
    connection.execute(&note, row).map(drop)
}

fn revert(
    connection: &Connection,
    migration: &Migration,
    table: &'static str,
) -> rusqlite::Result<()> {
    connection.execute_batch(migration.sql.as_str())?;
    let forget = format!("DELETE FROM {table} WHERE version = ?");
    connection.execute(&forget, [migration.version]).map(drop)
}

/// Keeps other processes, and other users of the database in this one, from changing its schema.
/// Released when dropped, or by the operating system when the process dies.
#[derive(Debug)]
pub(crate) struct MigrationLock {
    _file: File,
}

impl MigrationLock {
    /// Waits for the lock of the database at `path`.
    ///
    /// SQLite's own locks don't do: a migration is several transactions, and the lock has to be
    /// held between them.
    pub(crate) async fn acquire(path: &Path) -> io::Result<Self> {
        let path = Self::path_beside(path);
        run_blocking(move || {
            Ok(Self {
                _file: lock(&path)?,
            })
        })
        .await
    }

    fn path_beside(database: &Path) -> PathBuf {
        let mut path = database.as_os_str().to_owned();
        path.push(".migrate-lock");
        path.into()
    }
}

/// Makes an empty file at `path` that only its owner can read, unless there is one. SQLite gives
/// the files it puts beside a database the permissions of the database.
pub(crate) async fn create_private(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    run_blocking(move || match private().create_new(true).open(&path) {
        // Never opened when it exists: closing any handle on a file drops every POSIX lock that the
        // process holds on it, those of SQLite too.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    })
    .await
}

fn lock(path: &Path) -> io::Result<File> {
    let file = private().create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!("waiting for another process to finish with the schema of a database");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

/// Opens for writing; what is made is for its owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
