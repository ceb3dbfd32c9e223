//! `alga-runner bundle`.

mod add;
mod advice;
mod care;
mod inspect;
mod keys;
mod pack;
mod push;
mod sign;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use alga_bundles::{Issue, ZSTD_MAGIC};
use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;

pub(super) use self::add::{Publication, add};
use super::output;
use crate::config::{Config, own_ids};

/// The name of the administrator whom the audit of the storage has for what these commands do.
pub(super) const ACTOR: &str = own_ids::CLI;
/// The same one, as the audit of the registry is told: in full.
pub(super) const REGISTRY_ACTOR: &str = "admin:cli";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack a folder with manifest.json into a bundle; the same folder gives the same bytes
    Pack(pack::Pack),
    /// Show what is in a bundle
    Inspect(inspect::File),
    /// Check a bundle as publishing would, its component included
    Verify(inspect::Verify),
    /// Make a key pair to sign bundles with
    Keygen(keys::Keygen),
    /// Sign a bundle as its publisher
    Sign(sign::Sign),
    /// Print what a signature of a bundle signs, for other tools to sign or verify
    Statement(sign::Content),
    /// Publish a bundle: check it, store it under its hash, register its version
    Add(add::Add),
    /// Send a bundle to a server, which checks and publishes it
    Push(push::Push),
    /// Remove uploads that nobody published; servers do so every hour
    Sweep(care::Sweep),
    /// Print as JSON lines the objects in the store that no version needs; or remove them
    Gc(care::Gc),
    /// Read every bundle in the store and print as JSON lines what is damaged; fails where it stays so
    Fsck(care::Fsck),
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match self {
            Self::Pack(command) => command.run().await,
            Self::Inspect(command) => command.inspect().await,
            Self::Verify(command) => command.run(config).await,
            Self::Keygen(command) => command.run(),
            Self::Sign(command) => command.run().await,
            Self::Statement(command) => command.state().await,
            Self::Add(command) => command.run(config).await,
            Self::Push(command) => command.run(config).await,
            Self::Sweep(command) => command.run(config).await,
            Self::Gc(command) => command.run(config).await,
            Self::Fsck(command) => command.run(config).await,
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

/// Fails where the folder is missing that a file is to go into. Writing it would fail as well, and name some
/// temporary file.
fn ensure_folder_of(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bail!("there is no folder {}; make it first", folder.display())
        }
        _ => Ok(()),
    }
}

/// Fails where a file is plainly something else than a bundle.
pub(super) fn ensure_archive(file: &Path) -> anyhow::Result<()> {
    let mut start = Vec::new();
    File::open(file)
        .and_then(|file| file.take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", file.display()))?;
    let reason = match start.as_slice() {
        start if *start == ZSTD_MAGIC => return Ok(()),
        [] => "it is empty",
        _ => "it is no archive made by `alga-runner bundle pack`",
    };
    bail!("{} is not a bundle: {reason}", file.display())
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

#[cfg(test)]
mod tests {
    use alga_storage::Actor;

    use super::*;

    #[test]
    fn what_is_plainly_no_archive_is_told_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let judge = |content: &[u8]| {
            std::fs::write(file.path(), content).unwrap();
            ensure_archive(file.path()).map_err(|refused| refused.to_string())
        };
        let [one, two, three, four] = ZSTD_MAGIC;
        for (content, reason) in [
            (&[][..], "is not a bundle: it is empty"),
            (&[one, two, three], "is not a bundle: it is no archive"),
            (b"\0asm\x0D\0\x01\0", "is not a bundle: it is no archive"),
        ] {
            let refused = judge(content).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
        assert_eq!(judge(&[one, two, three, four, 0]), Ok(()));
    }

    #[test]
    fn both_audits_name_the_same_actor() {
        assert_eq!(Actor::Admin(ACTOR.into()).to_string(), REGISTRY_ACTOR);
    }
}
