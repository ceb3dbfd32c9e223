//! A runner with one extension installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alga_bundles::{
    Limits, Manifest, PublishContext, PublishRequest, SignatureRules, pack, publish,
};
use alga_host_api::Request;
use alga_model::{ContentHash, TenantId};
use alga_registry::{Change, NewInstall, VersionKey};
use alga_runner::app::{App, Stores};
use alga_runner::config::Config;
use alga_runner::engine::RunLimits;
use alga_runner::execute::Call;
use alga_runner::installs::KnownInstall;
use alga_runner::publishing::{EngineCheck, Versions, capability_issues};
use anyhow::Context as _;
use tokio::task::spawn_blocking;

use crate::session::Bench;

/// The folder that an example's bundle is packed from.
pub(super) fn bundle_of(example: &str) -> PathBuf {
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.pop();
    folder.join("guest-examples").join(example).join("bundle")
}

/// The defaults, with data in a folder of the benchmark, and rates that nothing meets.
pub(super) fn config(bench: &Bench, folder: &str) -> Config {
    let mut config = Config::default();
    config.data.dir = bench.path(folder);
    config.rates.read_per_second = 1_000_000;
    config.rates.read_burst = 1_000_000;
    config.rates.write_per_second = 1_000_000;
    config.rates.write_burst = 1_000_000;
    config
}

/// Publishes the bundle in `folder` and installs it, granting all that it asks for.
pub(super) async fn install(
    app: &App,
    bench: &Bench,
    folder: &Path,
) -> anyhow::Result<Arc<KnownInstall>> {
    let (source, packed) = (folder.to_owned(), bench.path("bundle.tar.zst"));
    let target = packed.clone();
    spawn_blocking(move || pack(&source, &target, &Limits::default())).await??;
    let hash = publish_file(app, &packed).await?;
    let stores = &app.stores;
    let version = stores.registry.version(&VersionKey::Content(hash)).await?;
    let version = version.context("the version is gone")?;
    let manifest = Manifest::parse(version.manifest.as_bytes())?.manifest;
    let new = NewInstall {
        grants: manifest.capabilities(),
        ..NewInstall::new(TenantId::generate(), version.id)
    };
    let install = stores.registry.create_install(&new, change(stores)).await?;
    let known = app.installs.find(install.id).await?;
    known.context("the install is gone")
}

/// A request to an install that nobody narrows.
pub(super) fn call(install: Arc<KnownInstall>, request: Request) -> Call {
    Call {
        install,
        request,
        timeout: None,
        limits: RunLimits::default(),
        providers: None,
        config: None,
        request_id: "0199aa00-0000-7000-8000-000000000000".into(),
    }
}

async fn publish_file(app: &App, file: &Path) -> anyhow::Result<ContentHash> {
    let stores = &app.stores;
    let versions = Versions {
        registry: Arc::clone(&stores.registry) as _,
        clock: Arc::clone(&stores.clock),
    };
    let context = PublishContext {
        store: &*stores.bundles,
        component_check: &EngineCheck(app.extensions()?.executor.engine()),
        registry: &versions,
        capability_check: &capability_issues,
        signatures: &SignatureRules::default(),
        limits: &Limits::default(),
        actor: "bench",
        request_id: None,
    };
    Ok(publish(PublishRequest::new(file), context)
        .await?
        .content_hash)
}

fn change(stores: &Stores) -> Change<'static> {
    Change {
        actor: "bench",
        request_id: None,
        now: stores.clock.now(),
    }
}
