//! `alga-runner bundle inspect` and `bundle verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alga_bundles::{
    BundleCache, BundleStore as _, ComponentCheck as _, Content, FetchOptions, Inspection,
    InvalidManifest, Limits, LocalStore, Manifest, ObjectKey, Parsed, PublicKey, Signature,
    SignaturePolicy, Statement, inspect,
};
use alga_model::ContentHash;
use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::task::spawn_blocking;

use super::sign::{read_manifest, signature_of};
use super::{ensure_archive, warn};
use crate::app::engine_options;
use crate::cli::{input, output};
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
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The bundle
    file: PathBuf,
    /// The manifest that will be sent beside a bundle that has none
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The publisher's signature; FILE.minisig if that is there and signatures are looked at
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Take the key in this file for one of the publisher's, and the configured ones for none;
    /// may be repeated
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
}

impl Verify {
    /// Prints the hash of a good bundle.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let mut inspection = look_into(&self.file).await?;
        let beside = self.manifest.as_deref().map(read_manifest).transpose()?;
        if let Some(bytes) = &beside {
            take_manifest(&mut inspection, bytes)?;
        }
        warn(&inspection.warnings);
        let manifest = match &inspection.manifest {
            Some(manifest) if inspection.is_complete() => manifest,
            _ => return Ok(verdict(&inspection)),
        };
        let statement = Statement::new(inspection.hash, beside.as_deref());
        self.verify_signature(config, manifest, &statement)?;
        let component = component(&self.file, &inspection, beside.as_deref()).await?;
        let engine = Engine::new(engine_options(config))?;
        EngineCheck(&engine)
            .check(inspection.hash, manifest.entry(), component)
            .await?;
        output::line(inspection.hash)?;
        Ok(ExitCode::SUCCESS)
    }

    /// As publishing would; who names a signature or a key wants to know more than that.
    fn verify_signature(
        &self,
        config: &Config,
        manifest: &Manifest,
        statement: &Statement,
    ) -> anyhow::Result<()> {
        let mut rules = config.bundles.signature_rules();
        let named = self.signature.as_deref();
        if named.is_some() || !self.public_key.is_empty() {
            rules.policy = SignaturePolicy::Require;
        }
        if rules.policy == SignaturePolicy::Off {
            return Ok(());
        }
        if !self.public_key.is_empty() {
            let keys = self.public_key.iter().map(|file| read_key(file));
            let keys = keys.collect::<anyhow::Result<_>>()?;
            rules.publishers = [(manifest.publisher.clone(), keys)].into();
        }
        let bytes = signature_of(&self.file, named)?;
        match rules.verify(&manifest.publisher, statement, bytes.as_deref()) {
            Ok(signature) => output::note(format_args!(
                "signed by {} with the key {}: {}",
                manifest.publisher,
                signature.key_id(),
                fields(signature.trusted_comment())
            )),
            Err(fault) if rules.policy == SignaturePolicy::Require => {
                let code = fault.code();
                return Err(anyhow::Error::new(fault).context(code));
            }
            Err(fault) => output::note(format_args!("warning: {fault}")),
        }
        Ok(())
    }
}

/// What a signature says of itself. Tools put tabs between its fields; nothing else of it reaches a terminal as
/// it is.
fn fields(comment: &str) -> String {
    let fields: Vec<_> = comment
        .split('\t')
        .map(|field| field.escape_debug().to_string())
        .collect();
    fields.join(" ")
}

fn read_key(file: &Path) -> anyhow::Result<PublicKey> {
    let text = input::text(file, Signature::MAX_BYTES as u64)?;
    text.parse()
        .with_context(|| format!("{} holds no public key", file.display()))
}

/// Judges a bundle without a manifest by the one that will be sent beside it.
fn take_manifest(inspection: &mut Inspection, bytes: &[u8]) -> anyhow::Result<()> {
    ensure!(
        inspection.manifest.is_none() && inspection.issues.is_empty(),
        "the bundle has a manifest; another one would not be used"
    );
    match Manifest::parse(bytes) {
        Err(InvalidManifest { issues }) => inspection.issues = issues,
        Ok(Parsed { manifest, warnings }) => {
            let files = &inspection.files;
            inspection.issues = manifest.missing_files(|file| files.contains_key(file));
            inspection.manifest = Some(manifest);
            inspection.warnings = warnings;
        }
    }
    judge_capabilities(inspection);
    Ok(())
}

/// The component of a bundle that is in order, with the manifest that is beside it, if one is.
async fn component(
    file: &Path,
    inspection: &Inspection,
    beside: Option<&[u8]>,
) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let store = LocalStore::open(folder.path().join("store"))?;
    let key = ObjectKey::Bundle(inspection.hash);
    store.create(key, Content::File(file)).await?;
    if let Some(manifest) = beside {
        let key = ObjectKey::Manifest(inspection.hash);
        store.create(key, Content::Bytes(manifest)).await?;
    }
    let cache = BundleCache::new(
        folder.path().join("cache"),
        Arc::new(store),
        FetchOptions::default(),
    )?;
    let bundle = match beside {
        Some(manifest) => {
            let digest = ContentHash::of(manifest);
            cache.get_with_manifest(inspection.hash, digest).await?
        }
        None => cache.get(inspection.hash).await?,
    };
    Ok(bundle.read_component().await?)
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
