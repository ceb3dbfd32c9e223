//! The registry in SQLite.
//!
//! One connection writes, a few read. SQLite has one writer at a time anyway; queueing for the
//! connection is fair, where contending for the file's lock isn't. Every write begins with
//! `BEGIN IMMEDIATE`, so what it reads can't change before it commits, and it never fails half-way
//! because another process wrote first.

mod audit;
mod error;
mod extensions;
mod installs;
mod migrate;
#[cfg(test)]
mod plan;
mod rows;
mod versions;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId};
use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

use self::error::SqliteError;
use self::migrate::MigrationLock;
pub use self::migrate::MigrationStatus;
use crate::audit::{AuditFilter, AuditRecord};
use crate::change::Change;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::install::{Install, InstallEdit, InstallFilter, NewInstall};
use crate::page::{Page, PageRequest};
use crate::registry::Registry;
use crate::version::{NewVersion, Registered, Version, VersionKey};

/// Where the database is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Where the database is.
    pub location: SqliteLocation,
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
pub enum SqliteLocation {
    /// In a file, which several processes may use at once. A new one is for its owner only.
    File(PathBuf),
    /// In memory, gone when the registry is dropped.
    Memory,
}

impl SqliteOptions {
    /// A database in the file at `path`, which is made if it is missing; its folder is not.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(SqliteLocation::File(path.into()))
    }

    /// An empty database in memory.
    pub fn memory() -> Self {
        Self::at(SqliteLocation::Memory)
    }

    fn at(location: SqliteLocation) -> Self {
        Self {
            location,
            read_connections: NonZeroU32::MIN.saturating_add(3),
            busy_timeout: Duration::from_secs(5),
            migrate_on_open: true,
        }
    }
}

/// A [`Registry`] in SQLite.
///
/// Cancelling an operation rolls back what it has not committed.
#[derive(Debug, Clone)]
pub struct SqliteRegistry {
    writer: SqlitePool,
    reader: SqlitePool,
    file: Option<PathBuf>,
}

impl SqliteRegistry {
    /// Opens the database, and brings its schema up to date unless told not to.
    ///
    /// Any number of processes may open the same new file at once.
    ///
    /// # Errors
    ///
    /// [`SchemaTooNew`](RegistryError::SchemaTooNew) when a newer release has migrated the database.
    pub async fn open(options: SqliteOptions) -> Result<Self, RegistryError> {
        let migrate = options.migrate_on_open;
        let (registry, _lock) = Self::connect(options).await?;
        if migrate {
            migrate::up(&registry.writer).await?;
        } else {
            migrate::ensure_known(&registry.writer).await?;
        }
        Ok(registry)
    }

    /// Applies the migrations that are missing. Safe from several processes at once.
    pub async fn migrate_up(&self) -> Result<(), RegistryError> {
        let _lock = self.lock().await?;
        Ok(migrate::up(&self.writer).await?)
    }

    /// Reverts the migrations after `version`, the last one first, and with them what only they can
    /// store; 0 reverts all. Safe from several processes at once.
    pub async fn migrate_down_to(&self, version: i64) -> Result<(), RegistryError> {
        let _lock = self.lock().await?;
        Ok(migrate::down_to(&self.writer, version).await?)
    }

