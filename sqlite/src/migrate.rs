//! The history of a schema, and the lock under which it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::SqlitePool;
use sqlx::migrate::{AppliedMigration, Migrate as _, MigrateError, Migration, Migrator};
use tokio::task::spawn_blocking;

use crate::error::SqliteError;

/// The migrations of one database, embedded in the binary.
#[derive(Debug)]
pub struct Schema {
    name: &'static str,
    history: &'static str,
    migrator: Migrator,
}

/// A migration of this release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its version; migrations are applied in the order of their versions.
    pub version: i64,
    /// What it is called.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl Schema {
    /// The schema called `name`, whose history is kept in the table `history`.
    pub fn new(name: &'static str, history: &'static str, mut migrator: Migrator) -> Self {
        migrator.dangerous_set_table_name(history);
        Self {
            name,
            history,
            migrator,
        }
    }

    /// What the database is called in messages.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Applies the migrations that are missing. Writes nothing when none is.
    pub(crate) async fn up(&self, pool: &SqlitePool) -> Result<(), SqliteError> {
        let pending: Vec<i64> = self
            .status(pool)
            .await?
            .iter()
            .filter(|migration| !migration.applied)
            .map(|migration| migration.version)
            .collect();
        if !pending.is_empty() {
            self.migrator
                .run(pool)
                .await
                .map_err(|source| self.migration(source))?;
            tracing::info!(schema = self.name, versions = ?pending, "applied migrations");
        }
        Ok(())
    }

    /// Reverts the migrations after `version`.
    pub(crate) async fn down_to(&self, pool: &SqlitePool, version: i64) -> Result<(), SqliteError> {
        self.applied(pool).await?;
        if version != 0 && !self.migrator.version_exists(version) {
            return Err(SqliteError::UnknownVersion {
                schema: self.name,
                version,
            });
        }
        self.migrator
            .undo(pool, version)
            .await
            .map_err(|source| self.migration(source))?;
        tracing::info!(schema = self.name, version, "reverted migrations");
        Ok(())
    }

    /// The migrations of this release and whether the database has them.
    pub(crate) async fn status(
        &self,
        pool: &SqlitePool,
    ) -> Result<Vec<MigrationStatus>, SqliteError> {
        let applied = self.applied(pool).await?;
        let of_migration = |migration: &Migration| MigrationStatus {
            version: migration.version,
            name: migration.description.clone().into_owned(),
            applied: applied.contains(&migration.version),
        };
        Ok(self.migrations().map(of_migration).collect())
    }

    /// The versions the database has, unless one is not as this release has it.
    pub(crate) async fn applied(&self, pool: &SqlitePool) -> Result<Vec<i64>, SqliteError> {
        let history = self.history(pool).await?;
        self.ensure_not_newer(&history)?;
        self.ensure_same(&history)?;
        Ok(history.iter().map(|applied| applied.version).collect())
    }

    /// What is written in the table of the history, by version; nothing while there is no table.
    async fn history(&self, pool: &SqlitePool) -> Result<Vec<AppliedMigration>, SqliteError> {
        const FIND: &str =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        let statement = |source| SqliteError::Statement {
            schema: self.name,
            source,
        };
        let mut connection = pool.acquire().await.map_err(statement)?;
        let exists: bool = sqlx::query_scalar(FIND)
            .bind(self.history)
            .fetch_one(&mut *connection)
            .await
            .map_err(statement)?;
        if !exists {
            return Ok(Vec::new());
        }
        connection
            .list_applied_migrations(self.history)
            .await
            .map_err(|source| self.migration(source))
    }

    fn ensure_not_newer(&self, history: &[AppliedMigration]) -> Result<(), SqliteError> {
        let known = self.migrations().map(|migration| migration.version).max();
        let known = known.unwrap_or_default();
        match history.last() {
            Some(newest) if newest.version > known => Err(SqliteError::SchemaTooNew {
                schema: self.name,
                applied: newest.version,
                known,
            }),
            _ => Ok(()),
        }
    }

    /// The migrator compares too, but not before it reverts, and is not run when none is missing.
    fn ensure_same(&self, history: &[AppliedMigration]) -> Result<(), SqliteError> {
        let is_ours = |applied: &AppliedMigration| {
            self.migrations().any(|migration| {
                migration.version == applied.version && migration.checksum == applied.checksum
            })
        };
        match history.iter().find(|applied| !is_ours(applied)) {
            Some(other) => Err(SqliteError::SchemaDiverged {
                schema: self.name,
                version: other.version,
            }),
            None => Ok(()),
        }
    }

    /// The migrations that go up, by version.
    fn migrations(&self) -> impl Iterator<Item = &Migration> {
        self.migrator
            .iter()
            .filter(|migration| migration.migration_type.is_up_migration())
    }

    fn migration(&self, source: MigrateError) -> SqliteError {
        SqliteError::Migration {
            schema: self.name,
            source,
        }
    }
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
