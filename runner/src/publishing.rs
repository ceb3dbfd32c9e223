//! What publishing a bundle needs of the runner: somebody who judges components, and the registry.

use std::sync::Arc;

use alga_bundles::{
    BundlePath, CheckError, ComponentCheck, InvalidComponent, Issue, Manifest, NewVersion,
    Published, RegisterError, RegisteredVersion, VersionRegistry,
};
use alga_model::{Clock, ContentHash};
use alga_registry::{Change, Registry, RegistryError, VersionKey};
use alga_storage::{CAPABILITY, InvalidGrant, StorageGrant};
use async_trait::async_trait;

use crate::engine::{ComponentId, Engine, PrepareError};

/// Judges a component by compiling and linking it, which the first invocation then need not do.
#[derive(Debug, Clone, Copy)]
pub struct EngineCheck<'a>(pub &'a Engine);

#[async_trait]
impl ComponentCheck for EngineCheck<'_> {
    async fn check(
        &self,
        hash: ContentHash,
        entry: &BundlePath,
        component: Vec<u8>,
    ) -> Result<(), CheckError> {
        let id = ComponentId::new(hash, entry.as_str());
        let load = async { Ok::<_, std::convert::Infallible>(component) };
        match self.0.prepare(id, load).await {
            Ok(_) => Ok(()),
            Err(PrepareError::Invalid(invalid)) => Err(CheckError::Invalid(InvalidComponent {
                message: invalid.message,
            })),
            Err(PrepareError::Compiler(failure)) => Err(CheckError::Unavailable {
                source: failure.into(),
            }),
            Err(error @ (PrepareError::Load(_) | PrepareError::Stopped)) => {
                Err(CheckError::Unavailable {
                    source: error.into(),
                })
            }
        }
    }
}

/// What is wrong with the capabilities that a manifest asks for.
pub fn capability_issues(manifest: &Manifest) -> Vec<Issue> {
    let capabilities = manifest.capabilities();
    let invalid = capabilities
        .get(CAPABILITY)
        .and_then(|asked| StorageGrant::parse(asked).err());
    let issue = |error: InvalidGrant| Issue {
        path: format!("/capabilities/{CAPABILITY}"),
        message: error.to_string(),
    };
    invalid.map(issue).into_iter().collect()
}

/// What a manifest asks for that this release does not offer: granting it has no effect.
pub fn capability_warnings(manifest: &Manifest) -> Vec<Issue> {
    let offered = |name: &String| name == CAPABILITY;
    let warning = |name: String| Issue {
        path: format!("/capabilities/{name}"),
        message: "this release offers no such capability".to_owned(),
    };
    manifest
        .capabilities()
        .into_keys()
        .filter(|name| !offered(name))
        .map(warning)
        .collect()
}

/// Adds to the warnings of a version those of its capabilities, by the manifest it is registered with.
pub async fn add_capability_warnings(
    published: &mut Published,
    registry: &dyn Registry,
) -> Result<(), RegistryError> {
    let key = VersionKey::Content(published.content_hash);
    let version = registry.version(&key).await?;
    // It may have been removed meanwhile; and what is registered has been parsed before.
    let parsed = version.and_then(|version| Manifest::parse(version.manifest.as_bytes()).ok());
    let manifest = parsed.map(|parsed| parsed.manifest);
    let warnings = manifest.as_ref().map(capability_warnings);
    published.warnings.extend(warnings.into_iter().flatten());
    Ok(())
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
            request_id: version.request_id.as_deref(),
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

    async fn ensure_manifest(
        &self,
        content: ContentHash,
        manifest_json: &str,
    ) -> Result<(), RegisterError> {
        let version = self.registry.version(&VersionKey::Content(content)).await;
        let version = version.map_err(|error| RegisterError::Unavailable {
            source: error.into(),
        })?;
        match version {
            Some(version) if version.manifest != manifest_json => {
                Err(RegisterError::ManifestConflict)
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest(capabilities: &Value) -> Manifest {
        let manifest = json!({
            "name": "com.example.notes",
            "publisher": "Tests",
            "version": "1.0.0",
            "runtime": "wasm-component@1",
            "capabilities": capabilities,
        });
        Manifest::parse(manifest.to_string().as_bytes())
            .unwrap()
            .manifest
    }

    fn paths(issues: &[Issue]) -> Vec<&str> {
        issues.iter().map(|issue| issue.path.as_str()).collect()
    }

    #[test]
    fn a_capability_that_could_never_be_granted_is_an_issue() {
        let good = json!({"alga.storage": {"namespaces": [{"name": "notes", "access": ["read"]}]}});
        assert!(capability_issues(&manifest(&good)).is_empty());
        let listed = json!(["storage.kv"]);
        assert!(capability_issues(&manifest(&listed)).is_empty());
        for bad in [
            json!({"namespaces": [{"name": "N O", "access": ["read"]}]}),
            json!({"namespaces": [{"name": "notes", "access": ["reed"]}]}),
            json!({}),
        ] {
            let issues = capability_issues(&manifest(&json!({ "alga.storage": bad })));
            assert_eq!(paths(&issues), ["/capabilities/alga.storage"], "{bad}");
        }
    }

    #[test]
    fn a_capability_that_is_not_offered_is_a_warning() {
        let warnings = capability_warnings(&manifest(&json!({"alga.storge": {}})));
        assert_eq!(paths(&warnings), ["/capabilities/alga.storge"]);
    }
}
