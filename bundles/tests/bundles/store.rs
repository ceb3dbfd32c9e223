use std::ops::Deref;

use alga_bundles::{BundleStore, Content, LocalStore, ObjectKey, bundle_store_suite};
use alga_model::ContentHash;

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
