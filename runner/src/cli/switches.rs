//! `alga-runner switches`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use alga_model::{ExtensionName, TenantId, Timestamp};
use alga_registry::{
    Change, ExtensionKey, MAX_PAGE_ITEMS, PageRequest, Registry, RegistryError, SwitchesEdit,
    TenantEdit,
};
use anyhow::{Context as _, bail};
use clap::error::ErrorKind;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::install::change;
use super::{output, tenant};
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Switches {
    /// Show the switch of this tenant alone
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    #[command(subcommand)]
    edit: Option<Edit>,
}

#[derive(Debug, Subcommand)]
enum Edit {
    /// Switch the storage on or off; what is stored stays
    Storage(Storage),
    /// Replace or change the list of extensions that may use the storage
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
    /// These extensions besides those on the list
    #[arg(long, value_name = "NAME", num_args = 1..)]
    add: Vec<ExtensionName>,
    /// No longer these extensions
    #[arg(long, value_name = "NAME", num_args = 1..)]
    remove: Vec<ExtensionName>,
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

/// The switch of one tenant as it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateOfTenant {
    tenant_id: TenantId,
    storage: bool,
}

impl Switches {
    /// Prints the switches as they are, or as they are now.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if self.tenant.is_some() && self.edit.is_some() {
            // Not clap's to refuse: for it, the settings of every command would conflict as well.
            let mistake = "--tenant goes behind `storage on` or `storage off`\n";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, mistake).into());
        }
        let stores = Stores::open_existing(config).await?;
        match self.edit {
            None => {}
            Some(Edit::Storage(command)) => command.run(&stores).await?,
            Some(Edit::Allow(command)) => command.run(&stores).await?,
        }
        match self.tenant {
            None => output::json(&State::load(&stores).await?)?,
            Some(tenant) => output::json(&StateOfTenant::load(&stores, tenant).await?)?,
        }
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
                tenant::note_unless_known(&**registry, tenant).await?;
                let edit = TenantEdit::Storage(on);
                registry.edit_tenant(tenant, edit, None, change).await?;
            }
        }
        Ok(())
    }
}

impl Allow {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let (registry, change) = (&*stores.registry, change(stores));
        for name in self.names.iter().chain(&self.add) {
            let key = ExtensionKey::Name(name.clone());
            if registry.extension(&key).await?.is_none() {
                output::note(format_args!(
                    "warning: no extension {name} is published yet"
                ));
            }
        }
        if !self.add.is_empty() {
            add(registry, &self.add, change).await
        } else if !self.remove.is_empty() {
            remove(registry, &self.remove, change).await
        } else {
            let allowed = (!self.all).then(|| self.names.into_iter().collect());
            let edit = SwitchesEdit::AllowedExtensions(allowed);
            registry.edit_switches(edit, None, change).await?;
            Ok(())
        }
    }
}

/// Allows more extensions than those on the list.
async fn add(
    registry: &dyn Registry,
    names: &[ExtensionName],
    change: Change<'_>,
) -> anyhow::Result<()> {
    let all_are_allowed = "every extension is allowed already; `alga-runner switches allow NAME…` leaves the storage to some";
    edit_list(registry, change, all_are_allowed, |allowed| {
        allowed.extend(names.iter().cloned());
    })
    .await
}

/// Takes extensions from the list.
async fn remove(
    registry: &dyn Registry,
    names: &[ExtensionName],
    change: Change<'_>,
) -> anyhow::Result<()> {
    let all_are_allowed = "every extension is allowed, so there is no list to remove from; `alga-runner switches allow NAME…` gives one";
    edit_list(registry, change, all_are_allowed, |allowed| {
        for name in names {
            if !allowed.remove(name) {
                output::note(format_args!("{name} is not on the list"));
            }
        }
    })
    .await
}

/// How often the list is read once more because somebody else changed it meanwhile.
const ATTEMPTS: usize = 5;

/// Changes the list of allowed extensions, and nothing that others change at the same time; fails
/// with `all_are_allowed` where there is none.
async fn edit_list(
    registry: &dyn Registry,
    change: Change<'_>,
    all_are_allowed: &'static str,
    edit: impl Fn(&mut BTreeSet<ExtensionName>),
) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        let switches = registry.switches().await?;
        let mut allowed = switches.allowed_extensions.context(all_are_allowed)?;
        edit(&mut allowed);
        let edit = SwitchesEdit::AllowedExtensions(Some(allowed));
        let expected = Some(switches.generation);
        match registry.edit_switches(edit, expected, change).await {
            Err(RegistryError::Conflict { .. }) => {}
            done => return Ok(done.map(drop)?),
        }
    }
    bail!("others keep changing the switches; try again")
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

impl StateOfTenant {
    async fn load(stores: &Stores, tenant: TenantId) -> anyhow::Result<Self> {
        let registry = &*stores.registry;
        tenant::note_unless_known(registry, tenant).await?;
        if !registry.switches().await?.storage {
            output::note("the storage is switched off for all tenants");
        }
        Ok(Self {
            tenant_id: tenant,
            storage: registry.tenant_settings(tenant).await?.storage,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::stage::Stage;

    async fn allowed(stage: &Stage) -> Option<BTreeSet<ExtensionName>> {
        stage.registry.switches().await.unwrap().allowed_extensions
    }

    async fn allow(stage: &Stage, names: Option<&[ExtensionName]>) {
        let names = names.map(|names| names.iter().cloned().collect());
        let edit = SwitchesEdit::AllowedExtensions(names);
        let edited = stage.registry.edit_switches(edit, None, stage.change());
        edited.await.unwrap();
    }

    fn names(count: usize) -> Vec<ExtensionName> {
        let name = |number| format!("com.example.number{number}").parse().unwrap();
        (0..count).map(name).collect()
    }

    #[tokio::test]
    async fn names_added_at_the_same_time_are_all_on_the_list() {
        let stage = Stage::open().await;
        allow(&stage, Some(&[])).await;
        let names = names(ATTEMPTS);
        let adding = names
            .chunks(1)
            .map(|name| add(&*stage.registry, name, stage.change()));
        for added in join_all(adding).await {
            added.unwrap();
        }
        assert_eq!(allowed(&stage).await, Some(names.into_iter().collect()));
    }

    #[tokio::test]
    async fn what_is_removed_leaves_the_rest() {
        let stage = Stage::open().await;
        let names = names(3);
        allow(&stage, Some(&names)).await;
        let removed = remove(&*stage.registry, &names[1..], stage.change());
        removed.await.unwrap();
        let left = Some(BTreeSet::from([names[0].clone()]));
        assert_eq!(allowed(&stage).await, left);
        // Once more: what is gone already is no mistake.
        let removed = remove(&*stage.registry, &names[1..], stage.change());
        removed.await.unwrap();
        assert_eq!(allowed(&stage).await, left);
    }

    #[tokio::test]
    async fn there_is_nothing_to_add_or_remove_where_all_are_allowed() {
        let stage = Stage::open().await;
        allow(&stage, None).await;
        let names = names(1);
        let added = add(&*stage.registry, &names, stage.change()).await;
        let said = added.unwrap_err().to_string();
        assert!(said.contains("allowed already"), "{said}");
        let removed = remove(&*stage.registry, &names, stage.change()).await;
        let said = removed.unwrap_err().to_string();
        assert!(said.contains("no list"), "{said}");
        assert_eq!(allowed(&stage).await, None);
    }
}
