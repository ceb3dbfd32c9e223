//! The registry in PostgreSQL.
//!
//! Every mutation is one transaction in READ COMMITTED. Before it reads what it decides by, it locks the
//! row, so that of two at once the second one reads what the first one left.
//!
//! Who locks several rows does so in this order, so that nobody waits in a circle:
//!
//! 1. an extension, by who adds a version to it or removes one,
//! 2. an install, by who changes it, and shared by who claims a request to it,
//! 3. a version, by who removes it, and shared by who makes something refer to it,
//! 4. a tenant's settings, or the switches, by who changes them, the latter shared by who installs,
//! 5. what is counted of the answers of tenants, in the order of their ids, by who keeps or removes any,
//! 6. the answers,
//! 7. the last number of the audit, which every mutation takes right before it is committed.

mod answers;
mod audit;
mod changed;
mod error;
mod extensions;
mod identity;
mod installs;
#[cfg(test)]
mod plan;
mod row;
mod session;
mod switches;
mod tenants;
mod uploads;
mod versions;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_postgres::{Database, Options, Schema};
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use self::changed::{CHANNEL, PostgresListener};
use self::error::PostgresError;
use self::session::Session;
use crate::audit::{AuditFilter, AuditRecord, ensure_removal_limit};
use crate::change::Change;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::grant::Grants;
use crate::idempotency::{self, AnswerQuotas, Claim, Claimed, KeptAnswer, KeyedRequest, Known};
use crate::install::{Install, InstallEdit, InstallFilter, InstallState, NewInstall};
use crate::listener::Listener;
use crate::page::{Page, PageRequest};
use crate::registry::{Registry, RegistryDatabase};
use crate::switches::{Switches, SwitchesEdit};
use crate::tenant::{TenantEdit, TenantSettings};
use crate::upload::{self, BundleUpload, NewBundleUpload, UploadEnd, UploadProgress};
use crate::version::{NewVersion, Registered, Version, VersionKey, VersionSummary};

/// A [`Registry`] in PostgreSQL.
///
/// Any number of processes may use one database. An operation that nobody waits for any more is done as
/// a whole or not at all.
#[derive(Debug)]
pub struct PostgresRegistry {
    database: Database,
}

impl PostgresRegistry {
    /// Opens the database.
    ///
    /// # Errors
    /// See [`Database::open`].
    pub async fn open(options: &Options) -> Result<Self, alga_postgres::PostgresError> {
        const NOTHING: &str = "";
        let database = Database::open(Self::schema(), NOTHING, options).await?;
        Ok(Self { database })
    }

    /// The database itself, to migrate or to close it.
    pub const fn database(&self) -> &Database {
        &self.database
    }

    fn schema() -> Schema {
        Schema::new(
            "registry",
            "_registry_migrations",
            sqlx::migrate!("../migrations/registry/postgres"),
        )
    }

    /// Does one statement that changes nothing.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(Session<'_>) -> Result<T, PostgresError> + Clone,
    ) -> Result<T, RegistryError> {
        let statements = self.database.statements();
        let work = async move |connection: &mut PgConnection| {
            work(Session::new(connection, statements)).await
        };
        Ok(self.database.read(work).await?)
    }

    /// Does one statement that may change something.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(Session<'_>) -> Result<T, PostgresError> + Clone,
    ) -> Result<T, RegistryError> {
        let statements = self.database.statements();
        let work = async move |connection: &mut PgConnection| {
            work(Session::new(connection, statements)).await
        };
        Ok(self.database.write(work).await?)
    }

    /// Does several statements, in a transaction that is committed where they succeed.
    async fn transact<T>(
        &self,
        work: impl AsyncFnOnce(Session<'_>) -> Result<T, PostgresError> + Clone,
    ) -> Result<T, RegistryError> {
        let statements = self.database.statements();
        let work = async move |connection: &mut PgConnection| {
            work(Session::new(connection, statements)).await
        };
        Ok(self.database.transact(work).await?)
    }

    /// Removes what is kept for an install that is uninstalled, in batches with room for others in
    /// between.
    async fn remove_answers_of(&self, install: &Install) {
        loop {
            let removing =
                self.transact(async |mut session| answers::remove_of(&mut session, install).await);
            match removing.await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return idempotency::tell_kept_for_now(install.id, &error),
            }
        }
    }
}

