//! Publishing what was uploaded into the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use alga_bundles::{
    BundleStore, Content, Created, Cursor, ETag, KnownHash, Limits, Listing, LocalStore,
    NewVersion, ObjectKey, Page, PartedUpload, PublishContext, PublishError, PublishRequest,
    Published, RegisterError, RegisteredVersion, SignatureRules, Source, StagedUpload, StagingKey,
    Stat, StoreError, StoredObject, Unfinished, Verified, VersionRegistry, publish,
};
use alga_model::ContentHash;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::{COMPONENT, MemoryRegistry, Room, Tar, TestStore, Verdict, listing, manifest};

/// A store and a registry in a process that may lose its power at any step.
struct Scene {
    room: Room,
    store: Failing<LocalStore>,
    registry: Failing<MemoryRegistry>,
    power: Arc<Power>,
}

/// How many more steps are taken until the power fails.
#[derive(Debug)]
struct Power {
    steps: AtomicUsize,
    fails: Notify,
}

#[derive(Debug)]
struct Failing<T> {
    inner: T,
    power: Arc<Power>,
}

impl Power {
    async fn step(&self) {
        let take = |left: usize| left.checked_sub(1);
        let taken = self
            .steps
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        if taken.is_err() {
            self.fails.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Failing<T> {
    /// Does something, and fails before it has begun or when it is done.
    async fn doing<R>(&self, work: impl Future<Output = R>) -> R {
        self.power.step().await;
        let done = work.await;
        self.power.step().await;
        done
    }
}

impl Scene {
    fn new() -> Self {
        let room = Room::new();
        let power = Arc::new(Power {
            steps: AtomicUsize::new(usize::MAX),
            fails: Notify::new(),
        });
        let store = Failing {
            inner: room.store(),
            power: Arc::clone(&power),
        };
        let registry = Failing {
            inner: MemoryRegistry::default(),
            power: Arc::clone(&power),
        };
        Self {
            room,
            store,
            registry,
            power,
        }
    }

    async fn upload(&self, bundle: &[u8]) -> StagingKey {
        let key = StagingKey::new(Uuid::new_v4());
        let size = bundle.len() as u64;
        let mut upload = self.store.inner.stage(key, "", size).await.unwrap();
        upload.write(Bytes::from(bundle.to_vec())).await.unwrap();
        upload.finish().await.unwrap();
        key
    }

    async fn publish(&self, request: PublishRequest<'_>) -> Result<Published, PublishError> {
        let context = PublishContext {
            store: &self.store,
            component_check: &Verdict::Good,
            registry: &self.registry,
            capability_check: &|_| Vec::new(),
            signatures: &SignatureRules::default(),
            limits: &Limits::default(),
            actor: "admin",
            request_id: None,
        };
        publish(request, context).await
    }

    async fn finalize(&self, key: StagingKey) -> Result<Published, PublishError> {
        let published = self
            .publish(PublishRequest::of(Source::Staged(key)))
            .await?;
        self.store.remove(key.into()).await?;
        Ok(published)
    }

    async fn code(&self, key: StagingKey) -> &'static str {
        self.finalize(key).await.unwrap_err().code()
    }

    /// The objects that there are, and whatever else has bytes.
    fn stored(&self) -> Vec<String> {
        let root = self.room.path("store");
        let mut names = listing(&root);
        names.retain(|name| root.join(name).is_file());
        names
    }

    fn versions(&self) -> usize {
        self.registry.inner.versions.lock().unwrap().len()
    }

    fn damage(&self, key: ObjectKey, bytes: &[u8]) {
        let path = self.room.path("store").join(key.to_string());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn read(&self, key: ObjectKey) -> Vec<u8> {
        self.store.inner.read(key, u64::MAX).await.unwrap()
    }
}

fn published_as(hash: ContentHash) -> Vec<String> {
    let mut names = [ObjectKey::Bundle(hash), ObjectKey::Manifest(hash)].map(|it| it.to_string());
    names.sort();
    names.to_vec()
}

#[tokio::test]
async fn an_upload_is_published_as_a_file_would_be() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let key = scene.upload(&bundle).await;
    let published = scene.finalize(key).await.unwrap();
    assert_eq!(published.content_hash, ContentHash::of(&bundle));
    assert_eq!(scene.stored(), published_as(published.content_hash));
    let stored = scene.read(ObjectKey::Bundle(published.content_hash)).await;
    assert!(stored == bundle);
    let file = scene.room.write("bundle", &bundle);
    let of_file = scene.publish(PublishRequest::new(&file)).await.unwrap();
    assert_eq!(of_file, published);
}

#[tokio::test]
async fn a_failed_power_at_any_step_is_repaired_by_publishing_again() {
    let bundle = Tar::valid().zst();
    let hash = ContentHash::of(&bundle);
    let mut failures = 0;
    loop {
        let scene = Scene::new();
        let key = scene.upload(&bundle).await;
        scene.power.steps.store(failures, Ordering::SeqCst);
        let survived = tokio::select! {
            published = scene.finalize(key) => Some(published.unwrap()),
            () = scene.power.fails.notified() => None,
        };
        let survived = survived.is_some();
        scene.power.steps.store(usize::MAX, Ordering::SeqCst);
        let staged = scene.store.stat(key.into()).await.unwrap();
        let again = match staged {
            Some(_) => scene.finalize(key).await,
            None => {
                scene
                    .publish(PublishRequest::of(Source::Published(hash)))
                    .await
            }
        };
        assert_eq!(again.unwrap().content_hash, hash, "after {failures} steps");
        assert_eq!(scene.stored(), published_as(hash), "after {failures} steps");
        assert_eq!(scene.versions(), 1, "after {failures} steps");
        if survived {
            break;
        }
        failures += 1;
    }
    assert!(failures >= 10, "only {failures} steps could fail");
}

#[tokio::test]
async fn an_upload_that_is_refused_stays_and_nothing_else_is_there() {
    let scene = Scene::new();
    for (bundle, code) in [
        (b"no bundle".to_vec(), "BAD_ARCHIVE"),
        (Tar::valid().file("../x", b"").zst(), "ARCHIVE_REJECTED"),
        (
            Tar::new().file("dist/main.wasm", COMPONENT).zst(),
            "MANIFEST_REQUIRED",
        ),
        (
            Tar::new().file("manifest.json", b"{}").zst(),
            "INVALID_MANIFEST",
        ),
    ] {
        let key = scene.upload(&bundle).await;
        assert_eq!(scene.code(key).await, code);
        assert_eq!(scene.stored(), [key.to_string()]);
        scene.store.remove(key.into()).await.unwrap();
    }
    assert_eq!(scene.versions(), 0);
}

#[tokio::test]
async fn another_hash_than_declared_is_refused() {
    let scene = Scene::new();
    let key = scene.upload(&Tar::valid().zst()).await;
    let request = PublishRequest {
        declared_hash: Some(ContentHash::of(b"other")),
        ..PublishRequest::of(Source::Staged(key))
    };
    let refused = scene.publish(request).await.unwrap_err();
    assert_eq!(refused.code(), "HASH_MISMATCH");
}

/// What whoever staged an upload says its hash is.
async fn known(scene: &Scene, key: StagingKey, hash: ContentHash) -> KnownHash {
    let stat = scene.store.inner.stat(key.into()).await.unwrap().unwrap();
    KnownHash {
        hash,
        etag: stat.etag,
        size: stat.size,
    }
}

#[tokio::test]
async fn a_known_hash_gives_the_same_answer() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let key = scene.upload(&bundle).await;
    let hashed = scene.publish(PublishRequest::of(Source::Staged(key)));
    let hashed = hashed.await.unwrap();
    let request = PublishRequest {
        known_hash: Some(known(&scene, key, ContentHash::of(&bundle)).await),
        ..PublishRequest::of(Source::Staged(key))
    };
    assert_eq!(scene.publish(request).await.unwrap(), hashed);
}

#[tokio::test]
async fn a_known_hash_is_taken_for_an_upload_in_that_state_alone() {
    let bundle = Tar::valid().zst();
    let (actual, told) = (ContentHash::of(&bundle), ContentHash::of(b"told"));
    // That a wrong one is believed shows that nobody hashed the bytes.
    for (etag, size, expected) in [
        (None, None, told),
        (Some(ETag::new("another")), None, actual),
        (None, Some(1), actual),
    ] {
        let scene = Scene::new();
        let key = scene.upload(&bundle).await;
        let known = known(&scene, key, told).await;
        let request = PublishRequest {
            known_hash: Some(KnownHash {
                hash: told,
                etag: etag.unwrap_or(known.etag),
                size: size.unwrap_or(known.size),
            }),
            ..PublishRequest::of(Source::Staged(key))
        };
        let published = scene.publish(request).await.unwrap();
        assert_eq!(published.content_hash, expected);
        assert!(scene.read(ObjectKey::Bundle(expected)).await == bundle);
    }
}

#[tokio::test]
async fn a_known_hash_must_be_the_declared_one() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let key = scene.upload(&bundle).await;
    let (actual, told) = (ContentHash::of(&bundle), ContentHash::of(b"told"));
    let request = PublishRequest {
        declared_hash: Some(actual),
        known_hash: Some(known(&scene, key, told).await),
        ..PublishRequest::of(Source::Staged(key))
    };
    let refused = scene.publish(request).await.unwrap_err();
    assert_eq!(refused.code(), "HASH_MISMATCH");
    assert_eq!(scene.stored(), [key.to_string()]);
}

