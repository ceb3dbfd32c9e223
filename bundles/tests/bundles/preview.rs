//! Uploads that nobody has accepted yet, and a cache that may ask nobody.

use std::fs;
use std::sync::Arc;

use alga_bundles::{BundleCache, FetchError, FetchOptions, ObjectKey, StagingKey, StoreError};
use alga_model::ContentHash;
use uuid::Uuid;

use crate::fetch::{INDEX, bundle, cache, contents, stocked};
use crate::support::{COMPONENT, Room, Tar, TestStore, manifest};

/// An upload in a store that has nothing else.
fn uploaded(room: &Room, bytes: &[u8]) -> (Arc<TestStore>, StagingKey) {
    let key = StagingKey::new(Uuid::new_v4());
    room.plant(key.into(), bytes);
    (Arc::new(TestStore::new(room.store())), key)
}

fn offline(room: &Room, store: &Arc<TestStore>) -> BundleCache {
    let options = FetchOptions {
        offline: true,
        ..FetchOptions::default()
    };
    BundleCache::new(room.path("cache"), Arc::clone(store) as _, options).unwrap()
}

#[tokio::test]
async fn an_upload_can_be_previewed_and_is_the_bundle_then() {
    let room = Room::new();
    let (store, key) = uploaded(&room, &bundle());
    let (cache, hash) = (cache(&room, &store), ContentHash::of(&bundle()));
    let preview = cache.preview(key, hash).await.unwrap();
    assert_eq!(preview.hash(), hash);
    assert_eq!(preview.read_component().await.unwrap(), COMPONENT);
    let again = cache.preview(key, hash).await.unwrap();
    assert_eq!(again.hash(), hash);
    assert_eq!(cache.get(hash).await.unwrap().hash(), hash);
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn an_upload_with_another_hash_is_refused_and_nothing_of_it_is_kept() {
    let room = Room::new();
    let (store, key) = uploaded(&room, &bundle());
    let (cache, expected) = (cache(&room, &store), ContentHash::of(b"another"));
    for _ in 0..2 {
        let error = cache.preview(key, expected).await.unwrap_err();
        let FetchError::Integrity { actual, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(actual, ContentHash::of(&bundle()));
        assert_eq!(contents(&room), (vec![], vec![]));
    }
    let hash = ContentHash::of(&bundle());
    cache.preview(key, hash).await.unwrap();
}

#[tokio::test]
async fn a_preview_without_its_manifest_is_refused_also_where_one_is_beside_the_hash() {
    let room = Room::new();
    let bytes = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    let hash = ContentHash::of(&bytes);
    let (store, key) = uploaded(&room, &bytes);
    room.plant(ObjectKey::Manifest(hash), manifest().to_string().as_bytes());
    let error = cache(&room, &store).preview(key, hash).await.unwrap_err();
    assert!(matches!(error, FetchError::Manifest { .. }), "{error:?}");
    assert_eq!(contents(&room), (vec![], vec![]));
}

#[tokio::test]
async fn a_missing_upload_does_not_make_the_bundle_missing() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let (cache, gone) = (cache(&room, &store), StagingKey::new(Uuid::new_v4()));
    let (preview, bundle) = tokio::join!(cache.preview(gone, hash), cache.get(hash));
    let error = preview.unwrap_err();
    let FetchError::Store(error) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*error, StoreError::NotFound { .. }), "{error:?}");
    bundle.unwrap();
    assert_eq!(store.opens(), 2);
}

#[tokio::test]
async fn offline_the_cache_gives_what_it_has_and_asks_nobody() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let error = offline(&room, &store).get(hash).await.unwrap_err();
    assert!(matches!(error, FetchError::Offline { hash: named, damage: None } if named == hash));
    assert!(!error.is_transient());
    assert_eq!(store.opens(), 0);

    let fetched = cache(&room, &store).get(hash).await.unwrap();
    let cache = offline(&room, &store);
    cache.get(hash).await.unwrap();
    let page = fetched.file("ui/index.html").unwrap().path;
    fs::write(&page, b"damaged").unwrap();
    for _ in 0..2 {
        let error = cache.get(hash).await.unwrap_err();
        assert!(matches!(error, FetchError::Offline { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains("ui/index.html has another size"), "{told}");
    }
    fs::write(&page, INDEX).unwrap();
    let error = cache.get(hash).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Offline { .. }),
        "the time is another: {error:?}"
    );
    assert!(page.exists(), "it is left to whoever may mend it");
    assert_eq!(store.opens(), 1);
}
