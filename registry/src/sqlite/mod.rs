//! The registry in SQLite.
//!
//! Every mutation is one transaction that has the write lock from its beginning, so what it reads
//! can't change before it commits.

mod answers;
mod audit;
mod error;
mod extensions;
mod identity;
mod installs;
#[cfg(test)]
mod plan;
mod row;
mod switches;
mod tenants;
mod uploads;
mod versions;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_sqlite::{Database, Options, Schema};
use async_trait::async_trait;
use rusqlite::{Connection, Params, Row, Transaction};
use uuid::Uuid;

use self::error::SqliteError;
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
use crate::rows;
use crate::switches::{Switches, SwitchesEdit};
use crate::tenant::{TenantEdit, TenantSettings};
use crate::upload::{self, BundleUpload, NewBundleUpload, UploadEnd, UploadProgress};
use crate::version::{NewVersion, Registered, Version, VersionKey, VersionSummary};

/// Sorts before every id.
const BEFORE_EVERY_ID: &[u8] = &[];

/// A [`Registry`] in SQLite.
///
/// Several processes may use one file: each sees what the others committed, and their writes wait
/// for one another. An operation that has begun goes on to its end, also where nobody waits for it
/// any more.
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

    fn schema() -> Schema {
        Schema::new(
            "registry",
            "_registry_migrations",
            sqlx::migrate!("../migrations/registry/sqlite"),
        )
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        Ok(self.database.read(work).await?)
    }

    /// Removes what is kept for an install that is uninstalled, in batches with room for others in
    /// between. Nobody is answered with it any more, and what is left is over within a day.
    async fn remove_answers_of(&self, install: InstallId) {
        let remove = move |tx: &Transaction<'_>| answers::remove_of(tx, install);
        loop {
            let more: Result<bool, SqliteError> = self.database.write(remove).await;
            match more {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    idempotency::tell_kept_for_now(install, &error.into());
                    return;
                }
            }
        }
    }

    /// Does a mutation, which is committed where it succeeds.
    async fn mutate<T: Send + 'static>(
        &self,
        change: Change<'_>,
        work: impl FnOnce(&Transaction<'_>, Change<'_>) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        change.ensure_valid()?;
        let actor = change.actor.to_owned();
        let request_id = change.request_id.map(str::to_owned);
        let now = change.now;
        let work = move |tx: &Transaction<'_>| {
            let change = Change {
                actor: &actor,
                request_id: request_id.as_deref(),
                now,
            };
            work(tx, change)
        };
        Ok(self.database.write(work).await?)
    }
}

#[async_trait]
impl RegistryDatabase for SqliteRegistry {
    fn database(&self) -> &dyn alga_schema::Database {
        self.database()
    }

    async fn listen(&self) -> Result<Option<Box<dyn Listener>>, RegistryError> {
        Ok(None)
    }
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn identity(&self) -> Result<Uuid, RegistryError> {
        self.read(identity::find).await
    }

    async fn register_version(
        &self,
        new: &NewVersion,
        change: Change<'_>,
    ) -> Result<Registered, RegistryError> {
        new.ensure_valid()?;
        let new = new.clone();
        self.mutate(change, move |tx, change| {
            versions::register(tx, &new, change)
        })
        .await
    }

    async fn extension(&self, key: &ExtensionKey) -> Result<Option<Extension>, RegistryError> {
        let key = key.clone();
        self.read(move |connection| extensions::find(connection, &key))
            .await
    }

    async fn extensions(
        &self,
        page: PageRequest<ExtensionName>,
    ) -> Result<Page<Extension, ExtensionName>, RegistryError> {
        page.ensure_valid()?;
        self.read(move |connection| extensions::list(connection, &page))
            .await
    }

    async fn version(&self, key: &VersionKey) -> Result<Option<Version>, RegistryError> {
        let key = key.clone();
        self.read(move |connection| versions::find(connection, &key))
            .await
    }

    async fn versions(
        &self,
        extension_id: Uuid,
        page: PageRequest<Uuid>,
    ) -> Result<Page<VersionSummary, Uuid>, RegistryError> {
        page.ensure_valid()?;
        self.read(move |connection| versions::list(connection, extension_id, page))
            .await
    }

    async fn remove_version(&self, id: Uuid, change: Change<'_>) -> Result<(), RegistryError> {
        self.mutate(change, move |tx, change| versions::remove(tx, id, change))
            .await
    }

    async fn create_install(
        &self,
        new: &NewInstall,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        new.ensure_valid()?;
        let new = new.clone();
        self.mutate(change, move |tx, change| installs::create(tx, &new, change))
            .await
    }

    async fn install(&self, id: InstallId) -> Result<Option<Install>, RegistryError> {
        self.read(move |connection| installs::find(connection, id))
            .await
    }

