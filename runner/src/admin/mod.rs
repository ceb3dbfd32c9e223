//! What an administrator may ask for, and what is decided about it.
//!
//! Each [`Operation`] is declared once, beside its decision. The HTTP API, its `OpenAPI` document and
//! the commands follow from the declarations: a server offers them on the network, and a command
//! asks an [`Administration`], which is either such a server or the data folder itself.

mod administration;
mod audit;
mod client;
mod config;
mod error;
mod extensions;
mod grants;
mod installs;
mod limits;
mod members;
mod mistakes;
mod operation;
mod paging;
mod schema;
mod switches;
mod tenants;
mod upgrades;
mod usage;

use std::sync::Arc;

use alga_bundles::Manifest;
use alga_model::{Clock, InstallId, TenantId};
use alga_registry::{Change, Install, InstallEdit, Registry, RegistryError, Version, VersionKey};
use alga_storage::SqliteBackend;

pub use self::administration::{Administration, Refused};
pub use self::audit::{AuditExport, AuditQuery, AuditStream};
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
pub use self::limits::{
    LimitsBody, ReplaceInstallLimits, ReplaceLimitsBody, ReplaceTenantLimits, ShowInstallLimits,
    ShowTenantLimits,
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
pub use self::usage::{InstallUsageBody, ShowInstallUsage, ShowTenantUsage, TenantUsageBody};

use crate::config::TokenScope;
use crate::installs::Installs;

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
    visitor.visit::<ShowTenantUsage>();
    visitor.visit::<ShowTenantLimits>();
    visitor.visit::<ReplaceTenantLimits>();
    visitor.visit::<ShowTenantSwitches>();
    visitor.visit::<ReplaceTenantSwitches>();
    visitor.visit::<ShowSwitches>();
    visitor.visit::<ReplaceSwitches>();
}

/// What operations work on.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Extensions, installs and what is set for them.
    pub registry: Arc<dyn Registry>,
    /// Records, counters and audit.
    pub storage: Arc<SqliteBackend>,
    /// What the process remembers of installs, and must forget when it changes.
    pub installs: Arc<Installs>,
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

    /// Edits an install that the author may know of.
    async fn edit(
        &self,
        by: &Author,
        id: InstallId,
        edit: InstallEdit,
        expected: Option<u64>,
    ) -> Result<Install, AdminError> {
        self.find(by, id).await?;
        let change = by.change(self);
        let edited = self.registry.edit_install(id, edit, expected, change);
        Ok(self.changed(edited.await?))
    }

    /// An install that was changed, which the process remembers otherwise.
    fn changed(&self, install: Install) -> Install {
        self.installs.forget(install.id);
        install
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

/// The manifest that a version was registered with.
fn manifest(version: &Version) -> Result<Manifest, AdminError> {
    Manifest::parse(version.manifest.as_bytes())
        .map(|parsed| parsed.manifest)
        .map_err(AdminError::Manifest)
}
