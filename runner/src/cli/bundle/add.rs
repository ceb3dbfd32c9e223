//! `alga-runner bundle add`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alga_bundles::{
    Limits, PublishContext, PublishError, PublishRequest, Published, SignaturePolicy,
    SignatureRules, publish,
};
use alga_model::ContentHash;
use alga_registry::VersionKey;
use anyhow::Context as _;
use clap::Args;

use super::sign::{read_manifest, signature_of};
use super::{REGISTRY_ACTOR, ensure_archive, ensure_file, lines, warn};
use crate::app::Stores;
use crate::bundle_care::{ANOTHERS, Owner};
use crate::cli::output::{self, Progress};
use crate::config::Config;
use crate::engine::Engine;
use crate::publishing::{EngineCheck, Versions, add_capability_warnings, capability_issues};

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// The bundle
    file: PathBuf,
    /// Refuse the bundle unless it has this hash
    #[arg(long, value_name = "HASH")]
    declared_hash: Option<ContentHash>,
    /// Publish a bundle that has no manifest with this one
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The publisher's signature; FILE.minisig if that is there and signatures are looked at
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

/// What is to be published, and by which rules.
pub(in crate::cli) struct Publication<'a> {
    pub file: &'a Path,
    pub declared_hash: Option<ContentHash>,
    /// The manifest of a bundle that has none.
    pub manifest: Option<Vec<u8>>,
    pub signature: Option<Vec<u8>>,
    pub signatures: SignatureRules,
    /// What to say of the file where it isn't published.
    pub refusal: fn(std::path::Display<'_>) -> String,
}

impl<'a> Publication<'a> {
    /// Whatever there is in `file`.
    pub(in crate::cli) fn new(file: &'a Path) -> Self {
        Self {
            file,
            declared_hash: None,
            manifest: None,
            signature: None,
            signatures: SignatureRules::default(),
            refusal: |file| format!("cannot publish {file}"),
        }
    }
}

impl Add {
    /// Prints the hash of the bundle.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        ensure_file(&self.file).await?;
        ensure_archive(&self.file)?;
        let publication = Publication {
            declared_hash: self.declared_hash,
            manifest: self.manifest.as_deref().map(read_manifest).transpose()?,
            signature: self.signature(config)?,
            signatures: config.bundles.signature_rules(),
            ..Publication::new(&self.file)
        };
        let stores = Stores::open(config).await?;
        let engine = stores.engine(config)?;
        let start = stores.clock.now();
        let published = add(&stores, &engine, publication).await?;
        let key = VersionKey::Id(published.version.id);
        let version = stores.registry.version(&key).await?;
        stores.close().await;
        let was_there = version.is_some_and(|version| version.created_at < start);
        let already = if was_there { "already " } else { "" };
        output::note(format_args!(
            "{already}published {} {} by {}",
            published.extension.name, published.version.version, published.extension.publisher
        ));
        output::line(published.content_hash)?;
        Ok(ExitCode::SUCCESS)
    }

    /// One that nobody named is taken along only where it matters.
    fn signature(&self, config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
        let named = self.signature.as_deref();
        if named.is_none() && config.bundles.signature_policy == SignaturePolicy::Off {
            return Ok(None);
        }
        signature_of(&self.file, named)
    }
}

/// Publishes a bundle file into `stores`.
pub(in crate::cli) async fn add(
    stores: &Stores,
    engine: &Engine,
    publication: Publication<'_>,
) -> anyhow::Result<Published> {
    let Publication {
        file,
        declared_hash,
        manifest,
        signature,
        signatures,
        refusal,
    } = publication;
    // Whoever publishes first into a store of nobody's makes it that of the registry.
    if let Owner::Another(_) = Owner::claim(&*stores.bundles, &*stores.registry).await? {
        output::note(format_args!("warning: {ANOTHERS}"));
    }
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
        manifest_json: manifest,
        signature,
        progress: Some(Arc::new(move |done| progress.show(done))),
        ..PublishRequest::new(file)
    };
    let context = PublishContext {
        store: &*stores.bundles,
        component_check: &check,
        registry: &versions,
        capability_check: &capability_issues,
        signatures: &signatures,
        limits: &Limits::default(),
        actor: REGISTRY_ACTOR,
        request_id: None,
    };
    let mut published = publish(request, context)
        .await
        .map_err(|error| {
            let (code, issues) = (error.code(), issues_of(&error));
            let hint = match error {
                PublishError::ManifestRequired => " (name one with --manifest FILE)",
                _ => "",
            };
            anyhow::Error::new(error).context(format!("{code}{hint}{issues}"))
        })
        .with_context(|| refusal(file.display()))?;
    // The process may end soon.
    engine.settle().await;
    add_capability_warnings(&mut published, &*stores.registry).await?;
    warn(&published.warnings);
    Ok(published)
}

fn issues_of(error: &PublishError) -> String {
    match error {
        PublishError::Manifest(manifest) => lines(&manifest.issues),
        _ => String::new(),
    }
}
