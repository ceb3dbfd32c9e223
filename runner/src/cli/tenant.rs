//! `alga-runner tenant`.

use std::process::ExitCode;

use alga_model::TenantId;
use alga_registry::{InstallFilter, PageRequest, Registry, RegistryError, TenantEdit};
use alga_storage::LimitsOf;
use clap::{Args, Subcommand};

use super::install::change;
use super::limits::{self, Wanted};
use super::output;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print as JSON how far a tenant's limits differ from the settings, and what applies; or change it
    Limits(Limits),
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    /// The tenant
    tenant: TenantId,
    #[command(flatten)]
    edit: limits::Edit,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self {
            Self::Limits(command) => command.run(&stores, config).await?,
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Limits {
    async fn run(self, stores: &Stores, config: &Config) -> anyhow::Result<()> {
        let registry = &stores.registry;
        note_unless_known(&**registry, self.tenant).await?;
        if let Wanted::Replaced(overrides) = self.edit.wanted(LimitsOf::Tenant)? {
            let edit = TenantEdit::Limits(overrides);
            registry
                .edit_tenant(self.tenant, edit, None, change(stores))
                .await?;
        }
        let settings = registry.tenant_settings(self.tenant).await?;
        let (installs, _) = stores.gate(config);
        let effective = installs.tenant_limits(self.tenant).await?;
        limits::print(settings.limits.as_ref(), &effective)
    }
}

/// Says so where nothing is known of a tenant: its id may be mistyped. Tenants are registered
/// nowhere, so what is set for one counts once something is installed for it.
pub(super) async fn note_unless_known(
    registry: &dyn Registry,
    tenant: TenantId,
) -> Result<(), RegistryError> {
    if !is_known(registry, tenant).await? {
        output::note(format_args!("no install of the tenant {tenant} is known"));
    }
    Ok(())
}

/// Whether anything was ever installed for a tenant.
async fn is_known(registry: &dyn Registry, tenant: TenantId) -> Result<bool, RegistryError> {
    let filter = InstallFilter {
        tenant: Some(tenant),
        include_uninstalled: true,
        ..InstallFilter::default()
    };
    let found = registry.installs(&filter, PageRequest::first(1)).await?;
    Ok(!found.items.is_empty())
}

#[cfg(test)]
mod tests {
    use alga_registry::InstallState;

    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn a_tenant_is_known_by_its_installs_also_uninstalled_ones() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let gone = InstallState::Uninstalled;
        for state in [None, Some(gone)] {
            if let Some(state) = state {
                let edited = stage
                    .registry
                    .set_state(install.id, state, None, stage.change());
                edited.await.unwrap();
            }
            assert!(is_known(&*stage.registry, install.tenant).await.unwrap());
        }
        let stranger = TenantId::generate();
        assert!(!is_known(&*stage.registry, stranger).await.unwrap());
    }
}
