//! `alga-runner install create`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use alga_model::{ExtensionName, TenantId};
use alga_registry::{
    Config as InstallConfig, ExtensionKey, MAX_PAGE_ITEMS, NewInstall, PageRequest, Registry as _,
    Version, VersionKey,
};
use anyhow::Context as _;
use clap::Args;

use super::{change, grant};
use crate::app::Stores;
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The tenant
    #[arg(long, value_name = "UUID")]
    tenant: TenantId,
    /// The extension's name
    #[arg(long, value_name = "NAME")]
    extension: ExtensionName,
    /// The version; the highest one if not given
    #[arg(long)]
    version: Option<String>,
    /// Grant what this JSON file says instead, in the shape of the manifest's capabilities
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// A setting of the install; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    settings: Vec<(String, String)>,
}

impl Create {
    /// Prints the id of the install.
    pub(super) async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let version = self.version(stores).await?;
        let manifest = grant::manifest(&version)?;
        let grants = match &self.grants {
            None => manifest.capabilities(),
            Some(path) => grant::read(path)?,
        };
        grant::ensure_within(&grants, &manifest)?;
        let new = NewInstall {
            grants,
            config: InstallConfig::from(self.settings.into_iter().collect::<BTreeMap<_, _>>()),
            ..NewInstall::new(self.tenant, version.id)
        };
        let install = stores.registry.create_install(&new, change(stores)).await?;
        output::note(format_args!(
            "installed {} {}",
            install.extension_name, install.version
        ));
        grant::note(&install.grants);
        output::line(install.id)?;
        Ok(())
    }

    async fn version(&self, stores: &Stores) -> anyhow::Result<Version> {
        let found = match &self.version {
            Some(version) => {
                let key = VersionKey::Named {
                    name: self.extension.clone(),
                    version: version.clone(),
                };
                stores.registry.version(&key).await?
            }
            None => newest_version(stores, &self.extension).await?,
        };
        let version = self.version.as_deref().unwrap_or("any version");
        found.with_context(|| {
            format!(
                "there is no {} in {version}; publish it with `alga-runner bundle add`",
                self.extension
            )
        })
    }
}

/// The highest version by the rules of semver; a pre-release only where there is nothing else.
async fn newest_version(
    stores: &Stores,
    extension: &ExtensionName,
) -> anyhow::Result<Option<Version>> {
    let key = ExtensionKey::Name(extension.clone());
    let Some(extension) = stores.registry.extension(&key).await? else {
        return Ok(None);
    };
    let mut versions = Vec::new();
    let mut page = PageRequest::first(MAX_PAGE_ITEMS);
    loop {
        let found = stores.registry.versions(extension.id, page).await?;
        versions.extend(found.items);
        match found.next {
            Some(next) => page = PageRequest::after(next, MAX_PAGE_ITEMS),
            None => break,
        }
    }
    let rank = |version: &Version| {
        let parsed = semver::Version::parse(&version.version).ok()?;
        Some((parsed.pre.is_empty(), parsed))
    };
    Ok(versions.into_iter().max_by_key(rank))
}

pub(in crate::cli) fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