#[tokio::test]
async fn an_upload_with_a_known_hash_is_read_and_judged_all_the_same() {
    let scene = Scene::new();
    let mut damaged = Tar::valid().zst();
    *damaged.last_mut().unwrap() ^= 1;
    let mut longer = Tar::valid().zst();
    longer.push(0);
    for (bundle, code) in [
        (damaged, "BAD_ARCHIVE"),
        (longer, "BAD_ARCHIVE"),
        (Tar::valid().file("../x", b"").zst(), "ARCHIVE_REJECTED"),
        (
            Tar::new().file("dist/main.wasm", COMPONENT).zst(),
            "MANIFEST_REQUIRED",
        ),
    ] {
        let key = scene.upload(&bundle).await;
        let request = PublishRequest {
            known_hash: Some(known(&scene, key, ContentHash::of(&bundle)).await),
            ..PublishRequest::of(Source::Staged(key))
        };
        let refused = scene.publish(request).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
}

#[tokio::test]
async fn a_known_hash_counts_for_no_file_and_nothing_published() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let key = scene.upload(&bundle).await;
    let told = ContentHash::of(b"told");
    let actual = ContentHash::of(&bundle);
    let file = scene.room.write("bundle", &bundle);
    for source in [Source::File(&file), Source::Published(actual)] {
        let request = PublishRequest {
            known_hash: Some(known(&scene, key, told).await),
            ..PublishRequest::of(source)
        };
        let published = scene.publish(request).await.unwrap();
        assert_eq!(published.content_hash, actual);
    }
}

