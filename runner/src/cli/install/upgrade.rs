//! `alga-runner install upgrade` and `rollback`.

use std::path::PathBuf;

use alga_model::InstallId;
use anyhow::anyhow;
use clap::Args;

use super::grant;
use crate::admin::{
    Administration, Ask, Refused, Rollback as RollbackOperation, RollbackBody,
    Upgrade as UpgradeOperation, UpgradeAnswer, UpgradeBody,
};
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Upgrade {
    /// The install
    install: InstallId,
    /// The version; the highest one if not given
    #[arg(long)]
    version: Option<String>,
    /// Grant what this JSON file says, in the shape of the manifest's capabilities; else what the
    /// version asks for, but for what is withheld at present
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rollback {
    /// The install
    install: InstallId,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct Consent {
    /// Approve that the install gets wider grants than it has
    #[arg(long)]
    approve: bool,
    /// Only print what would be different, or why it can't be done
    #[arg(long)]
    dry_run: bool,
}

impl Upgrade {
    pub(super) async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let wanted = UpgradeBody {
            version: self.version,
            grants: self.grants.as_deref().map(grant::read).transpose()?,
            approve: self.consent.approve,
            dry_run: self.consent.dry_run,
        };
        let ask = Ask::<UpgradeOperation>::with(self.install, wanted);
        print(admin.ask(ask).await)
    }
}

impl Rollback {
    pub(super) async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let wanted = RollbackBody {
            approve: self.consent.approve,
            dry_run: self.consent.dry_run,
        };
        let ask = Ask::<RollbackOperation>::with(self.install, wanted);
        print(admin.ask(ask).await)
    }
}

fn print(answer: Result<UpgradeAnswer, Refused>) -> anyhow::Result<()> {
    match answer {
        Ok(answer) => Ok(output::json(&answer)?),
        Err(refused) if refused.code == "APPROVAL_NEEDED" => {
            Err(anyhow!("{refused}\nonce it is judged fine: --approve"))
        }
        Err(refused) => Err(refused.into()),
    }
}
