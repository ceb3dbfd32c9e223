//! What every backend does.

use std::fmt;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_schema::Database;
use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::audit::{AuditFilter, AuditRecord};
use crate::change::Change;
use crate::config::Config;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::grant::Grants;
use crate::idempotency::{AnswerQuotas, Claim, Claimed, KeptAnswer, KeyedRequest, Known};
use crate::install::{Install, InstallEdit, InstallFilter, InstallState, NewInstall};
use crate::listener::Listener;
use crate::page::{Page, PageRequest};
use crate::switches::{Switches, SwitchesEdit};
use crate::tenant::{TenantEdit, TenantSettings};
use crate::upload::{BundleUpload, NewBundleUpload, UploadEnd, UploadProgress};
use crate::version::{NewVersion, Registered, Version, VersionKey, VersionSummary};

/// A registry with the database that it is in.
#[async_trait]
pub trait RegistryDatabase: Registry {
    /// The database itself, to migrate, to ask whether it is there, or to close it.
    fn database(&self) -> &dyn Database;

    /// Hears from now on of every change of an install, of tenants' settings and of the switches.
    /// None where the database has no way to tell.
    async fn listen(&self) -> Result<Option<Box<dyn Listener>>, RegistryError>;
}

/// The extensions, versions and installs there are, and what is set for all of them or for the
/// installs of one tenant.
///
/// A mutation is durable when it returns, happens as a whole or not at all, and leaves exactly one
/// audit record, committed together with it. A mutation that is refused, or that finds everything
/// as it should be, leaves none; nor does [`remove_audit`](Self::remove_audit), nor what is done
/// about requests that are answered once and about uploads. A read sees everything committed before it began.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync {
    /// Which registry it is, the same for as long as it exists: what is kept for it elsewhere is marked with it.
    async fn identity(&self) -> Result<Uuid, RegistryError>;

    /// Registers a version, and its extension when it is the first one.
    ///
    /// Registering the same version with the same content and manifest again succeeds and changes
    /// nothing. Of registrations racing with one another exactly one decides, the others are judged
    /// by what it left. A version that was removed may be registered again with the content it had.
    ///
    /// # Errors
    ///
    /// [`PublisherMismatch`](RegistryError::PublisherMismatch) when the name belongs to somebody
    /// else, [`DuplicateVersion`](RegistryError::DuplicateVersion) when the version has or had other
    /// content, [`ManifestConflict`](RegistryError::ManifestConflict) when the content has another
    /// manifest, or is another version's.
    async fn register_version(
        &self,
        new: &NewVersion,
        change: Change<'_>,
    ) -> Result<Registered, RegistryError>;

    /// The extension with this key.
    async fn extension(&self, key: &ExtensionKey) -> Result<Option<Extension>, RegistryError>;

    /// All extensions by name.
    async fn extensions(
        &self,
        page: PageRequest<ExtensionName>,
    ) -> Result<Page<Extension, ExtensionName>, RegistryError>;

    /// The version with this key.
    async fn version(&self, key: &VersionKey) -> Result<Option<Version>, RegistryError>;

    /// The versions of an extension without their manifests, the last registered first; none for an
    /// unknown extension.
    async fn versions(
        &self,
        extension_id: Uuid,
        page: PageRequest<Uuid>,
    ) -> Result<Page<VersionSummary, Uuid>, RegistryError>;

    /// Removes a version that no install has, nor would go back to; uninstalled ones count. The
    /// extension stays, since its name belongs to its publisher for ever, and it is remembered what
    /// the version consisted of.
    ///
    /// # Errors
    ///
    /// [`NotFound`](RegistryError::NotFound) when there is no such version,
    /// [`VersionInUse`](RegistryError::VersionInUse) when installs need it.
    async fn remove_version(&self, id: Uuid, change: Change<'_>) -> Result<(), RegistryError>;

    /// Makes an install, enabled and of generation 1.
    ///
    /// # Errors
    ///
    /// [`NotFound`](RegistryError::NotFound) when there is no such version,
    /// [`ExtensionNotAllowed`](RegistryError::ExtensionNotAllowed) when the switches leave the
    /// extension out.
    async fn create_install(
        &self,
        new: &NewInstall,
        change: Change<'_>,
    ) -> Result<Install, RegistryError>;

    /// The install with this id, in whatever state, in one round trip to the database.
    async fn install(&self, id: InstallId) -> Result<Option<Install>, RegistryError>;

    /// The installs that match `filter`, the first made first.
    async fn installs(
        &self,
        filter: &InstallFilter,
        page: PageRequest<InstallId>,
    ) -> Result<Page<Install, InstallId>, RegistryError>;

    /// Changes an install and raises its generation by one. With an install that is uninstalled
    /// go the answers that are kept for it.
    ///
    /// With `expected_generation`, only if the install is at that generation. An edit that finds
    /// everything as it should be succeeds and changes nothing, the generation included.
    ///
    /// # Errors
    ///
    /// [`NotFound`](RegistryError::NotFound) when there is no such install,
    /// [`Conflict`](RegistryError::Conflict) when it is at another generation than expected,
    /// [`Uninstalled`](RegistryError::Uninstalled) when it is uninstalled.
    async fn edit_install(
        &self,
        id: InstallId,
        edit: InstallEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError>;

    /// Brings an install to another version of its extension, lower ones included, with these
    /// grants; what it was before is kept for [`roll_back_install`](Self::roll_back_install). Guard
    /// and generation are as in [`edit_install`](Self::edit_install).
    ///
    /// # Errors
    ///
    /// As there; [`NotFound`](RegistryError::NotFound) also when there is no such version, and
    /// [`Invalid`](RegistryError::Invalid) when it is one of another extension.
    async fn upgrade_install(
        &self,
        id: InstallId,
        version_id: Uuid,
        grants: Grants,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError>;

    /// Brings an install back to the version and the grants it had before its last upgrade; once
    /// an upgrade. Guard and generation are as in [`edit_install`](Self::edit_install).
    ///
    /// # Errors
    ///
    /// As there; [`NoFormerVersion`](RegistryError::NoFormerVersion) when it was never upgraded or
    /// is back already.
    async fn roll_back_install(
        &self,
        id: InstallId,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError>;

    /// Replaces an install's grants, as [`edit_install`](Self::edit_install) does.
    async fn set_grants(
        &self,
        id: InstallId,
        grants: Grants,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        self.edit_install(id, InstallEdit::Grants(grants), expected_generation, change)
            .await
    }

    /// Replaces an install's settings, as [`edit_install`](Self::edit_install) does.
    async fn set_config(
        &self,
        id: InstallId,
        config: Config,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        self.edit_install(id, InstallEdit::Config(config), expected_generation, change)
            .await
    }

    /// Replaces an install's limit overrides, as [`edit_install`](Self::edit_install) does.
    async fn set_limits(
        &self,
        id: InstallId,
        limits: Option<Value>,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        self.edit_install(id, InstallEdit::Limits(limits), expected_generation, change)
            .await
    }

    /// Enables, disables or uninstalls an install, as [`edit_install`](Self::edit_install) does.
    async fn set_state(
        &self,
        id: InstallId,
        state: InstallState,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Install, RegistryError> {
        self.edit_install(id, InstallEdit::State(state), expected_generation, change)
            .await
    }

    /// What applies to the whole deployment, in one round trip to the database; the default where
    /// nothing was changed yet.
    async fn switches(&self) -> Result<Switches, RegistryError>;

    /// Changes the switches and raises their generation by one, as
    /// [`edit_install`](Self::edit_install) does for an install. Generation 0 is that of switches
    /// never changed.
    ///
    /// # Errors
    ///
    /// [`Conflict`](RegistryError::Conflict) when they are at another generation than expected.
    async fn edit_switches(
        &self,
        edit: SwitchesEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<Switches, RegistryError>;

    /// What applies to all installs of the tenant, in one round trip to the database;
    /// [`TenantSettings::unchanged`] where nothing was changed yet. The registry doesn't know which
    /// tenants there are, so every id is one.
    async fn tenant_settings(&self, tenant: TenantId) -> Result<TenantSettings, RegistryError>;

    /// The tenants whose settings were ever changed, by id.
    async fn tenants_with_settings(
        &self,
        page: PageRequest<TenantId>,
    ) -> Result<Page<TenantSettings, TenantId>, RegistryError>;

    /// Changes a tenant's settings and raises their generation by one, as
    /// [`edit_install`](Self::edit_install) does for an install. Generation 0 is that of settings
    /// never changed.
    ///
    /// # Errors
    ///
    /// [`Conflict`](RegistryError::Conflict) when they are at another generation than expected.
    async fn edit_tenant(
        &self,
        tenant: TenantId,
        edit: TenantEdit,
        expected_generation: Option<u64>,
        change: Change<'_>,
    ) -> Result<TenantSettings, RegistryError>;

    /// The audit records that match `filter`.
    async fn audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest<u64>,
    ) -> Result<Page<AuditRecord, u64>, RegistryError>;

    /// Removes the audit records of what happened before `before`, the oldest first, and tells how
    /// many they were.
    ///
    /// At most `limit` of them, 1 to [`MAX_AUDIT_REMOVAL`](crate::MAX_AUDIT_REMOVAL); fewer than
    /// `limit` means that none are left. Not audited itself. The number of a record that is gone
    /// is never given again.
    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError>;

    /// What is known of a request at `now`; nothing where it can be claimed. Writes nothing.
    async fn known_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
    ) -> Result<Option<Known>, RegistryError>;

    /// Claims a request, unless it is claimed or answered already, or its key is another one's.
    ///
    /// Of claims at once exactly one is [`Ours`](Claimed::Ours). It must be followed by
    /// [`keep_answer`](Self::keep_answer) or [`give_up_request`](Self::give_up_request); from
    /// `until` on, the key can be claimed again without either, for another request too.
    ///
    /// # Errors
    ///
    /// [`NotFound`](RegistryError::NotFound) when there is no such install, or it is uninstalled.
    async fn claim_request(
        &self,
        request: &KeyedRequest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claimed, RegistryError>;

    /// Keeps the answer to a claimed request until `until`. Tells whether it is kept: not where the
    /// claim is over and somebody else has claimed the request since, or it was removed.
    ///
    /// Where the install or its tenant then has more than `quotas` allow, the oldest answers give
    /// way, this one last: they become mere marks while the contents are too large, and are
    /// forgotten while they are too many. Claims neither count nor give way.
    async fn keep_answer(
        &self,
        claim: &Claim,
        answer: &KeptAnswer,
        until: Timestamp,
        quotas: AnswerQuotas,
    ) -> Result<bool, RegistryError>;

    /// Ends a claim without an answer, so that the key can be claimed again at once. A claim that
    /// is over is left alone.
    async fn give_up_request(&self, claim: &Claim) -> Result<(), RegistryError>;

    /// Removes answers and claims that are over at `now`, the first to be over first, and tells
    /// how many they were.
    ///
    /// At most `limit` of them, 1 to [`MAX_ANSWERS_REMOVAL`](crate::MAX_ANSWERS_REMOVAL); fewer
    /// than `limit` means that none are left.
    async fn remove_answers(&self, now: Timestamp, limit: u32) -> Result<u64, RegistryError>;

    /// Notes an upload that begins. Tells whether it is noted: not where there is one with this id, whatever
    /// became of it.
    async fn begin_upload(
        &self,
        new: &NewBundleUpload,
        now: Timestamp,
    ) -> Result<bool, RegistryError>;

    /// The upload with this id.
    async fn upload(&self, id: Uuid) -> Result<Option<BundleUpload>, RegistryError>;

    /// Notes how far an upload has come. Tells whether it is noted: not where it has not come just as far
    /// as is said, where it has ended, or has fewer bytes. Of several who go on from the same place at
    /// once, exactly one does.
    async fn progress_upload(
        &self,
        id: Uuid,
        progress: &UploadProgress,
        now: Timestamp,
    ) -> Result<bool, RegistryError>;

    /// Ends an upload. Tells whether it ends so: one that is being received ends in any way, a staged one
    /// can be given up, and whatever isn't published yet can turn out to be.
    async fn end_upload(
        &self,
        id: Uuid,
        end: &UploadEnd,
        now: Timestamp,
    ) -> Result<bool, RegistryError>;

    /// Forgets uploads that were last noted before `before`, the oldest first, and tells how many they
    /// were.
    ///
    /// At most `limit` of them, 1 to [`MAX_UPLOADS_REMOVAL`](crate::MAX_UPLOADS_REMOVAL); fewer than
    /// `limit` means that none are left.
    async fn remove_uploads(&self, before: Timestamp, limit: u32) -> Result<u64, RegistryError>;
}
