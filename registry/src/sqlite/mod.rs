//! The registry in SQLite.
//!
//! Every mutation is one transaction that has the write lock from its beginning, so what it reads
//! can't change before it commits.

mod audit;
mod error;
mod extensions;
mod installs;
#[cfg(test)]
mod plan;
mod rows;
mod switches;
mod tenants;
mod versions;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_sqlite::{Database, Options, Schema};
use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use self::error::SqliteError;
use crate::audit::{AuditFilter, AuditRecord, ensure_removal_limit};
use crate::change::Change;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::install::{Install, InstallEdit, InstallFilter, NewInstall};
use crate::page::{Page, PageRequest};
use crate::registry::Registry;
use crate::switches::{Switches, SwitchesEdit};
use crate::tenant::{TenantEdit, TenantSettings};
use crate::version::{NewVersion, Registered, Version, VersionKey};

/// A [`Registry`] in SQLite.
///
/// Several processes may use one file: each sees what the others committed, and their writes wait
/// for one another. Cancelling an operation rolls back what it has not committed.
#[derive(Debug)]
pub struct SqliteRegistry {
    database: Database,
}

impl SqliteRegistry {
    /// Opens the database.
    ///
    /// # Errors
    /// See [`Database::open`].
    pub async fn open(options: Options) -> Result<Self, alga_sqlite::SqliteError> {
        let database = Database::open(Self::schema(), options).await?;
        Ok(Self { database })
    }

    /// The database itself, to migrate or to close it.
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        Ok(self.database.ping().await.map_err(SqliteError::from)?)
    }

    fn schema() -> Schema {
        Schema::new(
            "registry",
            "_registry_migrations",
            sqlx::migrate!("../migrations/registry/sqlite"),
        )
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, SqliteError> {
        Ok(self.database.begin().await?)
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
        Ok(extensions::find(self.database.reader(), key).await?)
    }

    async fn extensions(
        &self,
        page: PageRequest<ExtensionName>,
    ) -> Result<Page<Extension, ExtensionName>, RegistryError> {
        page.ensure_valid()?;
        Ok(extensions::list(self.database.reader(), page).await?)
    }

    async fn version(&self, key: &VersionKey) -> Result<Option<Version>, RegistryError> {
        Ok(versions::find(self.database.reader(), key).await?)
    }

    async fn versions(
        &self,
        extension_id: Uuid,
        page: PageRequest<Uuid>,
    ) -> Result<Page<Version, Uuid>, RegistryError> {
        page.ensure_valid()?;
        Ok(versions::list(self.database.reader(), extension_id, page).await?)
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
        Ok(installs::find(self.database.reader(), id).await?)
    }

    async fn installs(
        &self,
        filter: &InstallFilter,
        page: PageRequest<InstallId>,
    ) -> Result<Page<Install, InstallId>, RegistryError> {
        page.ensure_valid()?;
        Ok(installs::list(self.database.reader(), filter, page).await?)
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

    async fn switches(&self) -> Result<Switches, RegistryError> {
        Ok(switches::find(self.database.reader()).await?)
    }

    async fn edit_switches(
        &self,
        edit: SwitchesEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Switches, RegistryError> {
        edit.ensure_valid()?;
        change.ensure_valid()?;
        let mut tx = self.begin().await?;
        let switches = switches::edit(&mut tx, &edit, expected_generation, change).await?;
        commit(tx).await?;
        Ok(switches)
    }

    async fn tenant_settings(&self, tenant: TenantId) -> Result<TenantSettings, RegistryError> {
        Ok(tenants::find(self.database.reader(), tenant).await?)
    }

    async fn tenants_with_settings(
        &self,
        page: PageRequest<TenantId>,
    ) -> Result<Page<TenantSettings, TenantId>, RegistryError> {
        page.ensure_valid()?;
        Ok(tenants::list(self.database.reader(), page).await?)
    }

    async fn edit_tenant(
        &self,
        tenant: TenantId,
        edit: TenantEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<TenantSettings, RegistryError> {
        edit.ensure_valid()?;
        change.ensure_valid()?;
        let mut tx = self.begin().await?;
        let settings = tenants::edit(&mut tx, tenant, &edit, expected_generation, change).await?;
        commit(tx).await?;
        Ok(settings)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest<u64>,
    ) -> Result<Page<AuditRecord, u64>, RegistryError> {
        page.ensure_valid()?;
        Ok(audit::list(self.database.reader(), filter, page).await?)
    }

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        ensure_removal_limit(limit)?;
        let mut tx = self.begin().await?;
        let removed = audit::remove(&mut tx, before, limit).await?;
        commit(tx).await?;
        Ok(removed)
    }
}

async fn commit(tx: Transaction<'static, Sqlite>) -> Result<(), SqliteError> {
    Ok(tx.commit().await?)
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
