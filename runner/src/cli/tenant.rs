//! `alga-runner tenant`.

use std::process::ExitCode;

use alga_model::TenantId;
use alga_registry::{Registry as _, TenantEdit};
use alga_storage::LimitsOf;
use clap::{Args, Subcommand};

use super::install::change;
use super::limits::{self, Wanted};
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
