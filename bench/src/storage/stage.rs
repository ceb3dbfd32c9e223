//! A database file with one install that may do anything in it.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use alga_model::{SystemClock, TenantId};
use alga_sqlite::Options;
use alga_storage::{Namespace, SqliteBackend};

use super::bare::Bare;
use super::install::Install;

/// An install in a database of its own.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    install: Install,
    backend: Arc<SqliteBackend>,
}

impl Stage {
    /// Opens a new database in the file at `path`. The install may use `namespaces`.
    pub(crate) async fn open(
        path: PathBuf,
        namespaces: impl IntoIterator<Item = Namespace>,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::default());
        let backend = Arc::new(SqliteBackend::open(Options::file(path), clock).await?);
        let tenant = TenantId::generate();
        let install = Install::new(Arc::clone(&backend) as _, tenant, namespaces)?;
        Ok(Self { install, backend })
    }

    /// The same database without the contract: bare statements for the same tenant and install.
    pub(crate) fn bare(&self) -> Bare<'_> {
        let database = self.backend.database();
        Bare::new(database, self.install.tenant(), self.install.id())
    }
}

impl Deref for Stage {
    type Target = Install;

    fn deref(&self) -> &Install {
        &self.install
    }
}
