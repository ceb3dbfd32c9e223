//! `alga-runner switches`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use alga_model::{ExtensionName, TenantId, Timestamp};
use alga_registry::{
    ExtensionKey, MAX_PAGE_ITEMS, PageRequest, Registry as _, SwitchesEdit, TenantEdit,
};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::install::change;
use super::output;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Switches {
    #[command(subcommand)]
    edit: Option<Edit>,
}

#[derive(Debug, Subcommand)]
enum Edit {
    /// Switch the storage on or off; what is stored stays
    Storage(Storage),
    /// Replace the list of extensions that may use the storage
    Allow(Allow),
}

#[derive(Debug, Args)]
struct Storage {
    /// Where to switch it
    position: Position,
    /// Only for this tenant
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Position {
    On,
    Off,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Allow {
    /// The extensions, all others being refused; they need not be published yet
    #[arg(value_name = "NAME")]
    names: Vec<ExtensionName>,
    /// Every extension
    #[arg(long)]
    all: bool,
    /// No extension
    #[arg(long)]
    none: bool,
}

/// The switches as they are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    storage: bool,
    /// Null where all are allowed.
    allowed_extensions: Option<BTreeSet<ExtensionName>>,
    storage_off_for_tenants: Vec<TenantId>,
    updated_at: Option<Timestamp>,
}

impl Switches {
    /// Prints the switches as they are, or as they are now.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self.edit {
            None => {}
            Some(Edit::Storage(command)) => command.run(&stores).await?,
            Some(Edit::Allow(command)) => command.run(&stores).await?,
        }
        output::json(&State::load(&stores).await?)?;
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Storage {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let (registry, change) = (&stores.registry, change(stores));
        let on = self.position == Position::On;
        match self.tenant {
            None => {
                let edit = SwitchesEdit::Storage(on);
                registry.edit_switches(edit, None, change).await?;
            }
            Some(tenant) => {
                let edit = TenantEdit::Storage(on);
                registry.edit_tenant(tenant, edit, None, change).await?;
            }
        }
        Ok(())
    }
}

impl Allow {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        for name in &self.names {
            let key = ExtensionKey::Name(name.clone());
            if stores.registry.extension(&key).await?.is_none() {
                output::note(format_args!(
                    "warning: no extension {name} is published yet"
                ));
            }
        }
        let allowed = (!self.all).then(|| self.names.into_iter().collect());
        let edit = SwitchesEdit::AllowedExtensions(allowed);
        stores
            .registry
            .edit_switches(edit, None, change(stores))
            .await?;
        Ok(())
    }
}

impl State {
    async fn load(stores: &Stores) -> anyhow::Result<Self> {
        let switches = stores.registry.switches().await?;
        let mut off = Vec::new();
        let mut page = PageRequest::first(MAX_PAGE_ITEMS);
        loop {
            let found = stores.registry.tenants_with_settings(page).await?;
            let switched_off = found.items.iter().filter(|tenant| !tenant.storage);
            off.extend(switched_off.map(|tenant| tenant.tenant));
            match found.next {
                Some(next) => page = PageRequest::after(next, MAX_PAGE_ITEMS),
                None => break,
            }
        }
        Ok(Self {
            storage: switches.storage,
            allowed_extensions: switches.allowed_extensions,
            storage_off_for_tenants: off,
            updated_at: switches.updated_at,
        })
    }
}
