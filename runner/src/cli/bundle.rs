//! `alga-runner bundle`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alga_bundles::{
    ComponentCheck as _, Inspection, Issue, Limits, Manifest, PackError, PublishContext,
    PublishError, PublishRequest, Published, inspect, pack, publish,
};
use alga_model::ContentHash;
use alga_registry::{Registry as _, VersionKey};
use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, Subcommand};
use tokio::task::spawn_blocking;

use super::output::{self, Progress};
use crate::app::{Stores, engine_options};
use crate::config::Config;
use crate::engine::Engine;
use crate::publishing::{EngineCheck, Versions, capability_issues, capability_warnings};

/// Whom the audit names for what these commands do.
pub(super) const ACTOR: &str = "cli";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack a folder with manifest.json into a bundle; the same folder gives the same bytes
    Pack(Pack),
    /// Show what is in a bundle
    Inspect(File),
    /// Check a bundle as publishing would, its component included
    Verify(File),
    /// Publish a bundle: check it, store it under its hash, register its version
    Add(Add),
}

#[derive(Debug, Args)]
pub(super) struct Pack {
    /// The folder to pack
    folder: PathBuf,
    /// Where the bundle goes; NAME-VERSION.tar.zst beside the folder if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The bundle
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The bundle
    file: PathBuf,
    /// Refuse the bundle unless it has this hash
    #[arg(long, value_name = "HASH")]
    declared_hash: Option<ContentHash>,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match self {
            Self::Pack(command) => command.run().await,
            Self::Inspect(command) => command.inspect().await,
            Self::Verify(command) => command.verify(config).await,
            Self::Add(command) => command.run(config).await,
        }
    }
}

