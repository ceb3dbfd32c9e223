//! `alga-runner switches`.

use std::process::ExitCode;

use alga_model::{ExtensionName, TenantId};
use anyhow::{Context as _, bail};
use clap::error::ErrorKind;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::session::Session;
use super::{output, tenant};
use crate::admin::{
    Administration, Ask, ReplaceSwitches, ReplaceSwitchesBody, ReplaceTenantSwitches,
    ReplaceTenantSwitchesBody, ShowExtension, ShowSwitches, ShowTenantSwitches,
};
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
    /// Replace or change the list of extensions that may be installed and use the storage
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

impl Switches {
    /// Prints the switches as they are, or as they are now.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if self.tenant.is_some() && self.edit.is_some() {
            // Not clap's to refuse: for it, the settings of every command would conflict as well.
            let mistake = "--tenant goes behind `storage on` or `storage off`\n";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, mistake).into());
        }
        let session = Session::open(config).await?;
        let admin = &session.admin;
        match self.edit {
            None => {}
            Some(Edit::Storage(command)) => command.run(admin).await?,
            Some(Edit::Allow(command)) => command.run(admin).await?,
        }
        match self.tenant {
            None => output::json(&admin.ask(Ask::<ShowSwitches>::of(())).await?)?,
            Some(tenant) => show_of_tenant(admin, tenant).await?,
        }
        session.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Storage {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let on = self.position == Position::On;
        match self.tenant {
            None => {
                edit(admin, |switches| {
                    switches.storage = on;
                    Ok(())
                })
                .await
            }
            Some(tenant) => {
                tenant::note_unless_known(admin, tenant).await?;
                let wanted = ReplaceTenantSwitchesBody { storage: on };
                let ask = Ask::<ReplaceTenantSwitches>::with(tenant, wanted);
                admin.ask(ask).await?;
                Ok(())
            }
        }
    }
}

impl Allow {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        for name in self.names.iter().chain(&self.add) {
            match admin.ask(Ask::<ShowExtension>::of(name.clone())).await {
                Err(refused) if refused.code == "NOT_FOUND" => output::note(format_args!(
                    "warning: no extension {name} is published yet"
                )),
                found => drop(found?),
            }
        }
        if !self.add.is_empty() {
            add(admin, &self.add).await
        } else if !self.remove.is_empty() {
            remove(admin, &self.remove).await
        } else {
            edit(admin, |switches| {
                let names = || self.names.iter().cloned().collect();
                switches.allowed_extensions = (!self.all).then(names);
                Ok(())
            })
            .await
        }
    }
}

/// Allows more extensions than those on the list.
async fn add(admin: &Administration, names: &[ExtensionName]) -> anyhow::Result<()> {
    edit(admin, |switches| {
        let allowed = switches.allowed_extensions.as_mut().context("every extension is allowed already; `alga-runner switches allow NAME…` leaves the storage to some")?;
        allowed.extend(names.iter().cloned());
        Ok(())
    })
    .await
}

/// Takes extensions from the list.
async fn remove(admin: &Administration, names: &[ExtensionName]) -> anyhow::Result<()> {
    edit(admin, |switches| {
        let allowed = switches.allowed_extensions.as_mut().context("every extension is allowed, so there is no list to remove from; `alga-runner switches allow NAME…` gives one")?;
        for name in names {
            if !allowed.remove(name) {
                output::note(format_args!("{name} is not on the list"));
            }
        }
        Ok(())
    })
    .await
}

/// How often the switches are read once more because somebody else changed them meanwhile.
const ATTEMPTS: usize = 5;

/// Changes some of the switches, and nothing that others change at the same time.
async fn edit(
    admin: &Administration,
    edit: impl Fn(&mut ReplaceSwitchesBody) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        let present = admin.ask(Ask::<ShowSwitches>::of(())).await?;
        let mut wanted = ReplaceSwitchesBody {
            storage: present.storage,
            allowed_extensions: present.allowed_extensions,
        };
        edit(&mut wanted)?;
        let ask = Ask::<ReplaceSwitches>::with((), wanted).expecting(present.generation);
        match admin.ask(ask).await {
            Err(refused) if refused.is_outdated() => {}
            done => return Ok(done.map(drop)?),
        }
    }
    bail!("others keep changing the switches; try again")
}

async fn show_of_tenant(admin: &Administration, tenant: TenantId) -> anyhow::Result<()> {
    tenant::note_unless_known(admin, tenant).await?;
    if !admin.ask(Ask::<ShowSwitches>::of(())).await?.storage {
        output::note("the storage is switched off for all tenants");
    }
    let switches = admin.ask(Ask::<ShowTenantSwitches>::of(tenant)).await?;
    let shown = json!({ "tenantId": switches.tenant_id, "storage": switches.storage });
    Ok(output::json(&shown)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alga_registry::{Registry as _, SwitchesEdit};
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
        let admin = stage.administration();
        let adding = names.chunks(1).map(|name| add(&admin, name));
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
        let admin = stage.administration();
        remove(&admin, &names[1..]).await.unwrap();
        let left = Some(BTreeSet::from([names[0].clone()]));
        assert_eq!(allowed(&stage).await, left);
        // Once more: what is gone already is no mistake.
        remove(&admin, &names[1..]).await.unwrap();
        assert_eq!(allowed(&stage).await, left);
    }

    #[tokio::test]
    async fn there_is_nothing_to_add_or_remove_where_all_are_allowed() {
        let stage = Stage::open().await;
        allow(&stage, None).await;
        let admin = stage.administration();
        let names = names(1);
        let added = add(&admin, &names).await;
        let said = added.unwrap_err().to_string();
        assert!(said.contains("allowed already"), "{said}");
        let removed = remove(&admin, &names).await;
        let said = removed.unwrap_err().to_string();
        assert!(said.contains("no list"), "{said}");
        assert_eq!(allowed(&stage).await, None);
    }
}
