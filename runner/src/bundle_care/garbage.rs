//! Finds and removes objects that no version needs.

use std::time::SystemTime;

use alga_bundles::{BundleStore, Listed, Listing, ObjectKey};
use alga_model::ContentHash;
use alga_registry::{Registry, VersionKey};
use anyhow::{Context as _, bail};

use super::Pages;

/// An object that no version needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// The object.
    pub key: ObjectKey,
    /// The bytes it has.
    pub size: u64,
    /// The bundle it belongs to.
    bundle: ContentHash,
}

/// The objects of bundles of which there is no version, written before `before`: what a version that was
/// removed left, or an upload that was refused only by the registry.
pub async fn garbage(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    before: SystemTime,
) -> anyhow::Result<Vec<Garbage>> {
    let mut found = Vec::new();
    for listing in [Listing::Canonical, Listing::Compiled] {
        let mut pages = Pages::of(store, listing);
        // Those of a bundle follow one another.
        let mut last: Option<(ContentHash, bool)> = None;
        while let Some(objects) = pages.next().await? {
            for Listed { key, stat } in objects {
                let Some(bundle) = bundle_of(key).filter(|_| stat.modified < before) else {
                    continue;
                };
                let is_needed = match last {
                    Some((hash, is_needed)) if hash == bundle => is_needed,
                    _ => is_needed(registry, bundle).await?,
                };
                last = Some((bundle, is_needed));
                if !is_needed {
                    let size = stat.size;
                    found.push(Garbage { key, size, bundle });
                }
            }
        }
    }
    Ok(found)
}

/// Removes such an object, unless it was written since `before` or is needed by now; true where it did.
pub async fn remove_garbage(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    garbage: &Garbage,
    before: SystemTime,
) -> anyhow::Result<bool> {
    let Garbage { key, bundle, .. } = garbage;
    let stat = store.stat(*key).await?;
    if stat.is_none_or(|stat| stat.modified >= before) || is_needed(registry, *bundle).await? {
        return Ok(false);
    }
    store.remove(*key).await?;
    // Who registers a version looks afterwards whether its bundle is there. Between the look above and
    // the removal there is still a moment.
    if is_needed(registry, *bundle).await? {
        bail!("{key} was published again while it was removed; publish it once more");
    }
    Ok(true)
}

async fn is_needed(registry: &dyn Registry, bundle: ContentHash) -> anyhow::Result<bool> {
    let version = registry.version(&VersionKey::Content(bundle)).await;
    Ok(version.context("cannot use the registry")?.is_some())
}

const fn bundle_of(key: ObjectKey) -> Option<ContentHash> {
    match key {
        ObjectKey::Bundle(hash)
        | ObjectKey::Manifest(hash)
        | ObjectKey::Compiled { bundle: hash, .. } => Some(hash),
        ObjectKey::Staging(_) | ObjectKey::Check(_) | ObjectKey::Owner => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alga_bundles::{Content, LocalStore};
    use alga_model::TenantId;

    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn what_no_version_needs_is_garbage_once_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        stage.install(TenantId::generate()).await;
        for bytes in [&b"notes"[..], b"other"] {
            let hash = ContentHash::of(bytes);
            for key in [ObjectKey::Bundle(hash), ObjectKey::Manifest(hash)] {
                store.create(key, Content::Bytes(bytes)).await.unwrap();
            }
        }
        let other = ContentHash::of(b"other");
        let written = store.stat(ObjectKey::Bundle(other)).await.unwrap();
        let late = written.unwrap().modified + Duration::from_secs(60);
        let early = late - Duration::from_secs(120);

        let registry = &*stage.registry;
        assert_eq!(garbage(&store, registry, early).await.unwrap(), []);
        let found = garbage(&store, registry, late).await.unwrap();
        let keys: Vec<_> = found.iter().map(|found| found.key).collect();
        let expected = [ObjectKey::Bundle(other), ObjectKey::Manifest(other)];
        assert_eq!(keys, expected);
        for found in &found {
            assert!(
                !remove_garbage(&store, registry, found, early)
                    .await
                    .unwrap()
            );
            assert!(remove_garbage(&store, registry, found, late).await.unwrap());
            assert!(!remove_garbage(&store, registry, found, late).await.unwrap());
        }
        assert_eq!(garbage(&store, registry, late).await.unwrap(), []);
        let notes = ObjectKey::Bundle(ContentHash::of(b"notes"));
        assert!(store.stat(notes).await.unwrap().is_some());
    }
}
