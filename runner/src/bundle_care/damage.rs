//! Finds what is not as it should be, and repairs what can be.

use std::cell::Cell;
use std::{fmt, io};

use alga_bundles::{
    BundleStore, Content, Listing, Manifest, ObjectKey, Retry, StoreError, StoredObject,
};
use alga_model::{ContentHash, ContentHasher, ErrorChain, ExtensionName};
use alga_registry::{
    Extension, ExtensionKey, MAX_PAGE_ITEMS, PageRequest, Registry, Version, VersionKey,
};
use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::PAGE;

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
    /// An object can't be read, so that nobody knows whether it is as it should be.
    #[serde(rename_all = "camelCase")]
    Unreadable {
        /// The bundle.
        content_hash: ContentHash,
        /// The object.
        key: String,
        /// Why, for people.
        reason: String,
    },
    /// The copy of the manifest is missing, or another than the one that is registered.
    #[serde(rename_all = "camelCase")]
    Manifest {
        /// The bundle.
        content_hash: ContentHash,
    },
}

impl Damage {
    /// The bundle that it is of.
    pub const fn content_hash(&self) -> ContentHash {
        match self {
            Self::Content { content_hash, .. }
            | Self::Missing { content_hash }
            | Self::Unreadable { content_hash, .. }
            | Self::Manifest { content_hash } => *content_hash,
        }
    }
}

/// A damage that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    #[serde(flatten)]
    pub damage: Damage,
    /// What people call the bundle, if the registry knows it.
    #[serde(flatten)]
    pub version: Option<VersionName>,
}

/// What people call a bundle: an extension and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionName {
    /// The extension.
    pub extension: ExtensionName,
    /// Its version.
    pub version: String,
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.extension, self.version)
    }
}

/// How often in a row the store may be unavailable until it counts as gone: each time it was asked for
/// some seconds.
const MOST_AWAY: u32 = 8;

/// Looks for damage.
pub struct Search<'a> {
    /// Where the bundles are.
    pub store: &'a dyn BundleStore,
    /// Who knows which there should be.
    pub registry: &'a dyn Registry,
    /// How often and how soon a store that is unavailable is asked again.
    pub retry: Retry,
    /// Is told how many bytes were read by now.
    pub progress: &'a dyn Fn(u64),
    /// Is told of each damage as soon as it is found. Its failure ends the search.
    pub found: &'a dyn Fn(Finding) -> anyhow::Result<()>,
}

impl Search<'_> {
    /// Reads every bundle there is and looks at what every version needs; gives the number of bundles that
    /// there are or should be.
    ///
    /// An object that can't be read is a damage among others, and the search goes on.
    ///
    /// # Errors
    ///
    /// Where nobody can tell any more what there is to look at: the store or the registry is gone, or does
    /// not list what it has.
    pub async fn run(self) -> anyhow::Result<u64> {
        let search = Searching {
            search: &self,
            bundles: Cell::new(0),
            read: Cell::new(0),
            away: Cell::new(0),
        };
        // What the versions need can be told also where the store doesn't list what it has.
        let read = search.bundles().await;
        search.versions().await.and(read)?;
        Ok(search.bundles.get())
    }
}

impl fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("store", &self.store)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// A search that is going on.
struct Searching<'a> {
    search: &'a Search<'a>,
    /// The bundles that were looked at.
    bundles: Cell<u64>,
    /// The bytes that were read.
    read: Cell<u64>,
    /// How often in a row the store was unavailable.
    away: Cell<u32>,
}

