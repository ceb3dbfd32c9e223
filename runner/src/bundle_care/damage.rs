//! Finds what is not as it should be, and repairs what can be.

use std::io;

use alga_bundles::{BundleStore, Content, Listing, Manifest, ObjectKey, StoreError, StoredObject};
use alga_model::{ContentHash, ContentHasher};
use alga_registry::{MAX_PAGE_ITEMS, PageRequest, Registry, Version, VersionKey};
use anyhow::Context as _;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::Pages;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "camelCase")]
pub enum Damage {
    /// A bundle's bytes are not those that its name promises.
    #[serde(rename_all = "camelCase")]
    Content {
        /// The bundle.
        content_hash: ContentHash,
        /// The hash that the bytes have.
        actual: ContentHash,
    },
    /// There is a version, but not its bundle.
    #[serde(rename_all = "camelCase")]
    Missing {
        /// The bundle.
        content_hash: ContentHash,
    },
    /// The copy of the manifest is missing, or another than the one that is registered.
    #[serde(rename_all = "camelCase")]
    Manifest {
        /// The bundle.
        content_hash: ContentHash,
    },
}

/// Reads every bundle there is and looks at what every version needs. `progress` is told how many bytes
/// were read.
pub async fn damages(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Vec<Damage>> {
    let (mut found, mut read) = (Vec::new(), 0);
    let mut pages = Pages::of(store, Listing::Canonical);
    while let Some(objects) = pages.next().await? {
        for object in objects {
            let ObjectKey::Bundle(content_hash) = object.key else {
                continue;
            };
            let hashed = hash(store, object.key, |bytes| {
                read += bytes;
                progress(read);
            });
            match hashed.await? {
                Some(actual) if actual != content_hash => found.push(Damage::Content {
                    content_hash,
                    actual,
                }),
                // It was removed meanwhile, and nobody needs it, or it is found to be missing.
                Some(_) | None => {}
            }
        }
    }
    let mut after = None;
    loop {
        let page = PageRequest {
            after,
            limit: MAX_PAGE_ITEMS,
        };
        let extensions = registry.extensions(page).await;
        let extensions = extensions.context("cannot use the registry")?;
        for extension in &extensions.items {
            of_extension(store, registry, extension.id, &mut found).await?;
        }
        after = extensions.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

async fn of_extension(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    extension: uuid::Uuid,
    found: &mut Vec<Damage>,
) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = PageRequest {
            after,
            limit: MAX_PAGE_ITEMS,
        };
        let versions = registry.versions(extension, page).await;
        let versions = versions.context("cannot use the registry")?;
        for summary in versions.items {
            let content_hash = summary.content_hash;
            let Some(version) = version(registry, content_hash).await? else {
                continue;
            };
            if store.stat(ObjectKey::Bundle(content_hash)).await?.is_none() {
                found.push(Damage::Missing { content_hash });
            }
            if !has_manifest(store, &version).await? {
                found.push(Damage::Manifest { content_hash });
            }
        }
        after = versions.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Repairs what can be repaired; true where it did. A copy of a manifest is written again. A bundle with
/// other bytes is removed, so that it can be published again, and is missing until then.
pub async fn repair(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    damage: &Damage,
) -> anyhow::Result<bool> {
    match damage {
        Damage::Content { content_hash, .. } => {
            let key = ObjectKey::Bundle(*content_hash);
            // Somebody may have mended it since it was looked at.
            if hash(store, key, |_| {}).await? != Some(*content_hash) {
                store.remove(key).await?;
            }
            Ok(version(registry, *content_hash).await?.is_none())
        }
        Damage::Missing { .. } => Ok(false),
        Damage::Manifest { content_hash } => {
            let Some(version) = version(registry, *content_hash).await? else {
                return Ok(true);
            };
            let key = ObjectKey::Manifest(*content_hash);
            if !has_manifest(store, &version).await? {
                store.remove(key).await?;
                let bytes = version.manifest.as_bytes();
                store.create(key, Content::Bytes(bytes)).await?;
            }
            Ok(true)
        }
    }
}

async fn version(registry: &dyn Registry, hash: ContentHash) -> anyhow::Result<Option<Version>> {
    let version = registry.version(&VersionKey::Content(hash)).await;
    version.context("cannot use the registry")
}

async fn has_manifest(store: &dyn BundleStore, version: &Version) -> Result<bool, StoreError> {
    let key = ObjectKey::Manifest(version.content_hash);
    match store.read(key, Manifest::MAX_BYTES as u64).await {
        Ok(copy) => Ok(copy == version.manifest.as_bytes()),
        Err(StoreError::NotFound { .. } | StoreError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The hash of the bytes of an object, if that is there.
async fn hash(
    store: &dyn BundleStore,
    key: ObjectKey,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Option<ContentHash>> {
    let StoredObject { stat, mut body } = match store.open(key).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut hasher, mut left) = (ContentHasher::new(), stat.size);
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let read = body.read(&mut buffer).await;
        let read = match read.with_context(|| format!("cannot read {key}"))? {
            0 => {
                let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(end).with_context(|| format!("cannot read {key}"));
            }
            read => read,
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        left = left.saturating_sub(read as u64);
        progress(read as u64);
    }
    Ok(Some(hasher.finish()))
}

#[cfg(test)]
mod tests {
    use alga_bundles::LocalStore;
    use alga_model::TenantId;
    use serde_json::json;

    use super::*;
    use crate::stage::Stage;

    async fn found(store: &LocalStore, stage: &Stage) -> Vec<Damage> {
        damages(store, &*stage.registry, |_| {}).await.unwrap()
    }

    #[tokio::test]
    async fn damage_is_found_and_what_can_be_repaired_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        stage.install(TenantId::generate()).await;
        let content_hash = ContentHash::of(b"notes");
        let [bundle, manifest] = [
            ObjectKey::Bundle(content_hash),
            ObjectKey::Manifest(content_hash),
        ];
        store
            .create(bundle, Content::Bytes(b"notes"))
            .await
            .unwrap();
        store.create(manifest, Content::Bytes(b"{}")).await.unwrap();
        assert_eq!(found(&store, &stage).await, []);

        std::fs::write(folder.path().join(bundle.to_string()), b"toads").unwrap();
        std::fs::write(folder.path().join(manifest.to_string()), b"[]").unwrap();
        let actual = ContentHash::of(b"toads");
        let content = Damage::Content {
            content_hash,
            actual,
        };
        let damaged = [content.clone(), Damage::Manifest { content_hash }];
        assert_eq!(found(&store, &stage).await, damaged);
        let shown = serde_json::to_value(&content).unwrap();
        let expected =
            json!({ "problem": "content", "contentHash": content_hash, "actual": actual });
        assert_eq!(shown, expected);
        let mut repaired = Vec::new();
        for damage in &damaged {
            repaired.push(repair(&store, &*stage.registry, damage).await.unwrap());
        }
        assert_eq!(repaired, [false, true]);
        let missing = Damage::Missing { content_hash };
        assert_eq!(found(&store, &stage).await, [missing]);
        store
            .create(bundle, Content::Bytes(b"notes"))
            .await
            .unwrap();
        assert_eq!(found(&store, &stage).await, []);
    }
}