#[tokio::test]
async fn a_manifest_beside_an_upload_counts_where_it_has_none() {
    let scene = Scene::new();
    let key = scene
        .upload(&Tar::new().file("dist/main.wasm", COMPONENT).zst())
        .await;
    assert_eq!(scene.code(key).await, "MANIFEST_REQUIRED");
    let with = |manifest: serde_json::Value| PublishRequest {
        manifest_json: Some(manifest.to_string().into_bytes()),
        ..PublishRequest::of(Source::Staged(key))
    };
    let published = scene.publish(with(manifest())).await.unwrap();
    let stored = scene
        .read(ObjectKey::Manifest(published.content_hash))
        .await;
    assert_eq!(stored, manifest().to_string().as_bytes());
    let mut other = manifest();
    other["description"] = json!("another one");
    let refused = scene.publish(with(other)).await.unwrap_err();
    assert_eq!(refused.code(), "MANIFEST_CONFLICT");
}

#[tokio::test]
async fn a_store_that_gives_nothing_more_of_an_upload_is_unavailable() {
    let scene = Scene::new();
    let key = scene.upload(&Tar::valid().zst()).await;
    for (opens, bodies) in [(1, 0), (0, 1)] {
        let store = TestStore::new(scene.room.store());
        store.stalled.store(opens, Ordering::SeqCst);
        store.stalled_bodies.store(bodies, Ordering::SeqCst);
        let context = PublishContext {
            store: &store,
            component_check: &Verdict::Good,
            registry: &scene.registry,
            capability_check: &|_| Vec::new(),
            signatures: &SignatureRules::default(),
            limits: &Limits::default(),
            actor: "admin",
            request_id: None,
        };
        let request = || PublishRequest {
            stall: Duration::from_millis(50),
            ..PublishRequest::of(Source::Staged(key))
        };
        let refused = publish(request(), context).await.unwrap_err();
        assert_eq!(refused.code(), "STORE_UNAVAILABLE");
        publish(request(), context).await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_that_is_gone_is_not_found() {
    let scene = Scene::new();
    let key = StagingKey::new(Uuid::new_v4());
    assert_eq!(scene.code(key).await, "STAGING_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_finalizes_of_one_upload_agree() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let key = scene.upload(&bundle).await;
    let publish = || scene.publish(PublishRequest::of(Source::Staged(key)));
    let (one, two) = tokio::join!(publish(), publish());
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(scene.versions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_uploads_of_one_version_one_wins() {
    let scene = Scene::new();
    let one = scene.upload(&Tar::valid().file("a", b"1").zst()).await;
    let two = scene.upload(&Tar::valid().file("a", b"2").zst()).await;
    let (one, two) = tokio::join!(scene.finalize(one), scene.finalize(two));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(loser.unwrap_err().code(), "DUPLICATE_VERSION");
    assert!(winner.is_ok());
    assert_eq!(scene.versions(), 1);
}

#[tokio::test]
async fn a_stored_bundle_of_another_size_is_mended_by_an_upload() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let published = scene.finalize(scene.upload(&bundle).await).await.unwrap();
    let canonical = ObjectKey::Bundle(published.content_hash);
    scene.damage(canonical, &bundle[1..]);
    let file = scene.room.write("bundle", &bundle);
    let from_file = scene.publish(PublishRequest::new(&file)).await;
    assert_eq!(from_file.unwrap_err().code(), "STORE_FAILED");
    let again = scene.finalize(scene.upload(&bundle).await).await.unwrap();
    assert_eq!(again, published);
    assert!(scene.read(canonical).await == bundle);
}

#[tokio::test]
async fn a_published_bundle_that_is_damaged_is_the_stores_fault() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let hash = ContentHash::of(&bundle);
    scene.finalize(scene.upload(&bundle).await).await.unwrap();
    let mut damaged = bundle.clone();
    *damaged.last_mut().unwrap() ^= 1;
    scene.damage(ObjectKey::Bundle(hash), &damaged);
    let again = scene.publish(PublishRequest::of(Source::Published(hash)));
    assert_eq!(again.await.unwrap_err().code(), "STORE_FAILED");
}

#[async_trait]
impl VersionRegistry for Failing<MemoryRegistry> {
    async fn register(&self, version: NewVersion) -> Result<RegisteredVersion, RegisterError> {
        self.doing(self.inner.register(version)).await
    }

    async fn ensure_manifest(
        &self,
        content: ContentHash,
        manifest_json: &str,
    ) -> Result<(), RegisterError> {
        let asked = self.inner.ensure_manifest(content, manifest_json);
        self.doing(asked).await
    }
}

#[async_trait]
impl BundleStore for Failing<LocalStore> {
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError> {
        self.doing(self.inner.stat(key)).await
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        self.doing(self.inner.open(key)).await
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        self.doing(self.inner.create(key, content)).await
    }

    async fn stage(
        &self,
        key: StagingKey,
        content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError> {
        self.doing(self.inner.stage(key, content_type, size)).await
    }

    async fn begin_parts(
        &self,
        key: StagingKey,
        content_type: &str,
    ) -> Result<PartedUpload, StoreError> {
        self.doing(self.inner.begin_parts(key, content_type)).await
    }

    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError> {
        self.doing(self.inner.put_part(upload, number, bytes)).await
    }

    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError> {
        self.doing(self.inner.join_parts(upload, parts, size)).await
    }

    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError> {
        self.doing(self.inner.abort_parts(upload)).await
    }

    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError> {
        self.doing(self.inner.promote(upload)).await
    }

    async fn replace(&self, upload: &Verified) -> Result<(), StoreError> {
        self.doing(self.inner.replace(upload)).await
    }

    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.doing(self.inner.remove(key)).await
    }

    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(listing, after, limit).await
    }

    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.unfinished(before, limit).await
    }

    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError> {
        self.inner.abort_unfinished(upload).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}
