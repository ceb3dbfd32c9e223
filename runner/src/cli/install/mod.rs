//! `alga-runner install`.

mod create;
mod grant;
mod show;

use std::process::ExitCode;

use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{
    Change, ExtensionKey, Install, InstallFilter, InstallState, MAX_PAGE_ITEMS, PageRequest,
    Registry as _,
};
use alga_storage::LimitsOf;
use anyhow::Context as _;
use clap::{Args, Subcommand};

pub(super) use self::create::name_and_value;
use super::bundle::REGISTRY_ACTOR;
use super::limits::{self, Wanted};
use super::output;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Install an extension for a tenant, granted what its manifest asks for unless told otherwise
    Create(create::Create),
    /// List installs
    List(List),
    /// Print as JSON what is known of an install: its version, state, grants, limits, and the names
    /// of its settings
    Show(show::Show),
    /// Replace what an install may use
    Grant(grant::Grant),
    /// Let a disabled install run again
    Enable(Switch),
    /// Keep an install from running; its data stays
    Disable(Switch),
    /// Print as JSON how far an install's limits differ from its tenant's, and what applies; or
    /// change it
    Limits(Limits),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only installs of this tenant
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    /// Only installs of this extension
    #[arg(long, value_name = "NAME")]
    extension: Option<ExtensionName>,
}

#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The install
    install: InstallId,
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    /// The install
    install: InstallId,
    #[command(flatten)]
    edit: limits::Edit,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self {
            Self::Create(command) => command.run(&stores).await?,
            Self::List(command) => command.run(&stores).await?,
            Self::Show(command) => command.run(&stores).await?,
            Self::Grant(command) => command.run(&stores).await?,
            Self::Enable(command) => command.run(&stores, InstallState::Enabled).await?,
            Self::Disable(command) => command.run(&stores, InstallState::Disabled).await?,
            Self::Limits(command) => command.run(&stores, config).await?,
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let filter = InstallFilter {
            tenant: self.tenant,
            extension: self.extension.map(ExtensionKey::Name),
            ..InstallFilter::default()
        };
        let mut rows = Vec::new();
        let mut page = PageRequest::first(MAX_PAGE_ITEMS);
        loop {
            let found = stores.registry.installs(&filter, page).await?;
            rows.extend(found.items.iter().map(row));
            match found.next {
                Some(next) => page = PageRequest::after(next, MAX_PAGE_ITEMS),
                None => break,
            }
        }
        Ok(output::table(
            [
                "INSTALL",
                "TENANT",
                "EXTENSION",
                "VERSION",
                "STATE",
                "GRANTS",
            ],
            &rows,
        )?)
    }
}

fn row(install: &Install) -> [String; 6] {
    [
        install.id.to_string(),
        install.tenant.to_string(),
        install.extension_name.to_string(),
        install.version.clone(),
        install.state.as_str().to_owned(),
        install
            .grants
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
    ]
}

impl Switch {
    async fn run(self, stores: &Stores, state: InstallState) -> anyhow::Result<()> {
        find(stores, self.install).await?;
        stores
            .registry
            .set_state(self.install, state, None, change(stores))
            .await?;
        output::note(format_args!("{} is {}", self.install, state.as_str()));
        Ok(())
    }
}

impl Limits {
    async fn run(self, stores: &Stores, config: &Config) -> anyhow::Result<()> {
        let mut install = find(stores, self.install).await?;
        if let Wanted::Replaced(overrides) = self.edit.wanted(LimitsOf::Install)? {
            install = stores
                .registry
                .set_limits(install.id, overrides, None, change(stores))
                .await?;
        }
        let (installs, _) = stores.gate(config);
        let effective = limits::of_install(&installs, &install).await?;
        limits::print(install.limits.as_ref(), &effective)
    }
}

pub(super) async fn find(stores: &Stores, id: InstallId) -> anyhow::Result<Install> {
    let install = stores.registry.install(id).await?;
    install.with_context(|| {
        format!("there is no install {id}; `alga-runner install list` shows those there are")
    })
}

pub(super) fn change(stores: &Stores) -> Change<'static> {
    Change {
        actor: REGISTRY_ACTOR,
        request_id: None,
        now: stores.clock.now(),
    }
}
