//! `alga-runner install`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use alga_bundles::Manifest;
use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{
    Change, Config as InstallConfig, ExtensionKey, Grants, Install, InstallFilter, InstallState,
    MAX_PAGE_ITEMS, NewInstall, PageRequest, Registry, Version, VersionKey,
};
use alga_storage::{CAPABILITY, LimitsOf, StorageGrant};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::bundle::ACTOR;
use super::limits::{self, Wanted};
use super::output;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Install an extension for a tenant, granted what its manifest asks for unless told otherwise
    Create(Create),
    /// List installs
    List(List),
    /// Replace what an install may use
    Grant(Grant),
    /// Let a disabled install run again
    Enable(Switch),
    /// Keep an install from running; its data stays
    Disable(Switch),
    /// Print as JSON how far an install's limits differ from its tenant's, and what applies; or
    /// change it
    Limits(Limits),
}

#[derive(Debug, Args)]
pub(super) struct Create {
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

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only installs of this tenant
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    /// Only installs of this extension
    #[arg(long, value_name = "NAME")]
    extension: Option<ExtensionName>,
}

#[derive(Debug, Args)]
pub(super) struct Grant {
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

#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The install
    install: InstallId,
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    /// The install
    install: InstallId,
    #[command(flatten)]
    edit: limits::Edit,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        match self {
            Self::Create(command) => command.run(&stores).await?,
            Self::List(command) => command.run(&stores).await?,
            Self::Grant(command) => command.run(&stores).await?,
            Self::Enable(command) => command.run(&stores, InstallState::Enabled).await?,
            Self::Disable(command) => command.run(&stores, InstallState::Disabled).await?,
            Self::Limits(command) => command.run(&stores, config).await?,
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    /// Prints the id of the install.
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let version = self.version(stores).await?;
        let manifest = manifest(&version)?;
        let grants = match &self.grants {
            None => manifest.capabilities(),
            Some(path) => read_grants(path)?,
        };
        ensure_within(&grants, &manifest)?;
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
        note_grants(&install.grants);
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

impl List {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let filter = InstallFilter {
            tenant: self.tenant,
            extension: self.extension.map(ExtensionKey::Name),
            ..InstallFilter::default()
        };
        let mut rows = Vec::new();
        let mut page = PageRequest::first(MAX_PAGE_ITEMS);
        loop {
            let found = stores.registry.installs(&filter, page).await?;
            rows.extend(found.items.iter().map(row));
            match found.next {
                Some(next) => page = PageRequest::after(next, MAX_PAGE_ITEMS),
                None => break,
            }
        }
        Ok(output::table(
            [
                "INSTALL",
                "TENANT",
                "EXTENSION",
                "VERSION",
                "STATE",
                "GRANTS",
            ],
            &rows,
        )?)
    }
}

fn row(install: &Install) -> [String; 6] {
    [
        install.id.to_string(),
        install.tenant.to_string(),
        install.extension_name.to_string(),
        install.version.clone(),
        install.state.as_str().to_owned(),
        install
            .grants
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
    ]
}

impl Grant {
    async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let install = find(stores, self.install).await?;
        let version = stores
            .registry
            .version(&VersionKey::Id(install.version_id))
            .await?;
        let manifest = manifest(&version.context("the version of the install is gone")?)?;
        let grants = match &self.grants {
            Some(path) => read_grants(path)?,
            None if self.all => manifest.capabilities(),
            None => Grants::new(),
        };
        ensure_within(&grants, &manifest)?;
        let install = stores
            .registry
            .set_grants(self.install, grants, None, change(stores))
            .await?;
        note_grants(&install.grants);
        Ok(())
    }
}

impl Switch {
    async fn run(self, stores: &Stores, state: InstallState) -> anyhow::Result<()> {
        find(stores, self.install).await?;
        stores
            .registry
            .set_state(self.install, state, None, change(stores))
            .await?;
        output::note(format_args!("{} is {}", self.install, state.as_str()));
        Ok(())
    }
}

impl Limits {
    async fn run(self, stores: &Stores, config: &Config) -> anyhow::Result<()> {
        let mut install = find(stores, self.install).await?;
        if let Wanted::Replaced(overrides) = self.edit.wanted(LimitsOf::Install)? {
            install = stores
                .registry
                .set_limits(install.id, overrides, None, change(stores))
                .await?;
        }
        let (installs, _) = stores.gate(config);
        let effective = limits::of_install(&installs, &install).await?;
        limits::print(install.limits.as_ref(), &effective)
    }
}

pub(super) async fn find(stores: &Stores, id: InstallId) -> anyhow::Result<Install> {
    let install = stores.registry.install(id).await?;
    install.with_context(|| {
        format!("there is no install {id}; `alga-runner install list` shows those there are")
    })
}

/// A grant can only be narrower than what the manifest asks for.
fn ensure_within(grants: &Grants, manifest: &Manifest) -> anyhow::Result<()> {
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

fn manifest(version: &Version) -> anyhow::Result<Manifest> {
    Ok(Manifest::parse(version.manifest.as_bytes())
        .context("the registered manifest is not valid")?
        .manifest)
}

fn read_grants(path: &PathBuf) -> anyhow::Result<Grants> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str::<BTreeMap<String, Value>>(&text).with_context(|| {
        format!(
            "{} holds no grants: a JSON object by capability",
            path.display()
        )
    })
}

fn note_grants(grants: &Grants) {
    if grants.is_empty() {
        output::note("granted nothing");
    }
    for (capability, grant) in grants {
        output::note(format_args!("granted {capability} {grant}"));
    }
}

pub(super) fn change(stores: &Stores) -> Change<'static> {
    Change {
        actor: ACTOR,
        request_id: None,
        now: stores.clock.now(),
    }
}

pub(super) fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
