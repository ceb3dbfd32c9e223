//! The schema's history, and the lock under which it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::SqlitePool;
use sqlx::migrate::{Migration, Migrator};
use tokio::task::spawn_blocking;

use super::error::SqliteError;
use crate::error::RegistryError;

/// Where the history is kept. The storage has its own, so both can share a database.
const HISTORY: &str = "_registry_migrations";
const FIND_HISTORY: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
const APPLIED: &str = "SELECT version FROM _registry_migrations ORDER BY version";

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

/// Applies the migrations that are missing.
pub(super) async fn up(pool: &SqlitePool) -> Result<(), SqliteError> {
    let pending: Vec<i64> = status(pool)
        .await?
        .into_iter()
        .filter(|migration| !migration.applied)
        .map(|m| m.version)
        .collect();
    migrator().run(pool).await?;
    if !pending.is_empty() {
        tracing::info!(versions = ?pending, "applied migrations to the registry database");
    }
    Ok(())
}

/// Reverts the migrations after `version`.
pub(super) async fn down_to(pool: &SqlitePool, version: i64) -> Result<(), SqliteError> {
    ensure_known(pool).await?;
    if version != 0 && !migrator().version_exists(version) {
        let rule = "0 or the version of a migration";
        return Err(RegistryError::Invalid {
            field: "schema version",
            rule,
        }
        .into());
    }
    migrator().undo(pool, version).await?;
    tracing::info!(version, "reverted migrations of the registry database");
    Ok(())
}

/// The migrations of this release and whether the database has them.
pub(super) async fn status(pool: &SqlitePool) -> Result<Vec<MigrationStatus>, SqliteError> {
    let applied = ensure_known(pool).await?;
    let of_migration = |migration: &Migration| MigrationStatus {
        version: migration.version,
        name: migration.description.clone().into_owned(),
        applied: applied.contains(&migration.version),
    };
    Ok(migrator()
        .iter()
        .filter(|m| m.migration_type.is_up_migration())
        .map(of_migration)
        .collect())
}

/// The versions that are applied to the database, unless one is newer than this release.
pub(super) async fn ensure_known(pool: &SqlitePool) -> Result<Vec<i64>, SqliteError> {
    let mut connection = pool.acquire().await?;
    let has_history: bool = sqlx::query_scalar(FIND_HISTORY)
        .bind(HISTORY)
        .fetch_one(&mut *connection)
        .await?;
    if !has_history {
        return Ok(Vec::new());
    }
    let applied: Vec<i64> = sqlx::query_scalar(APPLIED)
        .fetch_all(&mut *connection)
        .await?;
    let known = migrator()
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default();
    match applied.last() {
        Some(&applied) if applied > known => {
            Err(RegistryError::SchemaTooNew { applied, known }.into())
        }
        _ => Ok(applied),
    }
}

/// Makes an empty file at `path` that only its owner can read, unless there is one. SQLite gives
/// the files it puts beside a database the permissions of the database.
pub(super) async fn create_private(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    run_blocking(move || open_private(&path).map(drop)).await
}

/// Keeps other processes, and other registries in this one, from changing the schema of a
/// database. Released when dropped, or by the operating system when the process dies.
#[derive(Debug)]
pub(super) struct MigrationLock {
    _file: File,
}

