//! `alga-runner bundle`.

mod add;
mod inspect;
mod pack;

use std::path::Path;
use std::process::ExitCode;

use alga_bundles::Issue;
use anyhow::{Context as _, ensure};
use clap::Subcommand;

pub(super) use self::add::add;
use super::output;
use crate::config::Config;

/// Whom the audit names for what these commands do.
pub(super) const ACTOR: &str = "cli";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack a folder with manifest.json into a bundle; the same folder gives the same bytes
    Pack(pack::Pack),
    /// Show what is in a bundle
    Inspect(inspect::File),
    /// Check a bundle as publishing would, its component included
    Verify(inspect::File),
    /// Publish a bundle: check it, store it under its hash, register its version
    Add(add::Add),
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

fn warn(warnings: &[Issue]) {
    for warning in warnings {
        output::note(format_args!(
            "warning: manifest.json{}: {}",
            warning.path, warning.message
        ));
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
