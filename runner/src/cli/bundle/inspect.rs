//! `alga-runner bundle inspect` and `bundle verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alga_bundles::{ComponentCheck as _, Inspection, Limits, inspect};
use anyhow::Context as _;
use clap::Args;
use tokio::task::spawn_blocking;

use super::{ensure_archive, warn};
use crate::app::engine_options;
use crate::cli::output;
use crate::config::Config;
use crate::engine::Engine;
use crate::publishing::{EngineCheck, capability_issues, capability_warnings};

#[derive(Debug, Args)]
pub(in crate::cli) struct File {
    /// The bundle
    file: PathBuf,
}

impl File {
    pub(super) async fn inspect(self) -> anyhow::Result<ExitCode> {
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
    pub(super) async fn verify(self, config: &Config) -> anyhow::Result<ExitCode> {
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
    ensure_archive(file)?;
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
