//! What an administrator may ask for, and what is decided about it.
//!
//! Each [`Operation`] is declared once, beside its decision. The HTTP API, its `OpenAPI` document and
//! the commands follow from the declarations: a server offers them on the network, and a command
//! asks an [`Administration`], which is either such a server or the data folder itself.

mod administration;
mod audit;
mod bundles;
mod client;
mod config;
mod error;
mod extensions;
mod grants;
mod installs;
mod invocations;
mod limits;
mod logs;
mod members;
mod mistakes;
mod operation;
mod paging;
mod schema;
mod switches;
mod tenants;
mod upgrades;
mod uploads;
mod usage;
mod warmup;

use std::sync::Arc;

use alga_bundles::Manifest;
use alga_model::{Clock, InstallId, TenantId};
use alga_registry::{Change, Install, InstallEdit, Registry, RegistryError, Version, VersionKey};
use futures_util::future::BoxFuture;
use tracing::Instrument as _;

pub use self::administration::{Administration, Refused};
pub use self::audit::{AuditExport, AuditQuery, AuditStream};
pub use self::bundles::{
    AbortUpload, AbortUploadBody, FinalizeUpload, FinalizeUploadBody, IssueBody,
    MAX_FILENAME_BYTES, PublishedBody, PublishedExtensionBody, PublishedVersionBody, TUS,
    TUS_UPLOAD, UPLOADS, UploadAbortedBody, UploadKeyBody, UploadQuery, UploadedBody,
};
pub use self::client::Client;
pub use self::config::{ConfigBody, ReplaceConfig, ReplaceConfigBody, ShowConfig};
pub use self::error::{AdminError, Missing};
pub use self::extensions::{
    ExtensionBody, ExtensionPage, ListExtensions, RemoveVersion, ShowExtension, ShowVersion,
    VersionBody, VersionSummary,
};
pub use self::grants::{
    Difference, GrantsBody, Permission, ReplaceGrants, ReplaceGrantsBody, ShowGrants,
};
pub use self::installs::{
    CreateInstall, CreateInstallBody, EditInstall, EditInstallBody, InstallBody, InstallPage,
    InstallQuery, ListInstalls, ShowInstall, Uninstall,
};
pub use self::invocations::{
    InvocationBody, InvocationDetailBody, InvocationList, InvocationQuery, LineBody,
    ListInvocations, Outcome, ShowInvocation,
};
pub use self::limits::{
    LimitsBody, ReplaceInstallLimits, ReplaceLimitsBody, ReplaceTenantLimits, ShowInstallLimits,
    ShowTenantLimits,
};
pub use self::logs::{
    EndBody, GapBody, LogEntry, LogEvent, LogTail, LogsQuery, RemoteLogs, TailEnd,
};
pub use self::members::{Member, Members};
pub use self::mistakes::Mistakes;
pub use self::operation::{Answer, Ask, Guard, Method, Operation, Parameters, Target, Visitor};
pub use self::paging::PageQuery;
pub use self::switches::{ReplaceSwitches, ReplaceSwitchesBody, ShowSwitches, SwitchesBody};
pub use self::tenants::{
    ReplaceTenantSwitches, ReplaceTenantSwitchesBody, ShowTenantSwitches, TenantSwitchesBody,
};
pub use self::upgrades::{Rollback, RollbackBody, Upgrade, UpgradeAnswer, UpgradeBody};
pub use self::uploads::{ShowUpload, UploadBody, UploadEvents};
pub use self::usage::{ShowInstallUsage, ShowTenantUsage, TenantUsageBody};
pub use self::warmup::{Warmed, Warmup, WarmupAnswer, WarmupBody, WarmupError, WarmupItem};

use crate::activity::Activity;
use crate::app::Extensions;
use crate::config::TokenScope;
use crate::installs::Installs;
use crate::storage_place::StoragePlace;
use crate::uploads::Uploads;

