//! Every backend shows the behaviour of the suite.

use std::ops::Deref;

use alga_model::Secret;
use alga_postgres::PostgresError;
use alga_registry::{PostgresRegistry, Registry, SqliteRegistry, registry_suite};
use alga_sqlite::{Options, SqliteError};
use alga_test_postgres::TestDatabase;
use tempfile::TempDir;

registry_suite!(
    sqlite_in_memory,
    Box::new(SqliteRegistry::open(Options::memory()).await?)
);
registry_suite!(sqlite_file, FileRegistry::open().await?);
registry_suite!(postgres, Box::new(on_postgres().await?));

async fn on_postgres() -> Result<PostgresRegistry, PostgresError> {
    let database = TestDatabase::create().await;
    PostgresRegistry::open(&alga_postgres::Options::at(Secret::new(database.url))).await
}

/// A registry in a file that is removed with it.
struct FileRegistry {
    registry: SqliteRegistry,
    _folder: TempDir,
}

impl FileRegistry {
    async fn open() -> Result<Self, SqliteError> {
        let folder = TempDir::new().expect("the system has room for a folder");
        let registry =
            SqliteRegistry::open(Options::file(folder.path().join("registry.db"))).await?;
        Ok(Self {
            registry,
            _folder: folder,
        })
    }
}

impl Deref for FileRegistry {
    type Target = dyn Registry;

    fn deref(&self) -> &Self::Target {
        &self.registry
    }
}
