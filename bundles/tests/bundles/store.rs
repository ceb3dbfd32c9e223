use std::env;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

use alga_bundles::{
    BundleStore, Content, LocalStore, ObjectKey, PART_BYTES, PartedUpload, StagingKey, StoreError,
    bundle_store_suite, suite,
};
use alga_model::ContentHash;
use bytes::Bytes;
use uuid::Uuid;

use crate::support::{Room, listing};

/// A local store and the folder it lives in.
struct Local {
    store: LocalStore,
    _room: Room,
}

impl Deref for Local {
    type Target = LocalStore;

    fn deref(&self) -> &LocalStore {
        &self.store
    }
}

bundle_store_suite!(local, async {
    let room = Room::new();
    Some(Local {
        store: room.store(),
        _room: room,
    })
});

bundle_store_suite!(local_by_a_relative_path, async {
    let room = Room::new();
    let store = LocalStore::open(relative(&room.path("store"))).unwrap();
    Some(Local { store, _room: room })
});

/// The same path from where the process works.
fn relative(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap();
    // Both begin with the root: up to it, and down from there.
    let up = here.components().skip(1).map(|_| Component::ParentDir);
    let down = path.components().skip(1);
    up.chain(down).collect()
}

#[tokio::test]
async fn objects_lie_under_the_keys_of_the_bucket_and_nothing_else_does() {
    let room = Room::new();
    let store = room.store();
    let hash = ContentHash::of(b"bundle");
    store
        .create(ObjectKey::Bundle(hash), Content::Bytes(b"bundle"))
        .await
        .unwrap();
    store
        .create(ObjectKey::Manifest(hash), Content::Bytes(b"{}"))
        .await
        .unwrap();
    store
        .create(ObjectKey::Manifest(hash), Content::Bytes(b"again"))
        .await
        .unwrap();
    store
        .create(ObjectKey::Bundle(hash), Content::Bytes(b"wrong"))
        .await
        .unwrap();
    let other = ContentHash::of(b"other");
    store
        .create(ObjectKey::Bundle(other), Content::Bytes(b"wrong"))
        .await
        .unwrap_err();

    let hex = hash.to_hex();
    let mut expected = vec![
        "sha256".to_owned(),
        format!("sha256/{hex}"),
        format!("sha256/{hex}/bundle.tar.zst"),
        format!("sha256/{hex}/manifest.json"),
        format!("sha256/{}", other.to_hex()),
    ];
    expected.sort();
    assert_eq!(listing(&room.path("store")), expected);
}

#[tokio::test]
async fn a_store_that_is_opened_again_has_what_it_had() {
    let room = Room::new();
    let key = ObjectKey::Bundle(ContentHash::of(b"bundle"));
    room.store()
        .create(key, Content::Bytes(b"bundle"))
        .await
        .unwrap();
    assert_eq!(room.store().read(key, 100).await.unwrap(), b"bundle");
}

#[tokio::test]
async fn an_upload_in_parts_goes_on_in_another_process() {
    let room = Room::new();
    suite::an_upload_in_parts_goes_on_elsewhere(&room.store(), &room.store()).await;
}

async fn begin(store: &LocalStore) -> PartedUpload {
    let key = StagingKey::new(Uuid::new_v4());
    store.begin_parts(key, "").await.unwrap()
}

#[tokio::test]
async fn a_join_that_a_crash_interrupted_is_completed_and_takes_no_part() {
    let room = Room::new();
    let store = room.store();
    let upload = begin(&store).await;
    let part = Bytes::from_static(b"part");
    let etag = store.put_part(&upload, 1, part.clone()).await.unwrap();
    // The object has its name, and the upload still has its own.
    let object = room.path("store").join(upload.key.to_string());
    let file = room.path("store/sha256/_staging").join(&upload.id);
    std::fs::create_dir(object.parent().unwrap()).unwrap();
    std::fs::hard_link(&file, &object).unwrap();

    let late = store.put_part(&upload, 1, Bytes::from_static(b"late"));
    assert!(matches!(late.await, Err(StoreError::NotFound { .. })));
    let joined = store.join_parts(&upload, &[etag], 4).await.unwrap();
    assert_eq!(store.stat(upload.key.into()).await.unwrap(), Some(joined));
    assert_eq!(store.read(upload.key.into(), 100).await.unwrap(), part);
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_races_with_the_join_changes_no_object() {
    let room = Room::new();
    let store = room.store();
    let [first, other] = [1, 2].map(|byte| Bytes::from(vec![byte; PART_BYTES]));
    for _ in 0..20 {
        let upload = begin(&store).await;
        let etags = [store.put_part(&upload, 1, first.clone()).await.unwrap()];
        let (joined, written) = tokio::join!(
            store.join_parts(&upload, &etags, PART_BYTES as u64),
            store.put_part(&upload, 1, other.clone())
        );
        match joined {
            Ok(stat) => {
                let found = store.stat(upload.key.into()).await.unwrap();
                assert_eq!(found, Some(stat));
                let bytes = store.read(upload.key.into(), u64::MAX).await.unwrap();
                assert!(bytes == first, "an object has changed");
                assert!(matches!(written, Err(StoreError::NotFound { .. })));
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
                written.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_called_like_another_file_touches_none() {
    let room = Room::new();
    let store = room.store();
    let begun = begin(&store).await;
    let victim = room.write("store/victim", b"untouched");
    let inside = format!(".tmp-{}-abcdef", begun.key.id());
    let upload = room.path("store/sha256/_staging").join(&inside);
    std::fs::write(&upload, b"untouched").unwrap();
    for id in [
        "../../victim".to_owned(),
        victim.to_str().unwrap().to_owned(),
        format!("{}/../../../victim", begun.id),
        inside,
    ] {
        let named = PartedUpload { key: begun.key, id };
        let written = store.put_part(&named, 1, Bytes::from_static(b"touched"));
        assert!(matches!(written.await, Err(StoreError::NotFound { .. })));
        store.abort_parts(&named).await.unwrap();
    }
    for file in [victim, upload] {
        assert_eq!(std::fs::read(file).unwrap(), b"untouched");
    }
}