#[async_trait]
impl RegistryDatabase for PostgresRegistry {
    fn database(&self) -> &dyn alga_schema::Database {
        self.database()
    }

    async fn listen(&self) -> Result<Option<Box<dyn Listener>>, RegistryError> {
        let listener = self.database.listen(CHANNEL).await?;
        Ok(Some(Box::new(PostgresListener(listener))))
    }
}

#[async_trait]
impl Registry for PostgresRegistry {
    async fn identity(&self) -> Result<Uuid, RegistryError> {
        self.read(async |mut session| identity::find(&mut session).await)
            .await
    }

    async fn register_version(
        &self,
        new: &NewVersion,
        change: Change<'_>,
    ) -> Result<Registered, RegistryError> {
        new.ensure_valid()?;
        change.ensure_valid()?;
        self.transact(async |mut session| versions::register(&mut session, new, change).await)
            .await
    }

    async fn extension(&self, key: &ExtensionKey) -> Result<Option<Extension>, RegistryError> {
        self.read(async |mut session| extensions::find(&mut session, key).await)
            .await
    }

    async fn extensions(
        &self,
        page: PageRequest<ExtensionName>,
    ) -> Result<Page<Extension, ExtensionName>, RegistryError> {
        page.ensure_valid()?;
        let page = &page;
        self.read(async |mut session| extensions::list(&mut session, page).await)
            .await
    }

    async fn version(&self, key: &VersionKey) -> Result<Option<Version>, RegistryError> {
        self.read(async |mut session| versions::find(&mut session, key).await)
            .await
    }

    async fn versions(
        &self,
        extension_id: Uuid,
        page: PageRequest<Uuid>,
    ) -> Result<Page<VersionSummary, Uuid>, RegistryError> {
        page.ensure_valid()?;
        self.read(async |mut session| versions::list(&mut session, extension_id, page).await)
            .await
    }

    async fn remove_version(&self, id: Uuid, change: Change<'_>) -> Result<(), RegistryError> {
        change.ensure_valid()?;
        self.transact(async |mut session| versions::remove(&mut session, id, change).await)
            .await
    }

    async fn create_install(
        &self,
        new: &NewInstall,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        new.ensure_valid()?;
        change.ensure_valid()?;
        self.transact(async |mut session| installs::create(&mut session, new, change).await)
            .await
    }

    async fn install(&self, id: InstallId) -> Result<Option<Install>, RegistryError> {
        self.read(async |mut session| installs::find(&mut session, id).await)
            .await
    }

    async fn installs(
        &self,
        filter: &InstallFilter,
        page: PageRequest<InstallId>,
    ) -> Result<Page<Install, InstallId>, RegistryError> {
        page.ensure_valid()?;
        self.read(async |mut session| installs::list(&mut session, filter, page).await)
            .await
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
        let edit = &edit;
        let edited = self.transact(async |mut session| {
            installs::edit(&mut session, id, edit, expected_generation, change).await
        });
        let install = edited.await?;
        if install.state == InstallState::Uninstalled {
            self.remove_answers_of(&install).await;
        }
        Ok(install)
    }

    async fn upgrade_install(
        &self,
        id: InstallId,
        version_id: Uuid,
        grants: Grants,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        change.ensure_valid()?;
        self.transact(async |mut session| {
            let session = &mut session;
            installs::upgrade(session, id, version_id, grants, expected_generation, change).await
        })
        .await
    }

    async fn roll_back_install(
        &self,
        id: InstallId,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        change.ensure_valid()?;
        self.transact(async |mut session| {
            installs::roll_back(&mut session, id, expected_generation, change).await
        })
        .await
    }

    async fn switches(&self) -> Result<Switches, RegistryError> {
        self.read(async |mut session| switches::find(&mut session).await)
            .await
    }

