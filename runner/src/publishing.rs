//! What publishing a bundle needs of the runner: somebody who judges components, and the registry.

use std::sync::Arc;

use alga_bundles::{
    ComponentCheck, InvalidComponent, NewVersion, RegisterError, RegisteredVersion, VersionRegistry,
};
use alga_model::{Clock, ContentHash};
use alga_registry::{Change, Registry, RegistryError};
use async_trait::async_trait;

use crate::engine::{Engine, PrepareError};

/// Judges a component by compiling and linking it, which the first invocation then need not do.
#[derive(Debug, Clone, Copy)]
pub struct EngineCheck<'a>(pub &'a Engine);

#[async_trait]
impl ComponentCheck for EngineCheck<'_> {
    async fn check(&self, hash: ContentHash, component: Vec<u8>) -> Result<(), InvalidComponent> {
        let load = async { Ok::<_, std::convert::Infallible>(component) };
        match self.0.prepare(hash, load).await {
            Ok(_) => Ok(()),
            Err(PrepareError::Invalid(invalid)) => Err(InvalidComponent {
                message: invalid.message,
            }),
            Err(error @ (PrepareError::Load(_) | PrepareError::Stopped)) => Err(InvalidComponent {
                message: error.to_string(),
            }),
        }
    }
}

/// The registry, as publishing sees it.
#[derive(Debug, Clone)]
pub struct Versions {
    /// Where versions are registered.
    pub registry: Arc<dyn Registry>,
    /// Tells when.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl VersionRegistry for Versions {
    async fn register(&self, version: NewVersion) -> Result<RegisteredVersion, RegisterError> {
        let new = alga_registry::NewVersion {
            name: version.name,
            publisher: version.publisher,
            version: version.version.to_string(),
            content_hash: version.content_hash,
            manifest: version.manifest_json,
            size: version.size,
        };
        let change = Change {
            actor: &version.actor,
            request_id: None,
            now: self.clock.now(),
        };
        let registered = self
            .registry
            .register_version(&new, change)
            .await
            .map_err(|error| match error {
                RegistryError::PublisherMismatch { .. } => RegisterError::PublisherMismatch,
                RegistryError::DuplicateVersion { registered } => RegisterError::DuplicateVersion {
                    existing: registered,
                },
                RegistryError::ManifestConflict => RegisterError::ManifestConflict,
                error => RegisterError::Unavailable {
                    source: error.into(),
                },
            })?;
        Ok(RegisteredVersion {
            extension_id: registered.extension.id,
            version_id: registered.version.id,
        })
    }
}
