//! `alga-runner tenant`.

use std::process::ExitCode;

use alga_model::TenantId;
use clap::{Args, Subcommand};

use super::session::Session;
use super::{limits, output};
use crate::admin::{
    Administration, Ask, InstallQuery, ListInstalls, PageQuery, Refused, ReplaceTenantLimits,
    ShowTenantLimits,
};
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
        let session = Session::open(config).await?;
        match self {
            Self::Limits(command) => command.run(&session.admin).await?,
        }
        session.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Limits {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        note_unless_known(admin, self.tenant).await?;
        let limits = if let Some(wanted) = self.edit.wanted()? {
            let ask = Ask::<ReplaceTenantLimits>::with(self.tenant, wanted);
            admin.ask(ask).await?
        } else {
            let ask = Ask::<ShowTenantLimits>::of(self.tenant);
            admin.ask(ask).await?
        };
        Ok(output::json(&limits)?)
    }
}

/// Says so where nothing is known of a tenant: its id may be mistyped. Tenants are registered
/// nowhere, so what is set for one counts once something is installed for it.
pub(super) async fn note_unless_known(
    admin: &Administration,
    tenant: TenantId,
) -> Result<(), Refused> {
    if !is_known(admin, tenant).await? {
        output::note(format_args!("no install of the tenant {tenant} is known"));
    }
    Ok(())
}

/// Whether anything was ever installed for a tenant.
async fn is_known(admin: &Administration, tenant: TenantId) -> Result<bool, Refused> {
    let query = InstallQuery {
        tenant: Some(tenant),
        uninstalled: true,
        page: PageQuery {
            limit: Some(1),
            cursor: None,
        },
        ..InstallQuery::default()
    };
    let found = admin.ask(Ask::<ListInstalls>::by((), query)).await?;
    Ok(!found.items.is_empty())
}

#[cfg(test)]
mod tests {
    use alga_registry::{InstallState, Registry as _};

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
            assert!(
                is_known(&stage.administration(), install.tenant)
                    .await
                    .unwrap()
            );
        }
        let stranger = TenantId::generate();
        assert!(!is_known(&stage.administration(), stranger).await.unwrap());
    }
}
