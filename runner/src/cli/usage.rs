//! `alga-runner usage`: what is stored, and whether the counters say so.

use std::collections::VecDeque;
use std::process::ExitCode;

use alga_model::{InstallId, TenantId};
use alga_registry::Install;
use alga_storage::{
    Actor, Backend as _, Drift, Error, Holding, Limits, Maintenance as _, Quotas, Scope, Usage,
};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bundle::ACTOR;
use super::install::find;
use super::output::{self, Tally};
use super::{limits, tenant};
use crate::app::Stores;
use crate::config::Config;

/// Tenants that are asked for at once.
const PAGE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print as JSON what an install, or a tenant, stores and may store
    Show(Show),
    /// Count all records and print as JSON lines where a counter says otherwise; fails where it stays
    /// so, or where a tenant's rows are too damaged to be counted
    Verify(Verify),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Show {
    /// The install
    install: Option<InstallId>,
    /// All installs of this tenant
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only records of this tenant
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    /// Put the counters right
    #[arg(long)]
    repair: bool,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let done = match self {
            Self::Show(command) => command.run(&stores, config).await?,
            Self::Verify(command) => command.run(&stores).await?,
        };
        stores.close().await;
        Ok(done)
    }
}

impl Show {
    async fn run(self, stores: &Stores, config: &Config) -> anyhow::Result<ExitCode> {
        let (installs, _) = stores.gate(config);
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(&*stores.registry, tenant).await?;
            let limits = installs.tenant_limits(tenant).await?;
            let holdings = stores.storage.holdings(tenant).await?;
            output::json(&TenantUsage::new(&holdings, &limits.quotas))?;
        }
        if let Some(install) = self.install {
            let install = find(stores, install).await?;
            let limits = limits::of_install(&installs, &install).await?;
            // Past the gate: what a disabled install stores must be seen as well.
            let usage = stores.storage.usage(&scope(install, limits)).await?;
            output::json(&InstallUsage::new(&usage))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn scope(install: Install, limits: Limits) -> Scope {
    Scope {
        tenant: install.tenant,
        install: install.id,
        extension: install.extension_name,
        limits,
        actor: Actor::Admin(ACTOR.into()),
        request_id: Uuid::now_v7().to_string().into(),
    }
}

impl Verify {
    /// Fails where something is wrong and stays so, or a tenant can't be checked.
    async fn run(self, stores: &Stores) -> anyhow::Result<ExitCode> {
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(&*stores.registry, tenant).await?;
        }
        let mut tally = Tally::new("tenants checked:");
        let (mut checked, mut repaired, mut wrong, mut damaged) = (0, 0, 0, 0);
        let mut tenants = Tenants::new(self.tenant);
        while let Some(tenant) = tenants.next(stores).await? {
            match stores.storage.verify_usage(tenant, self.repair).await {
                Ok(drifts) => {
                    checked += 1;
                    for drift in drifts {
                        let line = DriftLine::new(drift, self.repair);
                        if line.repaired {
                            repaired += 1;
                        } else {
                            wrong += 1;
                        }
                        output::json(&line)?;
                    }
                }
                // The database as a whole: the next tenant would fare no better.
                Err(error @ Error::Unavailable(_)) => return Err(error.into()),
                Err(error) => {
                    damaged += 1;
                    let of_tenant = format!("cannot check the tenant {tenant}");
                    output::error(&anyhow!(error).context(of_tenant));
                }
            }
            tally.show(checked);
        }
        drop(tally);
        let mut fate = match (repaired, wrong) {
            (0, 0) => "every counter is right".to_owned(),
            (_, 0) => format!("put right: {repaired}"),
            (0, _) => format!("wrong: {wrong}"),
            _ => format!("put right: {repaired}, wrong: {wrong}"),
        };
        if wrong > 0 && !self.repair {
            fate.push_str("; --repair puts right what counters say");
        }
        output::note(format_args!("tenants checked: {checked}; {fate}"));
        if damaged > 0 {
            output::note(format_args!("tenants that can't be checked: {damaged}"));
        }
        Ok(if damaged == 0 && wrong == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The tenants to check, one after another.
struct Tenants {
    page: VecDeque<TenantId>,
    after: Option<TenantId>,
    more: bool,
}

impl Tenants {
    /// One tenant, or all that have ever stored anything.
    fn new(only: Option<TenantId>) -> Self {
        Self {
            page: only.into_iter().collect(),
            after: None,
            more: only.is_none(),
        }
    }

    async fn next(&mut self, stores: &Stores) -> anyhow::Result<Option<TenantId>> {
        if self.page.is_empty() && self.more {
            self.page = stores.storage.tenants(self.after, PAGE).await?.into();
            self.after = self.page.back().copied();
            self.more = !self.page.is_empty();
        }
        Ok(self.page.pop_front())
    }
}

#[derive(Serialize)]
struct DriftLine {
    #[serde(flatten)]
    drift: Drift,
    repaired: bool,
}

impl DriftLine {
    const fn new(drift: Drift, repair: bool) -> Self {
        let repaired = repair && drift.counter.is_repairable();
        Self { drift, repaired }
    }
}

/// What an install stores and may store, as the storage API says it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstallUsage<'a> {
    bytes: u64,
    keys: u64,
    namespaces: usize,
    expired_not_removed: Value,
    limits: Value,
    per_namespace: Vec<NamespaceLine<'a>>,
}

#[derive(Serialize)]
struct NamespaceLine<'a> {
    namespace: &'a str,
    keys: u64,
    bytes: u64,
}

impl<'a> InstallUsage<'a> {
    fn new(usage: &'a Usage) -> Self {
        let per_namespace = usage.per_namespace.iter().map(|of| NamespaceLine {
            namespace: of.namespace.as_str(),
            keys: of.keys,
            bytes: of.bytes,
        });
        Self {
            bytes: usage.bytes,
            keys: usage.keys,
            namespaces: usage.per_namespace.len(),
            expired_not_removed: json!({ "keys": usage.expired_keys, "bytes": usage.expired_bytes }),
            limits: limits::quotas_json(&usage.quotas),
            per_namespace: per_namespace.collect(),
        }
    }
}

/// What the installs of a tenant store together and may store.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TenantUsage {
    bytes: u64,
    limits: Value,
    per_install: Vec<InstallLine>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstallLine {
    install_id: InstallId,
    bytes: u64,
    namespaces: u64,
    keys_of_fullest_namespace: u64,
}

impl TenantUsage {
    fn new(holdings: &[Holding], quotas: &Quotas) -> Self {
        let per_install = holdings.iter().map(|holding| InstallLine {
            install_id: holding.install,
            bytes: holding.bytes,
            namespaces: holding.namespaces,
            keys_of_fullest_namespace: holding.keys_of_fullest,
        });
        Self {
            bytes: holdings.iter().map(|holding| holding.bytes).sum(),
            limits: limits::quotas_json(quotas),
            per_install: per_install.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alga_storage::{Namespace, NamespaceUsage};

    use super::*;

    #[test]
    fn an_install_is_told_of_in_the_words_of_the_storage_api() {
        let usage = Usage {
            bytes: 5,
            keys: 2,
            expired_keys: 1,
            expired_bytes: 3,
            per_namespace: vec![NamespaceUsage {
                namespace: Namespace::parse("notes").unwrap(),
                keys: 2,
                bytes: 5,
            }],
            quotas: Quotas::default(),
        };
        assert_eq!(
            serde_json::to_value(InstallUsage::new(&usage)).unwrap(),
            json!({
                "bytes": 5,
                "keys": 2,
                "namespaces": 1,
                "expiredNotRemoved": {"keys": 1, "bytes": 3},
                "limits": limits::quotas_json(&usage.quotas),
                "perNamespace": [{"namespace": "notes", "keys": 2, "bytes": 5}],
            })
        );
    }
}
