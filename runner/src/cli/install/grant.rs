//! `alga-runner install grant`.

use std::path::{Path, PathBuf};

use alga_model::InstallId;
use alga_registry::Grants;
use anyhow::Context as _;
use clap::Args;

use crate::admin::{Administration, Ask, ReplaceGrants, ReplaceGrantsBody};
use crate::cli::{input, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct Grant {
    /// The install
    install: InstallId,
    /// What this JSON file says, in the shape of the manifest's capabilities
    #[arg(long, value_name = "FILE", required_unless_present_any = ["all", "none"], conflicts_with_all = ["all", "none"])]
    grants: Option<PathBuf>,
    /// Everything that the manifest asks for
    #[arg(long, conflicts_with_all = ["grants", "none"])]
    all: bool,
    /// Nothing
    #[arg(long, conflicts_with = "grants")]
    none: bool,
}

impl Grant {
    pub(super) async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let grants = match &self.grants {
            Some(path) => Some(read(path)?),
            None if self.all => None,
            None => Some(Grants::new()),
        };
        let wanted = ReplaceGrantsBody { grants };
        let replaced = admin.ask(Ask::<ReplaceGrants>::with(self.install, wanted));
        note(&replaced.await?.grants);
        Ok(())
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<Grants> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let grants = input::parsed(&text).and_then(|json| Ok(serde_json::from_value(json)?));
    grants.with_context(|| {
        format!(
            "{} holds no grants: a JSON object by capability",
            path.display()
        )
    })
}

pub(super) fn note(grants: &Grants) {
    if grants.is_empty() {
        output::note("granted nothing");
    }
    for (capability, grant) in grants {
        output::note(format_args!("granted {capability} {grant}"));
    }
}
