//! Opens the databases of a deployment: files in the data folder, or PostgreSQL.

use std::path::Path;
use std::sync::Arc;

use alga_model::Clock;
use alga_postgres::Options as PostgresOptions;
use alga_registry::{PostgresRegistry, RegistryDatabase, SqliteRegistry};
use alga_sqlite::Options as SqliteOptions;
use alga_storage::{PostgresBackend, SqliteBackend, StorageDatabase};
use anyhow::Context as _;

use crate::config::Config;

/// The databases of a deployment.
#[derive(Debug)]
pub(crate) struct Databases {
    /// None where another process keeps the records.
    pub(crate) storage: Option<Arc<dyn StorageDatabase>>,
    pub(crate) registry: Arc<dyn RegistryDatabase>,
}

impl Databases {
    /// Opens what `config` names, and brings the schemas up to date unless told not to.
    pub(crate) async fn open(
        config: &Config,
        clock: &Arc<dyn Clock>,
        migrate_on_open: bool,
    ) -> anyhow::Result<Self> {
        match config.database.postgres(migrate_on_open) {
            Some(options) => Self::in_postgres(config, &options).await,
            None => Self::in_files(config, clock, migrate_on_open).await,
        }
    }

    async fn in_postgres(config: &Config, options: &PostgresOptions) -> anyhow::Result<Self> {
        let cannot = || {
            let setting = config.named("database.url");
            format!("cannot use the database that {setting} names")
        };
        let storage: Option<Arc<dyn StorageDatabase>> = if config.role().keeps_storage() {
            let opened = PostgresBackend::open(options).await;
            Some(Arc::new(opened.with_context(cannot)?))
        } else {
            None
        };
        let opened = PostgresRegistry::open(options).await;
        let registry = opened.with_context(cannot)?;
        Ok(Self {
            storage,
            registry: Arc::new(registry),
        })
    }

    async fn in_files(
        config: &Config,
        clock: &Arc<dyn Clock>,
        migrate_on_open: bool,
    ) -> anyhow::Result<Self> {
        let storage: Option<Arc<dyn StorageDatabase>> = if config.role().keeps_storage() {
            let file = config.data.storage_database();
            let options = SqliteOptions {
                read_connections: config.storage.read_connections,
                ..in_file(&file, migrate_on_open)
            };
            let opened = SqliteBackend::open(options, Arc::clone(clock)).await;
            Some(Arc::new(opened.with_context(|| cannot_use(&file))?))
        } else {
            None
        };
        let file = config.data.registry_database();
        let opened = SqliteRegistry::open(in_file(&file, migrate_on_open)).await;
        let registry = opened.with_context(|| cannot_use(&file))?;
        Ok(Self {
            storage,
            registry: Arc::new(registry),
        })
    }
}

fn in_file(path: &Path, migrate_on_open: bool) -> SqliteOptions {
    SqliteOptions {
        migrate_on_open,
        ..SqliteOptions::file(path)
    }
}

/// What to say where something of the data folder can't be used.
pub(crate) fn cannot_use(path: &Path) -> String {
    format!("cannot use {}", path.display())
}
