//! `alga-runner usage`: what is stored, and whether the counters say so.

use std::collections::VecDeque;
use std::process::ExitCode;

use alga_model::{InstallId, TenantId};
use alga_storage::{Drift, Error};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Tally};
use super::session::{self, Session};
use super::tenant;
use crate::admin::{Administration, Ask, ShowInstallUsage, ShowTenantUsage};
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
        match self {
            Self::Show(command) => {
                let session = Session::open(config).await?;
                command.run(&session.admin).await?;
                session.close().await;
                Ok(ExitCode::SUCCESS)
            }
            Self::Verify(command) => {
                let stores = Stores::open_existing(config).await?;
                let done = command.run(&stores, config).await?;
                stores.close().await;
                Ok(done)
            }
        }
    }
}

impl Show {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(admin, tenant).await?;
            output::json(&admin.ask(Ask::<ShowTenantUsage>::of(tenant)).await?)?;
        }
        if let Some(install) = self.install {
            output::json(&admin.ask(Ask::<ShowInstallUsage>::of(install)).await?)?;
        }
        Ok(())
    }
}

impl Verify {
    /// Fails where something is wrong and stays so, or a tenant can't be checked.
    async fn run(self, stores: &Stores, config: &Config) -> anyhow::Result<ExitCode> {
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(&session::here(stores, config), tenant).await?;
        }
        let storage = stores.storage.here()?;
        let mut tally = Tally::new("tenants checked:");
        let (mut checked, mut repaired, mut wrong, mut damaged) = (0, 0, 0, 0);
        let mut tenants = Tenants::new(self.tenant);
        while let Some(tenant) = tenants.next(stores).await? {
            match storage.verify_usage(tenant, self.repair).await {
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
                // Gone as a whole: the next tenant would fare no better.
                Err(error @ Error::Unavailable(_)) if storage.database().ping().await.is_err() => {
                    return Err(error.into());
                }
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
            self.page = stores
                .storage
                .here()?
                .tenants(self.after, PAGE)
                .await?
                .into();
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
