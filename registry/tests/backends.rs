//! Every backend shows the behaviour of the suite.

use std::ops::Deref;

use alga_registry::{Registry, SqliteRegistry, registry_suite};
use alga_sqlite::{Options, SqliteError};
use tempfile::TempDir;

registry_suite!(
    sqlite_in_memory,
    Box::new(SqliteRegistry::open(Options::memory()).await?)
);
registry_suite!(sqlite_file, FileRegistry::open().await?);

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