    /// The migrations of this release and whether the database has them. Writes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, RegistryError> {
        Ok(migrate::status(&self.reader).await?)
    }

    /// Waits for what is going on and closes the database.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Connects, and holds the lock under which the schema is made.
    async fn connect(options: SqliteOptions) -> Result<(Self, Option<MigrationLock>), SqliteError> {
        match &options.location {
            SqliteLocation::Memory => Ok((Self::connect_memory(&options).await?, None)),
            SqliteLocation::File(path) => {
                // An absolute path is never taken for a `file:` URI.
                let path = std::path::absolute(path)?;
                // Switching a new file to write-ahead logging doesn't wait for others who do the
                // same, so it happens under the lock too.
                let lock = MigrationLock::acquire(&path).await?;
                migrate::create_private(&path).await?;
                Ok((Self::connect_file(path, &options).await?, Some(lock)))
            }
        }
    }

    async fn connect_file(path: PathBuf, options: &SqliteOptions) -> Result<Self, SqliteError> {
        let connect = connect_options(options).filename(&path);
        let writer = pool_options(NonZeroU32::MIN, options)
            .connect_with(connect.clone().journal_mode(SqliteJournalMode::Wal))
            .await?;
        let reader = pool_options(options.read_connections, options)
            .connect_lazy_with(connect.pragma("query_only", "ON"));
        Ok(Self {
            writer,
            reader,
            file: Some(path),
        })
    }

    async fn connect_memory(options: &SqliteOptions) -> Result<Self, SqliteError> {
        let connect = connect_options(options).in_memory(true);
        let only = pool_options(NonZeroU32::MIN, options)
            .connect_with(connect)
            .await?;
        Ok(Self {
            writer: only.clone(),
            reader: only,
            file: None,
        })
    }

    async fn lock(&self) -> Result<Option<MigrationLock>, SqliteError> {
        match self.file.as_deref() {
            Some(path) => Ok(Some(MigrationLock::acquire(path).await?)),
            None => Ok(None),
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, SqliteError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn register_version(
        &self,
        new: &NewVersion,
        change: Change<'_>,
    ) -> Result<Registered, RegistryError> {
        new.ensure_valid()?;
        change.ensure_valid()?;
        let mut tx = self.begin().await?;
        let registered = versions::register(&mut tx, new, change).await?;
        commit(tx).await?;
        Ok(registered)
    }

    async fn extension(&self, key: &ExtensionKey) -> Result<Option<Extension>, RegistryError> {
        Ok(extensions::find(&self.reader, key).await?)
    }

    async fn extensions(
        &self,
        page: PageRequest<ExtensionName>,
    ) -> Result<Page<Extension, ExtensionName>, RegistryError> {
        page.ensure_valid()?;
        Ok(extensions::list(&self.reader, page).await?)
    }

    async fn version(&self, key: &VersionKey) -> Result<Option<Version>, RegistryError> {
        Ok(versions::find(&self.reader, key).await?)
    }

    async fn versions(
        &self,
        extension_id: Uuid,
        page: PageRequest<Uuid>,
    ) -> Result<Page<Version, Uuid>, RegistryError> {
        page.ensure_valid()?;
        Ok(versions::list(&self.reader, extension_id, page).await?)
    }

    async fn create_install(
        &self,
        new: &NewInstall,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        new.ensure_valid()?;
        change.ensure_valid()?;
        let mut tx = self.begin().await?;
        let install = installs::create(&mut tx, new, change).await?;
        commit(tx).await?;
        Ok(install)
    }

    async fn install(&self, id: InstallId) -> Result<Option<Install>, RegistryError> {
        Ok(installs::find(&self.reader, id).await?)
    }

    async fn installs(
        &self,
        filter: &InstallFilter,
        page: PageRequest<InstallId>,
    ) -> Result<Page<Install, InstallId>, RegistryError> {
        page.ensure_valid()?;
        Ok(installs::list(&self.reader, filter, page).await?)
    }

    async fn edit_install(
        &self,
        id: InstallId,
        edit: InstallEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        edit.ensure_valid()?;
        change.ensure_valid()?;
        let mut tx = self.begin().await?;
        let install = installs::edit(&mut tx, id, &edit, expected_generation, change).await?;
        commit(tx).await?;
        Ok(install)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest<u64>,
    ) -> Result<Page<AuditRecord, u64>, RegistryError> {
        page.ensure_valid()?;
        Ok(audit::list(&self.reader, filter, page).await?)
    }
}

async fn commit(tx: Transaction<'static, Sqlite>) -> Result<(), SqliteError> {
    Ok(tx.commit().await?)
}

fn connect_options(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
}

/// A pool that keeps its connections: in memory, a connection that goes takes the database along.
fn pool_options(connections: NonZeroU32, options: &SqliteOptions) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections.get())
        .acquire_timeout(options.busy_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        // The pool tests a connection when it comes back; once more before each use would cost
        // every lookup a second trip to the connection's thread.
        .test_before_acquire(false)
}

