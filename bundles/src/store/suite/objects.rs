//! Objects that are written and read.

use std::io::Write;

use alga_model::ContentHash;
use tokio::io::AsyncReadExt;

use super::{bundle_key, read, size, stat, unique, write};
use crate::store::{BundleStore, Content, Created, ObjectKey, StoreError};

/// What was never written is not found, and has no size.
pub async fn a_missing_object_is_not_found(store: &dyn BundleStore) {
    let key = bundle_key(&unique(16));
    assert_eq!(size(store, key).await, None);
    assert!(
        matches!(store.open(key).await, Err(StoreError::NotFound { key: named }) if named == key)
    );
    assert!(matches!(
        store.read(key, 1).await,
        Err(StoreError::NotFound { .. })
    ));
}

/// What was written is read back, from memory as from a file, whatever its size.
pub async fn an_object_reads_back_as_it_was_written(store: &dyn BundleStore) {
    for len in [0, 1, 511, 65_536, 9 << 20] {
        // The hash of nothing is one key for all tests; the manifest beside a unique hash is not.
        let key = ObjectKey::Manifest(ContentHash::of(&unique(16)));
        let bytes = unique(len);
        assert_eq!(write(store, key, &bytes).await, Created::Written);
        assert_eq!(size(store, key).await, Some(len as u64));
        assert!(
            read(store, key).await == bytes,
            "{len} bytes came back changed"
        );
    }
    let bytes = unique(6 << 20);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&bytes).expect("writing a temporary file");
    let key = bundle_key(&bytes);
    let created = store
        .create(key, Content::File(file.path()))
        .await
        .expect("the store takes a file");
    assert_eq!(created, Created::Written);
    let mut object = store.open(key).await.expect("the store has the object");
    assert_eq!(object.stat.size, bytes.len() as u64);
    let mut back = Vec::new();
    object
        .body
        .read_to_end(&mut back)
        .await
        .expect("reading an object");
    assert!(back == bytes, "a file came back changed");
}

/// A second write succeeds, says so and leaves the object as it was.
pub async fn the_first_write_stays(store: &dyn BundleStore) {
    let bytes = unique(100);
    let key = bundle_key(&bytes);
    assert_eq!(write(store, key, &bytes).await, Created::Written);
    assert_eq!(
        write(store, key, &bytes).await,
        Created::Existing { size: 100 }
    );

    let key = ObjectKey::Manifest(ContentHash::of(&bytes));
    assert_eq!(write(store, key, b"first").await, Created::Written);
    assert_eq!(
        write(store, key, b"second!").await,
        Created::Existing { size: 5 }
    );
    assert_eq!(read(store, key).await, b"first");
}

/// The two objects of one hash are two objects.
pub async fn a_bundle_and_its_manifest_are_apart(store: &dyn BundleStore) {
    let bytes = unique(32);
    write(store, bundle_key(&bytes), &bytes).await;
    let manifest = ObjectKey::Manifest(ContentHash::of(&bytes));
    assert_eq!(size(store, manifest).await, None);
    write(store, manifest, b"{}").await;
    assert_eq!(read(store, bundle_key(&bytes)).await, bytes);
    assert_eq!(read(store, manifest).await, b"{}");
}

/// Bytes that do not have the promised hash leave nothing behind, and the right ones still fit.
pub async fn content_with_another_hash_is_refused(store: &dyn BundleStore) {
    for len in [16, 9 << 20] {
        let bytes = unique(len);
        let mut other = bytes.clone();
        other.push(0);
        let key = bundle_key(&bytes);
        let refused = store.create(key, Content::Bytes(&other)).await;
        assert!(
            matches!(refused, Err(StoreError::WrongContent { actual, .. }) if actual == ContentHash::of(&other)),
            "{refused:?}"
        );
        assert_eq!(size(store, key).await, None);
        assert_eq!(write(store, key, &bytes).await, Created::Written);
    }
}

/// A file that cannot be read is a failure and leaves nothing behind.
pub async fn an_unreadable_source_leaves_nothing(store: &dyn BundleStore) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = bundle_key(&unique(16));
    let refused = store
        .create(key, Content::File(&folder.path().join("absent")))
        .await;
    assert!(
        matches!(refused, Err(StoreError::Failed { .. })),
        "{refused:?}"
    );
    assert_eq!(size(store, key).await, None);
}

/// A read stops at its limit and not before.
pub async fn a_read_is_limited(store: &dyn BundleStore) {
    let bytes = unique(1000);
    let key = bundle_key(&bytes);
    write(store, key, &bytes).await;
    assert_eq!(store.read(key, 1001).await.expect("above the size"), bytes);
    assert_eq!(store.read(key, 1000).await.expect("at the size"), bytes);
    assert!(matches!(
        store.read(key, 999).await,
        Err(StoreError::TooLarge {
            size: 1000,
            limit: 999,
            ..
        })
    ));
}

/// Of several writers at once every one succeeds, and all see one object.
pub async fn racing_writers_agree(store: &dyn BundleStore) {
    let key = ObjectKey::Manifest(ContentHash::of(&unique(16)));
    let contents = [
        unique(70_000),
        unique(70_001),
        unique(70_002),
        unique(70_003),
    ];
    let [a, b, c, d] = &contents;
    tokio::join!(
        write(store, key, a),
        write(store, key, b),
        write(store, key, c),
        write(store, key, d)
    );
    let kept = read(store, key).await;
    assert!(contents.contains(&kept), "the object is a mixture");
    write(store, key, b"late").await;
    assert!(
        read(store, key).await == kept,
        "a late writer replaced the object"
    );
}

/// What is known of an object stays the same while nobody writes it, and is the same for all who look.
pub async fn the_state_of_an_object_is_known_without_reading_it(store: &dyn BundleStore) {
    let bytes = unique(1234);
    let key = bundle_key(&bytes);
    write(store, key, &bytes).await;
    let known = stat(store, key).await;
    assert_eq!(known.size, 1234);
    write(store, key, &bytes).await;
    assert_eq!(stat(store, key).await, known);
    let opened = store.open(key).await.expect("the store has the object");
    assert_eq!(opened.stat.etag, known.etag);
    let other = unique(1234);
    write(store, bundle_key(&other), &other).await;
    assert_ne!(stat(store, bundle_key(&other)).await.etag, known.etag);
}

/// What is removed is gone, can be removed again, and can be written again.
pub async fn a_removed_object_is_gone(store: &dyn BundleStore) {
    let bytes = unique(100);
    let key = bundle_key(&bytes);
    store.remove(key).await.expect("nothing to remove");
    write(store, key, &bytes).await;
    for _ in 0..2 {
        store.remove(key).await.expect("removing works");
        assert_eq!(size(store, key).await, None);
    }
    assert_eq!(write(store, key, &bytes).await, Created::Written);
    assert_eq!(read(store, key).await, bytes);
}

/// A store that works says so, as often as it is asked, and keeps nothing of it.
pub async fn a_store_that_works_passes_its_check(store: &dyn BundleStore) {
    for _ in 0..2 {
        store.check().await.expect("the store works");
    }
}
