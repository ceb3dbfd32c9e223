//! The history of a schema, and the lock under which it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::SqlitePool;
use sqlx::migrate::{Migrate as _, Migration, Migrator};
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

    /// Applies the migrations that are missing.
    pub(crate) async fn up(&self, pool: &SqlitePool) -> Result<(), SqliteError> {
        let pending: Vec<i64> = self
            .status(pool)
            .await?
            .iter()
            .filter(|m| !m.applied)
            .map(|m| m.version)
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
        self.ensure_known(pool).await?;
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
        let applied = self.ensure_known(pool).await?;
        let of_migration = |migration: &Migration| MigrationStatus {
            version: migration.version,
            name: migration.description.clone().into_owned(),
            applied: applied.contains(&migration.version),
        };
        Ok(self
            .migrator
            .iter()
            .filter(|m| m.migration_type.is_up_migration())
            .map(of_migration)
            .collect())
    }

    /// The versions that are applied to the database, unless one is newer than this release.
    pub(crate) async fn ensure_known(&self, pool: &SqlitePool) -> Result<Vec<i64>, SqliteError> {
        const FIND_HISTORY: &str =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        let statement = |source| SqliteError::Statement {
            schema: self.name,
            source,
        };
        let mut connection = pool.acquire().await.map_err(statement)?;
        let has_history: bool = sqlx::query_scalar(FIND_HISTORY)
            .bind(self.history)
            .fetch_one(&mut *connection)
            .await
            .map_err(statement)?;
        if !has_history {
            return Ok(Vec::new());
        }
        let applied: Vec<i64> = connection
            .list_applied_migrations(self.history)
            .await
            .map_err(|source| self.migration(source))?
            .iter()
            .map(|migration| migration.version)
            .collect();
        let known = self
            .migrator
            .iter()
            .map(|migration| migration.version)
            .max()
            .unwrap_or_default();
        match applied.iter().max() {
            Some(&applied) if applied > known => Err(SqliteError::SchemaTooNew {
                schema: self.name,
                applied,
                known,
            }),
            _ => Ok(applied),
        }
    }

    fn migration(&self, source: sqlx::migrate::MigrateError) -> SqliteError {
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
    run_blocking(move || open_private(&path).map(drop)).await
}

fn lock(path: &Path) -> io::Result<File> {
    let file = open_private(path)?;
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

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
