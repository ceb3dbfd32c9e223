//! `alga-runner audit`.

use std::process::ExitCode;

use alga_model::{Clock as _, InstallId, SystemClock, TenantId};
use clap::Args;
use clap::error::ErrorKind;

use super::moment::Moment;
use super::session::Session;
use super::{output, tenant};
use crate::admin::{Administration, AuditQuery};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only what was done to this tenant or its installs
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    /// Only what was done to this install
    #[arg(long, value_name = "UUID")]
    install: Option<InstallId>,
    /// Only what happened since this time: RFC 3339, a date, or so long ago, such as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only what happened before this time: RFC 3339, a date, or so long ago, such as 1h
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

impl Audit {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let session = Session::open(config).await?;
        self.export(&session.admin).await?;
        session.close().await;
        Ok(ExitCode::SUCCESS)
    }

    async fn export(&self, admin: &Administration) -> anyhow::Result<()> {
        let now = SystemClock::default().now();
        let resolved = |moment: Option<Moment>| moment.map(|moment| moment.resolve(now));
        let (since, until) = (resolved(self.since), resolved(self.until));
        if let (Some(since), Some(until)) = (since, until)
            && until < since
        {
            let mistake = "--until is before --since, so nothing can be in between\n";
            return Err(clap::Error::raw(ErrorKind::ValueValidation, mistake).into());
        }
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(admin, tenant).await?;
        }
        let query = AuditQuery {
            tenant: self.tenant,
            install: self.install,
            since,
            until,
        };
        let mut stream = admin.audit(query).await?;
        while let Some(line) = stream.next_line().await? {
            output::line(line)?;
        }
        Ok(())
    }
}