    async fn edit_switches(
        &self,
        edit: SwitchesEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Switches, RegistryError> {
        edit.ensure_valid()?;
        change.ensure_valid()?;
        let edit = &edit;
        self.transact(async |mut session| {
            switches::edit(&mut session, edit, expected_generation, change).await
        })
        .await
    }

    async fn tenant_settings(&self, tenant: TenantId) -> Result<TenantSettings, RegistryError> {
        self.read(async |mut session| tenants::find(&mut session, tenant).await)
            .await
    }

    async fn tenants_with_settings(
        &self,
        page: PageRequest<TenantId>,
    ) -> Result<Page<TenantSettings, TenantId>, RegistryError> {
        page.ensure_valid()?;
        self.read(async |mut session| tenants::list(&mut session, page).await)
            .await
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
        let edit = &edit;
        self.transact(async |mut session| {
            tenants::edit(&mut session, tenant, edit, expected_generation, change).await
        })
        .await
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest<u64>,
    ) -> Result<Page<AuditRecord, u64>, RegistryError> {
        page.ensure_valid()?;
        self.read(async |mut session| audit::list(&mut session, filter, page).await)
            .await
    }

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        ensure_removal_limit(limit)?;
        self.write(async |mut session| audit::remove(&mut session, before, limit).await)
            .await
    }

    async fn known_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
    ) -> Result<Option<Known>, RegistryError> {
        self.read(async |mut session| answers::find(&mut session, request, now).await)
            .await
    }

    async fn claim_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claimed, RegistryError> {
        // Goes round only where what kept it from being claimed is over, or gone by now.
        loop {
            let claiming =
                self.write(async |mut session| answers::claim(&mut session, request, until).await);
            if let Some(claim) = claiming.await? {
                return Ok(Claimed::Ours(claim));
            }
            let looking = self.transact(async |mut session| {
                answers::known_or_freed(&mut session, request, now).await
            });
            if let Some(known) = looking.await? {
                return Ok(Claimed::Known(known));
            }
        }
    }

    async fn keep_answer(
        &self,
        claim: &Claim,
        answer: &KeptAnswer,
        until: Timestamp,
        quotas: AnswerQuotas,
    ) -> Result<bool, RegistryError> {
        answer.ensure_valid()?;
        self.transact(async |mut session| {
            answers::keep(&mut session, claim, answer, until, quotas).await
        })
        .await
    }

    async fn give_up_request(&self, claim: &Claim) -> Result<(), RegistryError> {
        self.write(async |mut session| answers::give_up(&mut session, claim).await)
            .await
    }

    async fn remove_answers(&self, now: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        idempotency::ensure_removal_limit(limit)?;
        let limit = u64::from(limit);
        let mut removed = 0;
        // Goes round where another process removed some of the same at once.
        while removed < limit {
            let left = limit - removed;
            let due = self.read(async |mut session| {
                answers::tenants_to_remove_of(&mut session, now, left).await
            });
            let tenants = &due.await?;
            if tenants.is_empty() {
                break;
            }
            let removing = self.transact(async |mut session| {
                answers::remove(&mut session, tenants, now, left).await
            });
            removed += removing.await?;
        }
        Ok(removed)
    }

    async fn begin_upload(
        &self,
        new: &NewBundleUpload,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        new.ensure_valid()?;
        self.write(async |mut session| uploads::begin(&mut session, new, now).await)
            .await
    }

    async fn upload(&self, id: Uuid) -> Result<Option<BundleUpload>, RegistryError> {
        self.read(async |mut session| uploads::find(&mut session, id).await)
            .await
    }

    async fn progress_upload(
        &self,
        id: Uuid,
        progress: &UploadProgress,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        progress.ensure_valid()?;
        self.write(async |mut session| uploads::progress(&mut session, id, progress, now).await)
            .await
    }

    async fn end_upload(
        &self,
        id: Uuid,
        end: &UploadEnd,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        end.ensure_valid()?;
        self.write(async |mut session| uploads::end(&mut session, id, end, now).await)
            .await
    }

    async fn remove_uploads(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        upload::ensure_removal_limit(limit)?;
        self.write(async |mut session| uploads::remove(&mut session, before, limit).await)
            .await
    }
}
