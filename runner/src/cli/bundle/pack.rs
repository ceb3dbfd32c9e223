//! `alga-runner bundle pack`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alga_bundles::{Issue, Limits, Manifest, PackError, pack};
use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::task::spawn_blocking;

use super::{ensure_folder_of, lines, warn};
use crate::cli::output;
use crate::publishing::{capability_issues, capability_warnings};

#[derive(Debug, Args)]
pub(in crate::cli) struct Pack {
    /// The folder to pack
    folder: PathBuf,
    /// Where the bundle goes; NAME-VERSION.tar.zst beside the folder if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Pack {
    /// Prints the path of the bundle.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        // Judged before anything is written: a bundle that is there already stays as it is.
        let manifest = read_manifest(&self.folder)?;
        let target = self
            .output
            .map_or_else(|| default_output(&self.folder, &manifest), Ok)?;
        ensure_folder_of(&target)?;
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
