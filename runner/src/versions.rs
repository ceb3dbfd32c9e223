//! What the registry has decided about versions that are run.

use std::sync::Arc;

use alga_bundles::{BundleCache, CachedBundle, FetchError, Manifest};
use alga_model::ContentHash;
use alga_registry::{Registry, RegistryError, Version, VersionKey};
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::engine::ComponentId;

/// Versions that are remembered. One costs a hundred bytes or two.
const MAX_REMEMBERED: usize = 10_000;

/// A version, as far as running it goes. It never changes, and its id never comes back for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runnable {
    /// The bundle.
    pub(crate) bundle: ContentHash,
    /// The digest of the manifest it was registered with.
    pub(crate) manifest: ContentHash,
    /// The file that this manifest has run.
    pub(crate) component: ComponentId,
}

/// Why a version is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownVersion {
    /// It can't be had.
    #[error("cannot get the bundle")]
    Bundle(#[from] FetchError),
    /// The registry failed.
    #[error("cannot use the registry")]
    Registry(#[from] RegistryError),
}

/// Looks versions up, once each.
#[derive(Debug)]
pub(crate) struct RunnableVersions {
    registry: Arc<dyn Registry>,
    known: Cache<Uuid, Runnable>,
}

impl RunnableVersions {
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            known: Cache::new(MAX_REMEMBERED),
        }
    }

    /// The version `id`, whose bundle is `bundle` as far as the caller knows.
    pub(crate) async fn find(
        &self,
        id: Uuid,
        bundle: ContentHash,
    ) -> Result<Runnable, UnknownVersion> {
        let look = async {
            let version = self.registry.version(&VersionKey::Id(id)).await?;
            let version = version.ok_or(FetchError::NotFound { hash: bundle })?;
            Ok(Runnable::of(&version)?)
        };
        self.known.get_or_insert_async(&id, look).await
    }
}

impl Runnable {
    fn of(version: &Version) -> Result<Self, FetchError> {
        let bundle = version.content_hash;
        let text = version.manifest.as_bytes();
        let parsed = Manifest::parse(text).map_err(|source| FetchError::Manifest {
            hash: bundle,
            source,
        })?;
        Ok(Self {
            bundle,
            manifest: ContentHash::of(text),
            component: ComponentId::new(bundle, parsed.manifest.entry().as_str()),
        })
    }

    /// Its bundle, with the manifest it was registered with.
    pub(crate) async fn fetch(
        &self,
        bundles: &BundleCache,
    ) -> Result<Arc<CachedBundle>, FetchError> {
        bundles.get_with_manifest(self.bundle, self.manifest).await
    }
}