impl Pack {
    /// Prints the path of the bundle.
    async fn run(self) -> anyhow::Result<ExitCode> {
        // Judged before anything is written: a bundle that is there already stays as it is.
        let manifest = read_manifest(&self.folder)?;
        let target = self
            .output
            .map_or_else(|| default_output(&self.folder, &manifest), Ok)?;
        let path = target.clone();
        let packed = spawn_blocking(move || pack(&self.folder, &path, &Limits::default())).await?;
        let packed = packed.map_err(|error| match error {
            PackError::Manifest(invalid) => not_valid(&invalid.issues),
            error => error.into(),
        })?;
        warn(&packed.warnings);
        warn(&capability_warnings(&manifest));
        output::note(format_args!(
            "packed {} files into {} bytes, {}",
            packed.files.len(),
            packed.size,
            packed.hash
        ));
        output::line(target.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl File {
    async fn inspect(self) -> anyhow::Result<ExitCode> {
        let inspection = look_into(&self.file).await?;
        output::line(format_args!("hash      {}", inspection.hash))?;
        output::line(format_args!(
            "size      {} bytes, {} unpacked",
            inspection.size, inspection.unpacked
        ))?;
        if let Some(manifest) = &inspection.manifest {
            output::line(format_args!(
                "extension {} {} by {}",
                manifest.name, manifest.version, manifest.publisher
            ))?;
            for (capability, request) in manifest.capabilities() {
                output::line(format_args!("asks for  {capability} {request}"))?;
            }
        }
        for (file, size) in &inspection.files {
            output::line(format_args!("{size:>12}  {file}"))?;
        }
        warn(&inspection.warnings);
        Ok(verdict(&inspection))
    }

    /// Prints the hash of a good bundle.
    async fn verify(self, config: &Config) -> anyhow::Result<ExitCode> {
        let inspection = look_into(&self.file).await?;
        warn(&inspection.warnings);
        if !inspection.is_complete() {
            return Ok(verdict(&inspection));
        }
        let component = component(&self.file, &inspection).await?;
        let engine = Engine::new(engine_options(config))?;
        EngineCheck(&engine)
            .check(inspection.hash, component)
            .await?;
        output::line(inspection.hash)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    /// Prints the hash of the bundle.
    async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        ensure_file(&self.file).await?;
        let stores = Stores::open(config).await?;
        let engine = stores.engine(config)?;
        let published = add(&stores, &engine, &self.file, self.declared_hash).await?;
        stores.close().await;
        output::note(format_args!(
            "published {} {} by {}",
            published.extension.name, published.version.version, published.extension.publisher
        ));
        output::line(published.content_hash)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Fails before anything is made where the bundle is not there.
pub(super) async fn ensure_file(file: &Path) -> anyhow::Result<()> {
    let metadata = tokio::fs::metadata(file).await;
    let metadata = metadata.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        metadata.is_file(),
        "{} is no file; make a bundle of a folder with `alga-runner bundle pack`",
        file.display()
    );
    Ok(())
}

/// Publishes a bundle file into `stores`.
pub(super) async fn add(
    stores: &Stores,
    engine: &Engine,
    file: &Path,
    declared_hash: Option<ContentHash>,
) -> anyhow::Result<Published> {
    let check = EngineCheck(engine);
    let versions = Versions {
        registry: Arc::clone(&stores.registry) as _,
        clock: Arc::clone(&stores.clock),
    };
    let size = tokio::fs::metadata(file)
        .await
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    let progress = Progress::new("checking", size);
    let request = PublishRequest {
        declared_hash,
        progress: Some(Arc::new(move |done| progress.show(done))),
        ..PublishRequest::new(file)
    };
    let context = PublishContext {
        store: &*stores.bundles,
        component_check: &check,
        registry: &versions,
        capability_check: &capability_issues,
        limits: &Limits::default(),
        actor: ACTOR,
    };
    let published = publish(request, context)
        .await
        .map_err(|error| {
            let (code, issues) = (error.code(), issues_of(&error));
            anyhow::Error::new(error).context(format!("{code}{issues}"))
        })
        .with_context(|| format!("cannot publish {}", file.display()))?;
    warn(&published.warnings);
    let key = VersionKey::Content(published.content_hash);
    if let Some(version) = stores.registry.version(&key).await? {
        let manifest = Manifest::parse(version.manifest.as_bytes())?.manifest;
        warn(&capability_warnings(&manifest));
    }
    Ok(published)
}

/// The component of a bundle that is in order.
async fn component(file: &Path, inspection: &Inspection) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let store = alga_bundles::LocalStore::open(folder.path().join("store"))?;
    let key = alga_bundles::ObjectKey::Bundle(inspection.hash);
    alga_bundles::BundleStore::create(&store, key, alga_bundles::Content::File(file)).await?;
    let cache = alga_bundles::BundleCache::new(
        folder.path().join("cache"),
        Arc::new(store),
        alga_bundles::FetchOptions::default(),
    )?;
    Ok(cache.get(inspection.hash).await?.read_component().await?)
}

async fn look_into(file: &Path) -> anyhow::Result<Inspection> {
    let path = file.to_owned();
    let mut inspection = spawn_blocking(move || inspect(&path, &Limits::default(), None))
        .await?
        .with_context(|| format!("{} can't be used as a bundle", file.display()))?;
    judge_capabilities(&mut inspection);
    Ok(inspection)
}

/// Adds what publishing would find.
fn judge_capabilities(inspection: &mut Inspection) {
    if let Some(manifest) = &inspection.manifest {
        inspection.issues.extend(capability_issues(manifest));
        inspection.warnings.extend(capability_warnings(manifest));
    }
}

/// Says what is wrong, if anything is.
fn verdict(inspection: &Inspection) -> ExitCode {
    if inspection.is_complete() {
        return ExitCode::SUCCESS;
    }
    if inspection.manifest.is_none() && inspection.issues.is_empty() {
        output::note("error: the bundle has no manifest.json");
    }
    for issue in &inspection.issues {
        output::note(format_args!(
            "error: manifest.json{}: {}",
            issue.path, issue.message
        ));
    }
    ExitCode::FAILURE
}

fn warn(warnings: &[Issue]) {
    for warning in warnings {
        output::note(format_args!(
            "warning: manifest.json{}: {}",
            warning.path, warning.message
        ));
    }
}

fn issues_of(error: &PublishError) -> String {
    match error {
        PublishError::Manifest(manifest) => lines(&manifest.issues),
        _ => String::new(),
    }
}

/// Each issue on a line of its own.
fn lines(issues: &[Issue]) -> String {
    let lines: Vec<_> = issues
        .iter()
        .map(|issue| format!("\n    manifest.json{}: {}", issue.path, issue.message))
        .collect();
    lines.concat()
}

fn not_valid(issues: &[Issue]) -> anyhow::Error {
    anyhow!("the manifest is not valid{}", lines(issues))
}

/// The manifest of a folder, if publishing would accept it.
fn read_manifest(folder: &Path) -> anyhow::Result<Manifest> {
    let path = folder.join(Manifest::FILE);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = Manifest::parse(&text)
        .map_err(|invalid| not_valid(&invalid.issues))?
        .manifest;
    let issues = capability_issues(&manifest);
    if issues.is_empty() {
        Ok(manifest)
    } else {
        Err(not_valid(&issues))
    }
}

fn default_output(folder: &Path, manifest: &Manifest) -> anyhow::Result<PathBuf> {
    let name = format!("{}-{}.tar.zst", manifest.name, manifest.version);
    Ok(std::path::absolute(folder)?.with_file_name(name))
}