/// What a listing fetches: one row more than asked for, which tells whether there is a next page.
fn lookahead(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// A number as SQLite stores it.
fn signed(number: u64) -> Result<i64, SqliteError> {
    i64::try_from(number).map_err(|error| {
        RegistryError::Internal {
            source: error.into(),
        }
        .into()
    })
}

fn json_text(value: &impl serde::Serialize) -> Result<String, SqliteError> {
    serde_json::to_string(value).map_err(|error| {
        RegistryError::Internal {
            source: error.into(),
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use alga_model::{ContentHash, Timestamp};
    use tempfile::TempDir;

    use super::*;

    fn change() -> Change<'static> {
        Change {
            actor: "admin",
            request_id: None,
            now: Timestamp::from_millis(1_795_286_981_000),
        }
    }

    fn notes() -> NewVersion {
        NewVersion {
            name: "com.example.notes".parse().unwrap(),
            publisher: "Example Inc.".to_owned(),
            version: "1.0.0".to_owned(),
            content_hash: ContentHash::of(b"notes"),
            manifest: "{}".to_owned(),
            size: 5,
        }
    }

    /// A database in `folder` where nobody waits long.
    fn impatient(folder: &TempDir) -> SqliteOptions {
        let busy_timeout = Duration::from_millis(200);
        SqliteOptions {
            busy_timeout,
            ..SqliteOptions::file(folder.path().join("registry.db"))
        }
    }

    async fn pragma(pool: &SqlitePool, sql: &'static str) -> String {
        sqlx::query_scalar::<_, String>(sql)
            .fetch_one(pool)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_file_is_durable_checked_and_read_while_it_is_written() {
        let folder = TempDir::new().unwrap();
        let registry = SqliteRegistry::open(impatient(&folder)).await.unwrap();
        for pool in [&registry.writer, &registry.reader] {
            assert_eq!(
                pragma(pool, "SELECT journal_mode FROM pragma_journal_mode").await,
                "wal"
            );
            assert_eq!(
                pragma(
                    pool,
                    "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous"
                )
                .await,
                "2"
            );
            assert_eq!(
                pragma(
                    pool,
                    "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys"
                )
                .await,
                "1"
            );
        }
        let written = sqlx::query("DELETE FROM registry_audit")
            .execute(&registry.reader)
            .await;
        assert!(written.is_err(), "a reading connection wrote");

        let mut tx = registry.begin().await.unwrap();
        versions::register(&mut tx, &notes(), change())
            .await
            .unwrap();
        let key = ExtensionKey::Name(notes().name);
        assert_eq!(registry.extension(&key).await.unwrap(), None);
        commit(tx).await.unwrap();
        assert!(registry.extension(&key).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_writer_that_waits_too_long_is_told_so() {
        let folder = TempDir::new().unwrap();
        let ours = SqliteRegistry::open(impatient(&folder)).await.unwrap();
        let theirs = SqliteRegistry::open(impatient(&folder)).await.unwrap();
        let tx = theirs.begin().await.unwrap();
        for registry in [&ours, &theirs] {
            let refused = registry.register_version(&notes(), change()).await;
            assert!(
                matches!(refused, Err(RegistryError::Unavailable { .. })),
                "{refused:?}"
            );
        }
        drop(tx);
        assert!(
            ours.register_version(&notes(), change())
                .await
                .unwrap()
                .created
        );
    }

    #[tokio::test]
    async fn no_more_reads_run_at_once_than_allowed() {
        let folder = TempDir::new().unwrap();
        let two = NonZeroU32::MIN.saturating_add(1);
        let options = SqliteOptions {
            read_connections: two,
            ..impatient(&folder)
        };
        let registry = SqliteRegistry::open(options).await.unwrap();
        let first = registry.reader.acquire().await.unwrap();
        assert!(registry.install(InstallId::generate()).await.is_ok());
        let second = registry.reader.acquire().await.unwrap();
        let refused = registry.install(InstallId::generate()).await;
        assert!(
            matches!(refused, Err(RegistryError::Unavailable { .. })),
            "{refused:?}"
        );
        drop((first, second));
        assert!(registry.install(InstallId::generate()).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_not_committed_is_undone() {
        let registry = SqliteRegistry::open(SqliteOptions::memory()).await.unwrap();
        let mut tx = registry.begin().await.unwrap();
        versions::register(&mut tx, &notes(), change())
            .await
            .unwrap();
        drop(tx);
        assert!(
            registry
                .register_version(&notes(), change())
                .await
                .unwrap()
                .created
        );
    }
}
