//! `alga-runner storage`: the records of an install, through the same gate as its guest's.

mod bulk;
mod items;
mod lines;
mod read;
mod refusal;
mod shards;
mod sweep;
mod write;

use std::process::ExitCode;
use std::sync::Arc;

use alga_model::{Clock, InstallId, TenantId};
use alga_registry::{Install, InstallState};
use alga_storage::{
    Actor, Caller, Error, ErrorCode, Gate, Guard, Key, Limits, Namespace, QuotaName, Revision,
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

pub(super) use refusal::{Refusal, TRY_AGAIN};

use super::bundle::ACTOR;
use super::install::find;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(super) enum Command {
    #[command(flatten)]
    Records(Records),
    /// Print where what is stored is, by table, node and shard, and the largest tenants
    Shards(shards::Shards),
    /// Remove the expired records and old audit records of all tenants; prints as JSON how many
    Sweep,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed otherwise
  2  a command line that cannot be read
  3  NOT_FOUND
  4  REVISION_MISMATCH
  5  refused otherwise, for instance NAMESPACE_DENIED or QUOTA_EXCEEDED
  6  UNAVAILABLE or RATE_LIMITED: try again";

/// What is done to the records of one install.
#[derive(Debug, Subcommand)]
pub(super) enum Records {
    /// Print the value of a record
    Get(read::Get),
    /// Print several records as JSON lines in the order asked, with "found": false for a miss
    GetMany(read::GetMany),
    /// Write a record; prints its revision
    Put(write::Put),
    /// Write several records, all or none, or in batches; prints a JSON line for each
    BulkPut(bulk::BulkPut),
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
    tenant: TenantId,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self {
            Self::Shards(command) => command.run(&stores).await?,
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

impl Place {
    fn namespace(&self) -> anyhow::Result<Namespace> {
        let text = &self.namespace;
        Namespace::parse(text)
            .map_err(Refusal::from)
            .with_context(|| format!("cannot use the namespace {}", quoted(text)))
    }
}

impl Door {
    async fn open(stores: &Stores, config: &Config, id: InstallId) -> anyhow::Result<Self> {
        let install = find(stores, id).await?;
        ensure_enabled(&install)?;
        ensure_switched_on(stores, &install).await?;
        let (installs, gate) = stores.gate(config);
        Ok(Self {
            limits: installs.install_limits(&install).await?,
            gate,
            caller: Caller {
                install: id,
                actor: Actor::Admin(ACTOR.into()),
                request_id: Uuid::now_v7().to_string().into(),
                may_use_storage: true,
                operation_id: None,
            },
            tenant: install.tenant,
            clock: Arc::clone(&stores.clock),
        })
    }

    /// Why an operation did not happen, and what can be done about it.
    fn refusal(&self, error: Error) -> Refusal {
        let (install, tenant) = (self.caller.install, self.tenant);
        let hint = match &error {
            Error::RevisionMismatch(found) => match found.current_revision {
                Some(revision) => format!("the record is at revision {revision}"),
                None => "there is no such record".to_owned(),
            },
            Error::CapabilityDenied | Error::NamespaceDenied(_) => format!(
                "`alga-runner install show {install}` shows what is granted, `alga-runner install grant {install}` replaces it"
            ),
            Error::QuotaExceeded(quota) if quota.name == QuotaName::BytesPerTenant => {
                format!("`alga-runner tenant limits {tenant}` shows the limits and sets others")
            }
            Error::LimitExceeded(_) | Error::QuotaExceeded(_) => {
                format!("`alga-runner install limits {install}` shows the limits and sets others")
            }
            _ => return error.into(),
        };
        Refusal::from(error).hinted(hint)
    }
}

fn ensure_enabled(install: &Install) -> Result<(), Refusal> {
    let id = install.id;
    match install.state {
        InstallState::Enabled => Ok(()),
        InstallState::Disabled => Err(denied(format!(
            "the install {id} is disabled; `alga-runner install enable {id}` lets it run again"
        ))),
        InstallState::Uninstalled => Err(denied(format!("the install {id} is uninstalled"))),
    }
}

/// The gate would refuse as well, but not say which switch it was.
async fn ensure_switched_on(stores: &Stores, install: &Install) -> anyhow::Result<()> {
    let switches = stores.registry.switches().await?;
    let (tenant, extension) = (install.tenant, &install.extension_name);
    let off = if !switches.storage {
        "the storage is switched off; `alga-runner switches storage on` switches it on".to_owned()
    } else if !stores.registry.tenant_settings(tenant).await?.storage {
        format!(
            "the storage is switched off for the tenant; `alga-runner switches storage on --tenant {tenant}` switches it on"
        )
    } else if !switches.allows(extension) {
        format!(
            "{extension} is not on the list of allowed extensions, which `alga-runner switches allow` replaces"
        )
    } else {
        return Ok(());
    };
    Err(denied(off).into())
}

fn denied(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::CapabilityDenied, message)
}

fn key(text: String) -> anyhow::Result<Key> {
    let name = quoted(&text);
    Key::parse(text)
        .map_err(Refusal::from)
        .with_context(|| format!("cannot use the key {name}"))
}

fn at_revision(revision: u64) -> Result<Guard, Error> {
    match revision {
        0 => Ok(Guard::Absent),
        _ => Revision::parse(revision).map(Guard::Exactly),
    }
}

/// A text of somebody else's as messages name it: on one line, and not longer than one.
fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("'{}{more}'", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a\n\u{1b}[2J"), r"'a\n\u{1b}[2J'");
        assert_eq!(quoted(&"ü".repeat(80)), format!("'{}'", "ü".repeat(80)));
        assert_eq!(quoted(&"ü".repeat(81)), format!("'{}…'", "ü".repeat(80)));
    }
}