    async fn installs(
        &self,
        filter: &InstallFilter,
        page: PageRequest<InstallId>,
    ) -> Result<Page<Install, InstallId>, RegistryError> {
        page.ensure_valid()?;
        let filter = filter.clone();
        self.read(move |connection| installs::list(connection, &filter, page))
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
        let edited = self.mutate(change, move |tx, change| {
            installs::edit(tx, id, &edit, expected_generation, change)
        });
        let install = edited.await?;
        if install.state == InstallState::Uninstalled {
            self.remove_answers_of(id).await;
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
        self.mutate(change, move |tx, change| {
            installs::upgrade(tx, id, version_id, grants, expected_generation, change)
        })
        .await
    }

    async fn roll_back_install(
        &self,
        id: InstallId,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        self.mutate(change, move |tx, change| {
            installs::roll_back(tx, id, expected_generation, change)
        })
        .await
    }

    async fn switches(&self) -> Result<Switches, RegistryError> {
        self.read(switches::find).await
    }

    async fn edit_switches(
        &self,
        edit: SwitchesEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Switches, RegistryError> {
        edit.ensure_valid()?;
        self.mutate(change, move |tx, change| {
            switches::edit(tx, &edit, expected_generation, change)
        })
        .await
    }

    async fn tenant_settings(&self, tenant: TenantId) -> Result<TenantSettings, RegistryError> {
        self.read(move |connection| tenants::find(connection, tenant))
            .await
    }

    async fn tenants_with_settings(
        &self,
        page: PageRequest<TenantId>,
    ) -> Result<Page<TenantSettings, TenantId>, RegistryError> {
        page.ensure_valid()?;
        self.read(move |connection| tenants::list(connection, page))
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
        self.mutate(change, move |tx, change| {
            tenants::edit(tx, tenant, &edit, expected_generation, change)
        })
        .await
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest<u64>,
    ) -> Result<Page<AuditRecord, u64>, RegistryError> {
        page.ensure_valid()?;
        let filter = filter.clone();
        self.read(move |connection| audit::list(connection, &filter, page))
            .await
    }

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        ensure_removal_limit(limit)?;
        let remove = move |tx: &Transaction<'_>| audit::remove(tx, before, limit);
        Ok(self.database.write(remove).await?)
    }

    async fn known_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
    ) -> Result<Option<Known>, RegistryError> {
        let request = request.clone();
        self.read(move |connection| answers::find(connection, &request, now))
            .await
    }

    async fn claim_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claimed, RegistryError> {
        let request = request.clone();
        let claim = move |tx: &Transaction<'_>| answers::claim(tx, &request, now, until);
        Ok(self.database.write(claim).await?)
    }

    async fn keep_answer(
        &self,
        claim: &Claim,
        answer: &KeptAnswer,
        until: Timestamp,
        quotas: AnswerQuotas,
    ) -> Result<bool, RegistryError> {
        answer.ensure_valid()?;
        let (claim, answer) = (claim.clone(), answer.clone());
        let keep = move |tx: &Transaction<'_>| answers::keep(tx, &claim, &answer, until, quotas);
        Ok(self.database.write(keep).await?)
    }

    async fn give_up_request(&self, claim: &Claim) -> Result<(), RegistryError> {
        let claim = claim.clone();
        let give_up = move |tx: &Transaction<'_>| answers::give_up(tx, &claim);
        Ok(self.database.write(give_up).await?)
    }

    async fn remove_answers(&self, now: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        idempotency::ensure_removal_limit(limit)?;
        let remove = move |tx: &Transaction<'_>| answers::remove(tx, now, limit);
        Ok(self.database.write(remove).await?)
    }

    async fn begin_upload(
        &self,
        new: &NewBundleUpload,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        new.ensure_valid()?;
        let new = new.clone();
        let begin = move |tx: &Transaction<'_>| uploads::begin(tx, &new, now);
        Ok(self.database.write(begin).await?)
    }

    async fn upload(&self, id: Uuid) -> Result<Option<BundleUpload>, RegistryError> {
        self.read(move |connection| uploads::find(connection, id))
            .await
    }

    async fn progress_upload(
        &self,
        id: Uuid,
        progress: &UploadProgress,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        progress.ensure_valid()?;
        let progress = progress.clone();
        let note = move |tx: &Transaction<'_>| uploads::progress(tx, id, &progress, now);
        Ok(self.database.write(note).await?)
    }

    async fn end_upload(
        &self,
        id: Uuid,
        end: &UploadEnd,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        end.ensure_valid()?;
        let end = end.clone();
        let note = move |tx: &Transaction<'_>| uploads::end(tx, id, &end, now);
        Ok(self.database.write(note).await?)
    }

    async fn remove_uploads(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError> {
        upload::ensure_removal_limit(limit)?;
        let remove = move |tx: &Transaction<'_>| uploads::remove(tx, before, limit);
        Ok(self.database.write(remove).await?)
    }
}

/// The first of the rows that a statement finds.
fn find_one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&dyn rows::Row) -> Result<T, RegistryError>,
) -> Result<Option<T>, SqliteError> {
    let mut statement = connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok(read(row)?);
    statement.query_and_then(params, read)?.next().transpose()
}

/// The rows that a statement finds.
fn find_all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&dyn rows::Row) -> Result<T, RegistryError>,
) -> Result<Vec<T>, SqliteError> {
    let mut statement = connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok(read(row)?);
    statement.query_and_then(params, read)?.collect()
}
