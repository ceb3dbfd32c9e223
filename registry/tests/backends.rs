//! Every backend shows the behaviour of the suite.

use std::ops::Deref;

use alga_model::Secret;
use alga_postgres::PostgresError;
use alga_registry::{PostgresRegistry, Registry, SqliteRegistry, registry_suite};
use alga_sqlite::{Options, SqliteError};
use alga_test_postgres::{NewerPgBouncer, PgBouncer, TestDatabase};
use tempfile::TempDir;

registry_suite!(
    sqlite_in_memory,
    Box::new(SqliteRegistry::open(Options::memory()).await?)
);
registry_suite!(sqlite_file, FileRegistry::open().await?);
registry_suite!(postgres, Box::new(on_postgres().await?));
registry_suite!(pgbouncer, PooledRegistry::open().await?);
registry_suite!(
    pgbouncer_that_keeps_statements,
    match PooledRegistry::open_with_statements_kept().await? {
        Some(registry) => registry,
        // Which was told.
        None => return Ok(()),
    }
);

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
    /// Of a pooler: fewer than clients, so that no session is anybody's own.
    const SESSIONS: u32 = 4;

    async fn open() -> Result<Self, PostgresError> {
        let database = TestDatabase::create().await;
        let pooler = PgBouncer::before(&database, Self::SESSIONS);
        Self::through(pooler, &database, false).await
    }

    /// None, which is told, where there is no `PgBouncer` that is new enough.
    async fn open_with_statements_kept() -> Result<Option<Self>, PostgresError> {
        const STATEMENTS: u32 = 200;
        let Some(program) = NewerPgBouncer::find() else {
            return Ok(None);
        };
        let database = TestDatabase::create().await;
        let pooler = program.before(&database, Self::SESSIONS, STATEMENTS);
        Self::through(pooler, &database, true).await.map(Some)
    }

    async fn through(
        pooler: PgBouncer,
        database: &TestDatabase,
        prepared_statements: bool,
    ) -> Result<Self, PostgresError> {
        let options = alga_postgres::Options {
            direct_url: Some(Secret::new(database.url.clone())),
            prepared_statements,
            ..alga_postgres::Options::at(Secret::new(pooler.url_of(database)))
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
