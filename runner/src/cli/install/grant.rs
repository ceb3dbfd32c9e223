//! `alga-runner install grant`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use alga_bundles::Manifest;
use alga_model::InstallId;
use alga_registry::{Grants, Registry as _, Version, VersionKey};
use alga_storage::{CAPABILITY, StorageGrant};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::{change, find};
use crate::app::Stores;
use crate::cli::output;

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
    pub(super) async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let install = find(stores, self.install).await?;
        let version = stores
            .registry
            .version(&VersionKey::Id(install.version_id))
            .await?;
        let manifest = manifest(&version.context("the version of the install is gone")?)?;
        let grants = match &self.grants {
            Some(path) => read(path)?,
            None if self.all => manifest.capabilities(),
            None => Grants::new(),
        };
        ensure_within(&grants, &manifest)?;
        let install = stores
            .registry
            .set_grants(self.install, grants, None, change(stores))
            .await?;
        note(&install.grants);
        Ok(())
    }
}

/// A grant can only be narrower than what the manifest asks for.
pub(super) fn ensure_within(grants: &Grants, manifest: &Manifest) -> anyhow::Result<()> {
    let asked = manifest.capabilities();
    for (capability, grant) in grants {
        let Some(asked) = asked.get(capability) else {
            bail!("the manifest does not ask for {capability}, so it can't be granted");
        };
        if capability == CAPABILITY {
            let (grant, asked) = (StorageGrant::parse(grant)?, StorageGrant::parse(asked)?);
            ensure!(
                grant.is_within(&asked),
                "the grant of {capability} is wider than what the manifest asks for"
            );
        }
    }
    Ok(())
}

pub(super) fn manifest(version: &Version) -> anyhow::Result<Manifest> {
    Ok(Manifest::parse(version.manifest.as_bytes())
        .context("the registered manifest is not valid")?
        .manifest)
}

pub(super) fn read(path: &PathBuf) -> anyhow::Result<Grants> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str::<BTreeMap<String, Value>>(&text).with_context(|| {
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
