//! `alga-runner install`.

mod create;
mod grant;
mod invocations;
mod logs;
mod set;
mod text;
mod upgrade;

use std::process::ExitCode;

use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{Change, Install, InstallState};
use anyhow::Context as _;
use clap::{Args, Subcommand};

pub(super) use self::create::name_and_value;
use self::text::Style;
use super::bundle::REGISTRY_ACTOR;
use super::session::Session;
use super::{limits, output};
use crate::admin::{
    Administration, Ask, EditInstall, EditInstallBody, InstallBody, InstallQuery, ListInstalls,
    PageQuery, ReplaceInstallLimits, ShowInstall, ShowInstallLimits, Uninstall,
};
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
    Show(One),
    /// Replace what an install may use
    Grant(grant::Grant),
    /// Bring an install to another version, and print as JSON what is different
    Upgrade(upgrade::Upgrade),
    /// Bring an install back to the version and the grants it had before its last upgrade, and print
    /// as JSON what is different
    Rollback(upgrade::Rollback),
    /// Let a disabled install run again
    Enable(One),
    /// Keep an install from running; its data stays
    Disable(One),
    /// Remove an install; its data can't be reached any more, but is kept
    Uninstall(One),
    /// Change how many calls of an install run at once, or whether the config of an envelope counts,
    /// and print the install as JSON
    Set(set::Set),
    /// Print what an install logged last, and with --follow what it logs from now on; only a server
    /// knows
    Logs(logs::Logs),
    /// Print the last invocations of an install, or one of them with what it logged; only a server
    /// knows
    Invocations(invocations::Invocations),
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
pub(super) struct One {
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
        let session = match &self {
            Self::Logs(_) => Session::of_server(config, "logs").await?,
            Self::Invocations(_) => Session::of_server(config, "invocations").await?,
            _ => Session::open(config).await?,
        };
        let admin = &session.admin;
        match self {
            Self::Create(command) => command.run(admin).await?,
            Self::List(command) => command.run(admin).await?,
            Self::Show(command) => command.show(admin).await?,
            Self::Grant(command) => command.run(admin).await?,
            Self::Upgrade(command) => command.run(admin).await?,
            Self::Rollback(command) => command.run(admin).await?,
            Self::Enable(command) => command.switch(admin, InstallState::Enabled).await?,
            Self::Disable(command) => command.switch(admin, InstallState::Disabled).await?,
            Self::Uninstall(command) => command.uninstall(admin).await?,
            Self::Set(command) => command.run(admin).await?,
            Self::Logs(command) => command.run(admin, Style::new(config)).await?,
            Self::Invocations(command) => command.run(admin, Style::new(config)).await?,
            Self::Limits(command) => command.run(admin).await?,
        }
        session.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        let mut query = InstallQuery {
            tenant: self.tenant,
            extension: self.extension,
            uninstalled: false,
            page: PageQuery::most_after(None),
        };
        loop {
            let page = admin
                .ask(Ask::<ListInstalls>::by((), query.clone()))
                .await?;
            rows.extend(page.items.iter().map(row));
            match page.next_cursor {
                Some(cursor) => query.page.cursor = Some(cursor),
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

fn row(install: &InstallBody) -> [String; 6] {
    [
        install.install_id.to_string(),
        install.tenant_id.to_string(),
        install.extension.to_string(),
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

impl One {
    async fn show(self, admin: &Administration) -> anyhow::Result<()> {
        let install = admin.ask(Ask::<ShowInstall>::of(self.install)).await?;
        Ok(output::json(&install)?)
    }

    async fn switch(self, admin: &Administration, state: InstallState) -> anyhow::Result<()> {
        let edit = EditInstallBody::State(state);
        let edited = admin.ask(Ask::<EditInstall>::with(self.install, edit));
        note_state(&edited.await?);
        Ok(())
    }

    async fn uninstall(self, admin: &Administration) -> anyhow::Result<()> {
        note_state(&admin.ask(Ask::<Uninstall>::of(self.install)).await?);
        Ok(())
    }
}

fn note_state(install: &InstallBody) {
    let InstallBody {
        install_id, state, ..
    } = install;
    output::note(format_args!("{install_id} is {}", state.as_str()));
}

impl Limits {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let limits = if let Some(wanted) = self.edit.wanted()? {
            let ask = Ask::<ReplaceInstallLimits>::with(self.install, wanted);
            admin.ask(ask).await?
        } else {
            let ask = Ask::<ShowInstallLimits>::of(self.install);
            admin.ask(ask).await?
        };
        Ok(output::json(&limits)?)
    }
}

/// An install in the data folder.
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
