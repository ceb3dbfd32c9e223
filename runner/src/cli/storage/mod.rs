//! `alga-runner storage`: the records of an install, through the same gate as its guest's.

mod lines;
mod read;
mod sweep;
mod write;

use std::process::ExitCode;

use alga_model::InstallId;
use alga_registry::{Install, InstallState, Registry as _};
use alga_storage::{Actor, Caller, Error, Gate, Limits, QuotaName};
use anyhow::{anyhow, ensure};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::bundle::ACTOR;
use super::install::find;
use super::limits;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Records(Records),
    /// Remove the expired records and old audit records of all tenants; prints as JSON how many
    Sweep,
}

/// What is done to the records of one install.
#[derive(Debug, Subcommand)]
pub(super) enum Records {
    /// Print the value of a record
    Get(read::Get),
    /// Print several records as JSON lines in the order asked, with "found": false for a miss
    GetMany(read::GetMany),
    /// Write a record; prints its revision
    Put(write::Put),
    /// Write several records, all or none; prints a JSON line for each
    BulkPut(write::BulkPut),
    /// Delete a record; prints as JSON whether there was one
    Delete(write::Delete),
    /// Print records as JSON lines, in key order
    List(read::List),
}

#[derive(Debug, Args)]
struct Place {
    /// The install
    install: InstallId,
    /// The namespace
    namespace: String,
}

/// The storage as an install finds it.
#[derive(Debug)]
struct Door {
    gate: Gate,
    caller: Caller,
    limits: Limits,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self {
            Self::Sweep => sweep::run(&stores, config).await?,
            Self::Records(command) => {
                let door = Door::open(&stores, config, command.install()).await?;
                command.run(&door).await?;
            }
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Records {
    const fn install(&self) -> InstallId {
        let place = match self {
            Self::Get(command) => &command.place,
            Self::GetMany(command) => &command.place,
            Self::Put(command) => &command.place,
            Self::BulkPut(command) => &command.place,
            Self::Delete(command) => &command.place,
            Self::List(command) => &command.place,
        };
        place.install
    }

    async fn run(self, door: &Door) -> anyhow::Result<()> {
        match self {
            Self::Get(command) => command.run(door).await,
            Self::GetMany(command) => command.run(door).await,
            Self::Put(command) => command.run(door).await,
            Self::BulkPut(command) => command.run(door).await,
            Self::Delete(command) => command.run(door).await,
            Self::List(command) => command.run(door).await,
        }
    }
}

impl Door {
    async fn open(stores: &Stores, config: &Config, id: InstallId) -> anyhow::Result<Self> {
        let install = find(stores, id).await?;
        ensure!(
            install.state == InstallState::Enabled,
            "the install {id} is {}",
            install.state.as_str()
        );
        ensure_switched_on(stores, &install).await?;
        let (installs, gate) = stores.gate(config);
        Ok(Self {
            limits: limits::of_install(&installs, &install).await?,
            gate,
            caller: Caller {
                install: id,
                actor: Actor::Admin(ACTOR.into()),
                request_id: Uuid::now_v7().to_string().into(),
                may_use_storage: true,
            },
        })
    }
}

/// The gate would refuse as well, but not say which switch it was.
async fn ensure_switched_on(stores: &Stores, install: &Install) -> anyhow::Result<()> {
    let switches = stores.registry.switches().await?;
    ensure!(
        switches.storage,
        "the storage is switched off; `alga-runner switches storage on` switches it on"
    );
    let (tenant, extension) = (install.tenant, &install.extension_name);
    ensure!(
        stores.registry.tenant_settings(tenant).await?.storage,
        "the storage is switched off for the tenant; `alga-runner switches storage on --tenant {tenant}` switches it on"
    );
    ensure!(
        switches.allows(extension),
        "{extension} is not on the list of allowed extensions, which `alga-runner switches allow` replaces"
    );
    Ok(())
}

/// Why an operation did not happen, and what can be done about it.
fn refusal(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::RevisionMismatch(found) => match found.current_revision {
            Some(revision) => format!("the record is at revision {revision}"),
            None => "there is no such record".to_owned(),
        },
        Error::CapabilityDenied | Error::NamespaceDenied(_) => {
            "`alga-runner install grant` says what the install may use".to_owned()
        }
        Error::QuotaExceeded(quota) if quota.name == QuotaName::BytesPerTenant => {
            "`alga-runner tenant limits` shows the limits and sets others".to_owned()
        }
        Error::LimitExceeded(_) | Error::QuotaExceeded(_) => {
            "`alga-runner install limits` shows the limits and sets others".to_owned()
        }
        _ => return error.into(),
    };
    anyhow!("{error}; {hint}")
}