impl MigrationLock {
    /// Waits for the lock of the database at `path`.
    ///
    /// SQLite's own locks don't do: a migration is several transactions, and the lock has to be
    /// held between them.
    pub(super) async fn acquire(path: &Path) -> io::Result<Self> {
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

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/registry/sqlite");
    migrator.dangerous_set_table_name(HISTORY);
    migrator
}

fn lock(path: &Path) -> io::Result<File> {
    let file = open_private(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!("waiting for another process to finish with the registry's schema");
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::Row;
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::sqlite::{SqliteOptions, SqliteRegistry};

    /// The statements of the schema, without the table in which SQLite keeps the last number of an
    /// AUTOINCREMENT column, which can't be dropped.
    async fn schema(registry: &SqliteRegistry) -> Vec<String> {
        let sql = "SELECT coalesce(sql, name) FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name";
        let rows = sqlx::query(sql).fetch_all(&registry.reader).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    #[tokio::test]
    async fn going_down_and_up_again_leaves_the_same_schema() {
        let registry = SqliteRegistry::open(SqliteOptions::memory()).await.unwrap();
        let versions: Vec<_> = registry
            .migration_status()
            .await
            .unwrap()
            .iter()
            .map(|m| m.version)
            .collect();
        for down_to in versions.iter().rev().skip(1).chain([&0]) {
            let before = schema(&registry).await;
            registry.migrate_down_to(*down_to).await.unwrap();
            let status = registry.migration_status().await.unwrap();
            assert!(
                status
                    .iter()
                    .all(|migration| migration.applied == (migration.version <= *down_to))
            );
            assert_ne!(schema(&registry).await, before);
            registry.migrate_up().await.unwrap();
            assert_eq!(schema(&registry).await, before);
        }
    }

    #[tokio::test]
    async fn going_all_the_way_down_leaves_only_the_history() {
        let registry = SqliteRegistry::open(SqliteOptions::memory()).await.unwrap();
        registry.migrate_down_to(0).await.unwrap();
        let left = schema(&registry).await;
        assert_eq!(left.len(), 2, "{left:#?}");
        assert!(
            left.iter().all(|statement| statement.contains(HISTORY)),
            "{left:#?}"
        );
    }

    #[tokio::test]
    async fn every_migration_can_be_reverted() {
        let of_type = |is_up: bool| {
            let migrations = migrator();
            let chosen = migrations
                .iter()
                .filter(|m| m.migration_type.is_up_migration() == is_up);
            chosen
                .map(|m| (m.version, m.description.clone()))
                .collect::<Vec<_>>()
        };
        assert!(!of_type(true).is_empty());
        assert_eq!(of_type(true), of_type(false));
    }

    #[tokio::test]
    async fn a_target_that_is_no_migration_is_refused() {
        let registry = SqliteRegistry::open(SqliteOptions::memory()).await.unwrap();
        for version in [-1, i64::MAX] {
            let refused = registry.migrate_down_to(version).await;
            assert!(
                matches!(refused, Err(RegistryError::Invalid { .. })),
                "{refused:?}"
            );
        }
        assert!(
            registry
                .migration_status()
                .await
                .unwrap()
                .iter()
                .all(|migration| migration.applied)
        );
    }

    #[tokio::test]
    async fn the_status_of_a_new_database_writes_nothing() {
        let options = SqliteOptions {
            migrate_on_open: false,
            ..SqliteOptions::memory()
        };
        let registry = SqliteRegistry::open(options).await.unwrap();
        let status = registry.migration_status().await.unwrap();
        assert!(!status.is_empty() && status.iter().all(|migration| !migration.applied));
        assert_eq!(schema(&registry).await, Vec::<String>::new());
        registry.migrate_up().await.unwrap();
        assert!(
            registry
                .migration_status()
                .await
                .unwrap()
                .iter()
                .all(|migration| migration.applied)
        );
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_whatever_is_asked() {
        let folder = TempDir::new().unwrap();
        let options = SqliteOptions::file(folder.path().join("registry.db"));
        let registry = SqliteRegistry::open(options.clone()).await.unwrap();
        let known = registry
            .migration_status()
            .await
            .unwrap()
            .last()
            .unwrap()
            .version;
        let newer = "INSERT INTO _registry_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'of a later release', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&registry.writer).await.unwrap();

        let lenient = SqliteOptions {
            migrate_on_open: false,
            ..options.clone()
        };
        for refused in [
            SqliteRegistry::open(options).await.err(),
            SqliteRegistry::open(lenient).await.err(),
            registry.migrate_up().await.err(),
            registry.migrate_down_to(0).await.err(),
            registry.migration_status().await.err(),
        ] {
            let told = matches!(refused, Some(RegistryError::SchemaTooNew { applied: 9999, known: k }) if k == known);
            assert!(told, "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
        let registry = SqliteRegistry::open(SqliteOptions::memory()).await.unwrap();
        let other = "UPDATE _registry_migrations SET checksum = x'00' WHERE version = 1";
        sqlx::query(other).execute(&registry.writer).await.unwrap();
        let refused = registry.migrate_up().await;
        assert!(
            matches!(refused, Err(RegistryError::SchemaDiverged { version: 1 })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn opening_waits_for_who_changes_the_schema() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("registry.db");
        let held = MigrationLock::acquire(&path).await.unwrap();
        let mut opening = tokio::spawn(SqliteRegistry::open(SqliteOptions::file(&path)));
        assert!(
            timeout(Duration::from_millis(100), &mut opening)
                .await
                .is_err()
        );
        assert!(!path.exists());
        drop(held);
        opening.await.unwrap().unwrap();
    }
}