/// Visits every operation there is.
pub fn every_operation(visitor: &mut impl Visitor) {
    visitor.visit::<ListExtensions>();
    visitor.visit::<ShowExtension>();
    visitor.visit::<ShowVersion>();
    visitor.visit::<RemoveVersion>();
    visitor.visit::<ListInstalls>();
    visitor.visit::<CreateInstall>();
    visitor.visit::<ShowInstall>();
    visitor.visit::<EditInstall>();
    visitor.visit::<Uninstall>();
    visitor.visit::<Upgrade>();
    visitor.visit::<Rollback>();
    visitor.visit::<ShowGrants>();
    visitor.visit::<ReplaceGrants>();
    visitor.visit::<ShowInstallLimits>();
    visitor.visit::<ReplaceInstallLimits>();
    visitor.visit::<ShowConfig>();
    visitor.visit::<ReplaceConfig>();
    visitor.visit::<ShowInstallUsage>();
    visitor.visit::<ListInvocations>();
    visitor.visit::<ShowInvocation>();
    visitor.visit::<ShowTenantUsage>();
    visitor.visit::<ShowTenantLimits>();
    visitor.visit::<ReplaceTenantLimits>();
    visitor.visit::<ShowTenantSwitches>();
    visitor.visit::<ReplaceTenantSwitches>();
    visitor.visit::<ShowSwitches>();
    visitor.visit::<ReplaceSwitches>();
    visitor.visit::<FinalizeUpload>();
    visitor.visit::<AbortUpload>();
    visitor.visit::<ShowUpload>();
    visitor.visit::<Warmup>();
}

/// What operations work on.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Extensions, installs and what is set for them.
    pub registry: Arc<dyn Registry>,
    /// Records, counters and audit.
    pub storage: StoragePlace,
    /// What the process remembers of installs, and must forget when it changes.
    pub installs: Arc<Installs>,
    /// What installs did a moment ago, in a process that runs them.
    pub activity: Option<Activity>,
    /// Bundles that come over the network, in a process that runs them.
    pub uploads: Option<Arc<Uploads>>,
    /// What has extensions answer, in a process that runs them.
    pub extensions: Option<Arc<Extensions>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Who asks, as far as it has been found out.
#[derive(Debug, Clone)]
pub struct Author {
    /// Who the audit says it was.
    pub actor: String,
    /// The request, if there is one.
    pub request_id: Option<Arc<str>>,
    /// The tenants and installs that the author may know of.
    pub scope: TokenScope,
}

impl Author {
    /// Somebody who works on the data folder, and so may do everything.
    pub fn operator(actor: &str) -> Self {
        Self {
            actor: actor.to_owned(),
            request_id: None,
            scope: TokenScope::default(),
        }
    }

    fn change(&self, admin: &Admin) -> Change<'_> {
        Change {
            actor: &self.actor,
            request_id: self.request_id.as_deref(),
            now: admin.clock.now(),
        }
    }

    /// Fails unless the author may see and change what concerns the whole process.
    fn ensure_unlimited(&self) -> Result<(), AdminError> {
        if self.scope == TokenScope::default() {
            Ok(())
        } else {
            Err(AdminError::Forbidden(
                "the token is limited to some tenants or installs",
            ))
        }
    }

    /// Fails unless the author may set how much others may use: limits and switches keep tenants within
    /// bounds, so that nobody who is limited to some of them sets any.
    fn ensure_operator(&self) -> Result<(), AdminError> {
        self.ensure_unlimited().map_err(|_| {
            AdminError::Forbidden(
                "limits and switches are set with a token that is not limited to some tenants or installs; this one may only read them",
            )
        })
    }

    /// Fails unless the author may see and change what concerns a whole tenant.
    fn ensure_tenant(&self, tenant: TenantId) -> Result<(), AdminError> {
        let TokenScope { tenants, installs } = &self.scope;
        if tenants
            .as_ref()
            .is_some_and(|tenants| !tenants.contains(&tenant))
        {
            return Err(AdminError::NotFound(Missing::Tenant(tenant)));
        }
        if installs.is_some() {
            return Err(AdminError::Forbidden(
                "the token is limited to some installs",
            ));
        }
        Ok(())
    }
}

impl Admin {
    /// An install that the author may know of.
    async fn find(&self, by: &Author, id: InstallId) -> Result<Install, AdminError> {
        self.registry
            .install(id)
            .await?
            .filter(|install| by.scope.allows(install.tenant, id))
            .ok_or(AdminError::NotFound(Missing::Install(id)))
    }

    /// What installs did a moment ago.
    fn activity(&self) -> Result<&Activity, AdminError> {
        self.activity.as_ref().ok_or(AdminError::RunsNothing)
    }

    /// What is known of bundles that come over the network, to somebody who may publish. It concerns every
    /// tenant. The store is not asked for it.
    fn known_uploads(&self, by: &Author) -> Result<&Arc<Uploads>, AdminError> {
        by.ensure_unlimited()?;
        self.uploads.as_ref().ok_or(AdminError::RunsNothing)
    }

