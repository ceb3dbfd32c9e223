//! `alga-runner bundle sign` and `bundle statement`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alga_bundles::{InvalidManifest, Limits, Manifest, Signature, Statement, inspect};
use alga_model::{Clock as _, SystemClock};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tokio::task::spawn_blocking;

use super::keys::{self, with_suffix};
use super::{ensure_archive, ensure_folder_of, lines};
use crate::cli::output;

/// What the name of a signature ends with, behind that of its bundle.
const SUFFIX: &str = ".minisig";

#[derive(Debug, Args)]
pub(in crate::cli) struct Sign {
    #[command(flatten)]
    content: Content,
    /// The secret key, in a file that nobody else can read
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Read the password of the key from this file instead of asking for it
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where the signature goes; the bundle's name with .minisig behind it if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Content {
    /// The bundle
    file: PathBuf,
    /// The manifest that will be sent beside a bundle that has none
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl Sign {
    /// Prints the path of the signature.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let target = self
            .output
            .unwrap_or_else(|| with_suffix(&self.content.file, SUFFIX));
        ensure_folder_of(&target)?;
        let (manifest, statement) = self.content.read().await?;
        let (key, password_file) = (self.key, self.password_file);
        spawn_blocking(move || -> anyhow::Result<()> {
            let key = keys::read(&key, password_file.as_deref())?;
            let now = SystemClock::default().now().as_millis() / 1000;
            let comment = format!(
                "timestamp:{now}\textension:{} {}",
                manifest.name, manifest.version
            );
            let statement = statement.to_string();
            let untrusted = Some("signature of a bundle by alga-runner");
            let public = minisign::PublicKey::from_secret_key(&key).context("cannot sign")?;
            let signature = minisign::sign(
                Some(&public),
                &key,
                statement.as_bytes(),
                Some(&comment),
                untrusted,
            )
            .context("cannot sign")?;
            replace(&target, signature.to_string().as_bytes())
                .with_context(|| format!("cannot write {}", target.display()))?;
            output::line(target.display())?;
            Ok(())
        })
        .await??;
        Ok(ExitCode::SUCCESS)
    }
}

impl Content {
    /// Prints what there is to sign, exactly.
    pub(super) async fn state(self) -> anyhow::Result<ExitCode> {
        let (_, statement) = self.read().await?;
        let mut out = io::stdout().lock();
        write!(out, "{statement}")?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// The manifest that counts and what is to be signed, if publishing would accept both.
    async fn read(&self) -> anyhow::Result<(Manifest, Statement)> {
        ensure_archive(&self.file)?;
        let beside = self.manifest.as_deref().map(read_manifest).transpose()?;
        let path = self.file.clone();
        let inspection = spawn_blocking(move || inspect(&path, &Limits::default(), None))
            .await?
            .with_context(|| format!("{} can't be used as a bundle", self.file.display()))?;
        ensure!(
            inspection.issues.is_empty(),
            "the manifest is not valid{}",
            lines(&inspection.issues)
        );
        match (inspection.manifest, beside) {
            (Some(manifest), None) => Ok((manifest, Statement::new(inspection.hash, None))),
            (None, Some(bytes)) => {
                let invalid = |InvalidManifest { issues }| {
                    anyhow::anyhow!("the manifest is not valid{}", lines(&issues))
                };
                let manifest = Manifest::parse(&bytes).map_err(invalid)?.manifest;
                Ok((manifest, Statement::new(inspection.hash, Some(&bytes))))
            }
            (Some(_), Some(_)) => bail!("the bundle has a manifest; another one would not be used"),
            (None, None) => bail!("the bundle has no manifest.json, and --manifest names none"),
        }
    }
}

pub(super) fn read_manifest(file: &Path) -> anyhow::Result<Vec<u8>> {
    read_bounded(file, Manifest::MAX_BYTES)
        .with_context(|| format!("cannot read {}", file.display()))
}

/// The signature in `named`, or else in the file beside the bundle, if there is one.
pub(super) fn signature_of(bundle: &Path, named: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let beside = with_suffix(bundle, SUFFIX);
    let file = named.unwrap_or(&beside);
    match read_bounded(file, Signature::MAX_BYTES) {
        Ok(signature) => Ok(Some(signature)),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// At most one byte more than `most`, which whoever judges the content finds to be too many.
fn read_bounded(file: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut reader = File::open(file)?.take(most as u64 + 1);
    reader.read_to_end(&mut content)?;
    Ok(content)
}

/// Makes the file or replaces it, in one moment.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut new = tempfile::Builder::new();
    #[cfg(unix)]
    new.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut new = new.tempfile_in(folder.unwrap_or(Path::new(".")))?;
    new.write_all(content)?;
    new.persist(file)?;
    Ok(())
}
