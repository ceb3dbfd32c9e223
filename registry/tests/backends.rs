//! Every backend shows the behaviour of the suite.

use std::ops::Deref;

use alga_model::Secret;
use alga_postgres::PostgresError;
use alga_registry::{PostgresRegistry, Registry, SqliteRegistry, registry_suite};
use alga_sqlite::{Options, SqliteError};
use alga_test_postgres::{PgBouncer, TestDatabase};
use tempfile::TempDir;

registry_suite!(
    sqlite_in_memory,
    Box::new(SqliteRegistry::open(Options::memory()).await?)
);
registry_suite!(sqlite_file, FileRegistry::open().await?);
registry_suite!(postgres, Box::new(on_postgres().await?));
registry_suite!(pgbouncer, PooledRegistry::open().await?);

async fn on_postgres() -> Result<PostgresRegistry, PostgresError> {
    let database = TestDatabase::create().await;
    PostgresRegistry::open(&alga_postgres::Options::at(Secret::new(database.url))).await
}

/// A registry that shares its few sessions with others, through a pooler that ends with it.
struct PooledRegistry {
    registry: PostgresRegistry,
    _pooler: PgBouncer,
}

impl PooledRegistry {
    async fn open() -> Result<Self, PostgresError> {
        const SESSIONS: u32 = 4;
        let database = TestDatabase::create().await;
        let pooler = PgBouncer::before(&database, SESSIONS);
        let options = alga_postgres::Options {
            direct_url: Some(Secret::new(database.url.clone())),
            prepared_statements: false,
            ..alga_postgres::Options::at(Secret::new(pooler.url_of(&database)))
        };
        Ok(Self {
            registry: PostgresRegistry::open(&options).await?,
            _pooler: pooler,
        })
    }
}

impl Deref for PooledRegistry {
    type Target = dyn Registry;

    fn deref(&self) -> &Self::Target {
        &self.registry
    }
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