impl Searching<'_> {
    async fn bundles(&self) -> anyhow::Result<()> {
        let Search { store, retry, .. } = self.search;
        let mut after = None;
        loop {
            let list = || store.list(Listing::Canonical, after.as_ref(), PAGE);
            let page = retry.repeat(list, StoreError::is_transient).await?;
            for object in page.objects {
                if let ObjectKey::Bundle(content_hash) = object.key {
                    self.bundle(content_hash).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn bundle(&self, content_hash: ContentHash) -> anyhow::Result<()> {
        self.bundles.set(self.bundles.get() + 1);
        let key = ObjectKey::Bundle(content_hash);
        let count = |bytes| {
            self.read.set(self.read.get() + bytes);
            (self.search.progress)(self.read.get());
        };
        match self
            .ask(key, content_hash, None, || {
                hash(self.search.store, key, &count)
            })
            .await?
        {
            Some(Some(actual)) if actual != content_hash => {
                let damage = Damage::Content {
                    content_hash,
                    actual,
                };
                self.tell(damage, None).await
            }
            // It was removed meanwhile, and nobody needs it, or it is found to be missing.
            Some(Some(_) | None) | None => Ok(()),
        }
    }

    async fn versions(&self) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let page = PageRequest {
                after,
                limit: MAX_PAGE_ITEMS,
            };
            let extensions = self.search.registry.extensions(page).await;
            let extensions = extensions.context("cannot use the registry")?;
            for extension in &extensions.items {
                self.versions_of(extension).await?;
            }
            after = extensions.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn versions_of(&self, extension: &Extension) -> anyhow::Result<()> {
        let registry = self.search.registry;
        let mut after = None;
        loop {
            let page = PageRequest {
                after,
                limit: MAX_PAGE_ITEMS,
            };
            let versions = registry.versions(extension.id, page).await;
            let versions = versions.context("cannot use the registry")?;
            for summary in versions.items {
                if let Some(version) = version(registry, summary.content_hash).await? {
                    self.version(extension, &version).await?;
                }
            }
            after = versions.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn version(&self, extension: &Extension, version: &Version) -> anyhow::Result<()> {
        let Search { store, .. } = self.search;
        let name = VersionName {
            extension: extension.name.clone(),
            version: version.version.clone(),
        };
        let (content_hash, name) = (version.content_hash, Some(&name));
        let key = ObjectKey::Bundle(content_hash);
        let stat = self.ask(key, content_hash, name, || store.stat(key));
        if let Some(None) = stat.await? {
            self.bundles.set(self.bundles.get() + 1);
            self.tell(Damage::Missing { content_hash }, name).await?;
        }
        let key = ObjectKey::Manifest(content_hash);
        let has_manifest = self.ask(key, content_hash, name, || has_manifest(*store, version));
        if let Some(false) = has_manifest.await? {
            self.tell(Damage::Manifest { content_hash }, name).await?;
        }
        Ok(())
    }

    /// Tells of a damage, with the name of its bundle where that is known or can be had.
    async fn tell(&self, damage: Damage, known: Option<&VersionName>) -> anyhow::Result<()> {
        let version = match known {
            Some(name) => Some(name.clone()),
            // A registry that fails ends the search a little later. What was found is told before.
            None => name(self.search.registry, damage.content_hash())
                .await
                .unwrap_or_default(),
        };
        (self.search.found)(Finding { damage, version })
    }

    /// What the store says about an object of a bundle; nothing where it can't be had, which is a damage.
    async fn ask<T, F>(
        &self,
        key: ObjectKey,
        content_hash: ContentHash,
        name: Option<&VersionName>,
        attempt: impl Fn() -> F,
    ) -> anyhow::Result<Option<T>>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let asked = self.search.retry.repeat(attempt, StoreError::is_transient);
        let error = match asked.await {
            Ok(answer) => {
                self.away.set(0);
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        let is_away = error.is_transient();
        let damage = Damage::Unreadable {
            content_hash,
            key: key.to_string(),
            reason: ErrorChain(&error).to_string(),
        };
        self.tell(damage, name).await?;
        self.away.set(if is_away { self.away.get() + 1 } else { 0 });
        ensure!(
            self.away.get() < MOST_AWAY,
            "the bundle store was unavailable for {MOST_AWAY} objects in a row"
        );
        Ok(None)
    }
}

/// Repairs what can be repaired; false where the bundle must be published again, or can't be read. A copy of
/// a manifest is written again. A bundle with other bytes is removed, so that it can be published again, and
/// is missing until then.
pub async fn repair(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    damage: &Damage,
) -> anyhow::Result<bool> {
    match damage {
        Damage::Content { content_hash, .. } => {
            let key = ObjectKey::Bundle(*content_hash);
            // Somebody may have mended it since it was looked at.
            if hash(store, key, &|_| {}).await? == Some(*content_hash) {
                return Ok(true);
            }
            store.remove(key).await?;
            Ok(version(registry, *content_hash).await?.is_none())
        }
        Damage::Missing { .. } | Damage::Unreadable { .. } => Ok(false),
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

async fn name(registry: &dyn Registry, hash: ContentHash) -> anyhow::Result<Option<VersionName>> {
    let Some(version) = version(registry, hash).await? else {
        return Ok(None);
    };
    let key = ExtensionKey::Id(version.extension_id);
    let extension = registry.extension(&key).await;
    let extension = extension.context("cannot use the registry")?;
    Ok(extension.map(|extension| VersionName {
        extension: extension.name,
        version: version.version,
    }))
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
    progress: &dyn Fn(u64),
) -> Result<Option<ContentHash>, StoreError> {
    let StoredObject { stat, mut body } = match store.open(key).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Whatever the reason, reading it again may go better.
    let cut_off = |source: io::Error| StoreError::Unavailable {
        target: key.into(),
        source: source.into(),
    };
    let (mut hasher, mut left) = (ContentHasher::new(), stat.size);
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let read = match body.read(&mut buffer).await.map_err(cut_off)? {
            0 => return Err(cut_off(io::ErrorKind::UnexpectedEof.into())),
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
    use std::cell::RefCell;
    use std::time::Duration;

    use alga_bundles::LocalStore;
    use alga_model::TenantId;
    use serde_json::json;

    use super::super::unsteady::Unsteady;
    use super::*;
    use crate::stage::Stage;

    async fn found(store: &dyn BundleStore, stage: &Stage) -> Vec<Finding> {
        let (found, searched) = search(store, stage).await;
        searched.unwrap();
        found
    }

    async fn search(store: &dyn BundleStore, stage: &Stage) -> (Vec<Finding>, anyhow::Result<u64>) {
        let found = RefCell::new(Vec::new());
        let search = Search {
            store,
            registry: &*stage.registry,
            retry: Retry {
                attempts: 3,
                base: Duration::ZERO,
                cap: Duration::ZERO,
            },
            progress: &|_| {},
            found: &|finding| {
                found.borrow_mut().push(finding);
                Ok(())
            },
        };
        let searched = search.run().await;
        (found.into_inner(), searched)
    }

    /// Bundles in the order of their names, without versions.
    async fn stocked(store: &LocalStore, count: u8) -> Vec<ObjectKey> {
        let mut hashes: Vec<_> = (0..count).map(|it| ContentHash::of(&[it])).collect();
        for (number, hash) in (0..count).zip(&hashes) {
            let key = ObjectKey::Bundle(*hash);
            store.create(key, Content::Bytes(&[number])).await.unwrap();
        }
        hashes.sort_by_key(ContentHash::to_hex);
        hashes.into_iter().map(ObjectKey::Bundle).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_and_the_search_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        let keys = stocked(&store, 3).await;
        let [first, second, third] = keys[..] else {
            unreachable!()
        };
        std::fs::write(folder.path().join(first.to_string()), b"toads").unwrap();
        std::fs::write(folder.path().join(third.to_string()), b"toads").unwrap();
        let unsteady = Unsteady::new(store);
        // As often as it is asked, and one time less.
        unsteady.away(second, 3);
        unsteady.away(third, 2);
        let damages = found(&unsteady, &stage).await;
        let problems: Vec<_> = damages
            .iter()
            .map(|damage| serde_json::to_value(damage).unwrap())
            .map(|damage| damage["problem"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(problems, ["content", "unreadable", "content"]);
        let Damage::Unreadable { key, reason, .. } = &damages[1].damage else {
            unreachable!()
        };
        assert_eq!(*key, second.to_string());
        assert!(reason.contains("told to be away"), "{reason}");
    }

    #[tokio::test]
    async fn a_store_that_is_gone_ends_the_search_with_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        let keys = stocked(&store, 12).await;
        std::fs::write(folder.path().join(keys[0].to_string()), b"toads").unwrap();
        let unsteady = Unsteady::new(store);
        for key in &keys[1..] {
            unsteady.away(*key, u32::MAX);
        }
        let (damages, searched) = search(&unsteady, &stage).await;
        let error = searched.unwrap_err().to_string();
        assert!(error.contains("in a row"), "{error}");
        let first = &damages[0].damage;
        assert!(matches!(first, Damage::Content { .. }), "{damages:?}");
        assert_eq!(damages.len(), 1 + MOST_AWAY as usize);
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
        let (nothing, looked_at) = search(&store, &stage).await;
        assert_eq!((nothing, looked_at.unwrap()), (vec![], 1));

        std::fs::write(folder.path().join(bundle.to_string()), b"toads").unwrap();
        std::fs::write(folder.path().join(manifest.to_string()), b"[]").unwrap();
        let actual = ContentHash::of(b"toads");
        let content = Damage::Content {
            content_hash,
            actual,
        };
        let notes = VersionName {
            extension: "com.example.notes".parse().unwrap(),
            version: "1.0.0".to_owned(),
        };
        let of_notes = |damage| Finding {
            damage,
            version: Some(notes.clone()),
        };
        let damaged = [content, Damage::Manifest { content_hash }].map(of_notes);
        assert_eq!(found(&store, &stage).await, damaged);
        let shown = serde_json::to_value(&damaged[0]).unwrap();
        let expected = json!({
            "problem": "content", "contentHash": content_hash, "actual": actual,
            "extension": "com.example.notes", "version": "1.0.0",
        });
        assert_eq!(shown, expected);
        let mut repaired = Vec::new();
        for Finding { damage, .. } in &damaged {
            repaired.push(repair(&store, &*stage.registry, damage).await.unwrap());
        }
        assert_eq!(repaired, [false, true]);
        let (missing, looked_at) = search(&store, &stage).await;
        assert_eq!(missing, [of_notes(Damage::Missing { content_hash })]);
        assert_eq!(looked_at.unwrap(), 1);
        store
            .create(bundle, Content::Bytes(b"notes"))
            .await
            .unwrap();
        assert_eq!(found(&store, &stage).await, []);
        // Somebody was faster.
        let mended = repair(&store, &*stage.registry, &damaged[0].damage).await;
        assert!(mended.unwrap());
    }

    #[tokio::test]
    async fn a_bundle_that_the_registry_does_not_know_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        let keys = stocked(&store, 1).await;
        std::fs::write(folder.path().join(keys[0].to_string()), b"toads").unwrap();
        let found = found(&store, &stage).await;
        assert_eq!(found[0].version, None);
        let shown = serde_json::to_value(&found[0]).unwrap();
        assert_eq!(shown.get("extension"), None, "{shown}");
    }
}