    /// Bundles that come over the network, to somebody who may publish.
    pub fn uploads(&self, by: &Author) -> Result<&Arc<Uploads>, AdminError> {
        let uploads = self.known_uploads(by)?;
        if uploads.is_offline {
            return Err(AdminError::Offline);
        }
        Ok(uploads)
    }

    /// The same unless the process stops, which waits neither for an upload that is published now nor for
    /// one that is given up.
    fn open_uploads(&self, by: &Author) -> Result<&Arc<Uploads>, AdminError> {
        let uploads = self.uploads(by)?;
        if uploads.intake.is_closed() {
            return Err(AdminError::Stopping);
        }
        Ok(uploads)
    }

    /// Edits an install that the author may know of.
    async fn edit(
        &self,
        by: &Author,
        id: InstallId,
        edit: InstallEdit,
        expected: Option<u64>,
    ) -> Result<Install, AdminError> {
        self.find(by, id).await?;
        let edited = self.mutate(by, Touched::Install(id), move |registry, change| {
            registry.edit_install(id, edit, expected, change)
        });
        edited.await
    }

    /// Does a mutation and forgets what it touched, both also where nobody waits any more: once it has
    /// begun, it is committed, and what the process remembers must not outlive that.
    async fn mutate<T: Send + 'static>(
        &self,
        by: &Author,
        touched: Touched,
        work: impl Mutation<T>,
    ) -> Result<T, AdminError> {
        let (admin, by) = (self.clone(), by.clone());
        let task = async move {
            let done = work(&*admin.registry, by.change(&admin)).await;
            // Also after a failure, which may have come after the commit.
            match touched {
                Touched::Install(id) => admin.installs.forget(id),
                Touched::Everything => admin.installs.forget_all(),
            }
            done
        };
        let done = tokio::spawn(task.in_current_span()).await;
        let done = done.map_err(|error| RegistryError::Internal {
            source: error.into(),
        })?;
        Ok(done?)
    }

    /// The version that an install has.
    async fn version_of(&self, install: &Install) -> Result<Version, AdminError> {
        let key = VersionKey::Id(install.version_id);
        let version = self.registry.version(&key).await?;
        version.ok_or_else(|| {
            AdminError::Registry(RegistryError::Inconsistency {
                table: "registry_installs",
                column: "version_id",
                key: install.id.to_string(),
            })
        })
    }
}

/// What the process remembers otherwise than it is after a mutation.
#[derive(Debug, Clone, Copy)]
enum Touched {
    /// An install.
    Install(InstallId),
    /// Whatever it remembers.
    Everything,
}

/// One call of the registry.
trait Mutation<T>:
    for<'a> FnOnce(&'a dyn Registry, Change<'a>) -> BoxFuture<'a, Result<T, RegistryError>>
    + Send
    + 'static
{
}

impl<T, F> Mutation<T> for F where
    F: for<'a> FnOnce(&'a dyn Registry, Change<'a>) -> BoxFuture<'a, Result<T, RegistryError>>
        + Send
        + 'static
{
}

/// The manifest that a version was registered with.
fn manifest(version: &Version) -> Result<Manifest, AdminError> {
    Manifest::parse(version.manifest.as_bytes())
        .map(|parsed| parsed.manifest)
        .map_err(AdminError::Manifest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alga_registry::InstallState;
    use futures_util::poll;

    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn what_was_changed_is_forgotten_also_where_nobody_waits() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let admin = Admin {
            installs: stage.installs_that_last(),
            ..stage.admin()
        };
        let is_known = async || admin.installs.find(install.id).await.unwrap().is_some();
        assert!(is_known().await);
        let by = Author::operator("admin");
        let edit = InstallEdit::State(InstallState::Uninstalled);
        let mut change = Box::pin(admin.mutate(
            &by,
            Touched::Install(install.id),
            move |registry, change| registry.edit_install(install.id, edit, None, change),
        ));
        assert!(poll!(&mut change).is_pending());
        drop(change);
        let forgotten = async {
            while is_known().await {
                tokio::task::yield_now().await;
            }
        };
        let forgotten = tokio::time::timeout(Duration::from_secs(30), forgotten).await;
        assert!(forgotten.is_ok(), "the install is remembered as it was");
    }
}
