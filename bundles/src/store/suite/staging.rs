//! Uploads that are staged, promoted and given up.

use std::time::{Duration, UNIX_EPOCH};

use alga_model::ContentHash;
use bytes::Bytes;

use super::{all, bundle_key, read, size, stat, unique, write};
use crate::store::{
    BundleStore, Created, ETag, Listing, ObjectKey, StagedUpload, StagingKey, Stat, StoreError,
    Verified,
};

pub(super) const CONTENT_TYPE: &str = "application/zstd";
/// Around what fits into one part, and more than one holds.
const SIZES: [usize; 5] = [0, 1, 5 << 20, (5 << 20) + 1, 23 << 20];

pub(super) fn new_key() -> StagingKey {
    StagingKey::new(uuid::Uuid::new_v4())
}

async fn begin(store: &dyn BundleStore, key: StagingKey, size: usize) -> Box<dyn StagedUpload> {
    store
        .stage(key, CONTENT_TYPE, size as u64)
        .await
        .expect("the store takes an upload")
}

/// Writes in pieces that fit no part.
async fn feed(upload: &mut dyn StagedUpload, bytes: &[u8]) -> Result<(), StoreError> {
    for chunk in bytes.chunks(300_007) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    Ok(())
}

pub(super) async fn stage(store: &dyn BundleStore, bytes: &[u8]) -> (StagingKey, Stat) {
    let key = new_key();
    let mut upload = begin(store, key, bytes.len()).await;
    feed(&mut *upload, bytes)
        .await
        .expect("the store takes bytes");
    (key, upload.finish().await.expect("the upload is whole"))
}

/// What finalize knows of an upload whose bytes it has read.
async fn staged_and_verified(store: &dyn BundleStore, bytes: &[u8]) -> Verified {
    let (key, stat) = stage(store, bytes).await;
    Verified {
        key,
        etag: stat.etag,
        hash: ContentHash::of(bytes),
        size: stat.size,
    }
}

/// Waits until nothing is left of an upload that goes away in the background.
pub(super) async fn wait_until_gone(store: &dyn BundleStore, key: StagingKey) {
    let far_ahead = UNIX_EPOCH + Duration::from_secs(1 << 33);
    let mut patience = 200;
    loop {
        let unfinished = store
            .unfinished(far_ahead, 1000)
            .await
            .expect("unfinished uploads can be listed");
        let open = unfinished
            .iter()
            .any(|upload| upload.key == Some(key.into()));
        if !open && size(store, key.into()).await.is_none() {
            return;
        }
        assert!(patience > 0, "an upload stays: {unfinished:?}");
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is staged is read back, listed, known by its state, and no canonical object.
pub async fn a_staged_upload_reads_back(store: &dyn BundleStore) {
    for len in SIZES {
        let bytes = unique(len);
        let (key, told) = stage(store, &bytes).await;
        assert_eq!(told.size, len as u64);
        assert_eq!(stat(store, key.into()).await, told);
        assert!(
            read(store, key.into()).await == bytes,
            "{len} bytes came back changed"
        );
        if len > 0 {
            assert_eq!(size(store, bundle_key(&bytes)).await, None);
        }
        store.remove(key.into()).await.expect("removing works");
        assert_eq!(size(store, key.into()).await, None);
    }
}

/// Nothing is seen of an upload before it is finished.
pub async fn an_upload_is_invisible_until_it_is_finished(store: &dyn BundleStore) {
    for len in [1000, 12 << 20] {
        let (key, bytes) = (new_key(), unique(len));
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &bytes).await.expect("bytes are taken");
        assert_eq!(size(store, key.into()).await, None);
        let listed = all(store, Listing::Staging).await;
        assert!(!listed.iter().any(|object| object.key == key.into()));
        upload.finish().await.expect("the upload is whole");
        let listed = all(store, Listing::Staging).await;
        assert!(listed.iter().any(|object| object.key == key.into()));
    }
}

/// An upload with too few bytes is refused, and nothing stays.
pub async fn a_short_upload_leaves_nothing(store: &dyn BundleStore) {
    for len in SIZES.into_iter().filter(|len| *len > 0) {
        let (key, bytes) = (new_key(), unique(len - 1));
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &bytes).await.expect("bytes are taken");
        let refused = upload.finish().await;
        assert!(
            matches!(refused, Err(StoreError::WrongSize { expected, actual, .. })
                if (expected, actual) == (len as u64, len as u64 - 1)),
            "{refused:?}"
        );
        wait_until_gone(store, key).await;
    }
}

/// An upload with too many bytes is refused at once, cannot be finished, and nothing stays.
pub async fn a_long_upload_leaves_nothing(store: &dyn BundleStore) {
    for len in SIZES {
        let (key, bytes) = (new_key(), unique(len));
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &bytes).await.expect("bytes are taken");
        let refused = upload.write(Bytes::from_static(b"!")).await;
        assert!(
            matches!(refused, Err(StoreError::WrongSize { expected, actual, .. })
                if (expected, actual) == (len as u64, len as u64 + 1)),
            "{refused:?}"
        );
        upload
            .finish()
            .await
            .expect_err("what was refused is not finished");
        wait_until_gone(store, key).await;
    }
}

/// An upload that is given up leaves nothing, wherever it was.
pub async fn an_aborted_upload_leaves_nothing(store: &dyn BundleStore) {
    for (len, sent) in [
        (0, 0),
        (1000, 0),
        (1000, 1000),
        (20 << 20, 0),
        (20 << 20, 14 << 20),
    ] {
        let key = new_key();
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &unique(sent))
            .await
            .expect("bytes are taken");
        upload.abort().await.expect("an upload can be given up");
        assert_eq!(size(store, key.into()).await, None);
        wait_until_gone(store, key).await;
    }
}

/// An upload whose writer goes away leaves nothing, wherever it was.
pub async fn a_dropped_upload_leaves_nothing(store: &dyn BundleStore) {
    for (len, sent) in [(1000, 0), (1000, 1000), (20 << 20, 0), (20 << 20, 14 << 20)] {
        let key = new_key();
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &unique(sent))
            .await
            .expect("bytes are taken");
        drop(upload);
        wait_until_gone(store, key).await;
    }
}

/// A writer that goes away while it waits for the end leaves nothing either.
pub async fn an_upload_dropped_at_its_end_leaves_nothing(store: &dyn BundleStore) {
    for len in [1000, 12 << 20] {
        let key = new_key();
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &unique(len))
            .await
            .expect("bytes are taken");
        let finish = upload.finish();
        // It is asked once, so that it has begun, and then forgotten.
        let mut finish = Box::pin(finish);
        let begun = std::future::poll_fn(|context| {
            std::task::Poll::Ready(finish.as_mut().poll(context).is_pending())
        });
        assert!(begun.await, "an upload takes some time");
        drop(finish);
        wait_until_gone(store, key).await;
    }
}

/// A writer that goes away when the object is there, but before it was told so, leaves nothing.
pub async fn an_upload_that_nobody_took_leaves_nothing(store: &dyn BundleStore) {
    for len in [0, 1000] {
        let key = new_key();
        let mut upload = begin(store, key, len).await;
        feed(&mut *upload, &unique(len))
            .await
            .expect("bytes are taken");
        let mut finish = upload.finish();
        let begun = std::future::poll_fn(|context| {
            std::task::Poll::Ready(finish.as_mut().poll(context).is_pending())
        });
        assert!(begun.await, "an upload takes some time");
        let mut patience = 200;
        while size(store, key.into()).await.is_none() {
            assert!(patience > 0, "the upload is carried out");
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(finish);
        wait_until_gone(store, key).await;
    }
}

/// What uploads left that were dropped is gone once a store has settled.
pub async fn settling_waits_until_dropped_uploads_are_gone(store: &dyn BundleStore) {
    let key = new_key();
    let mut upload = begin(store, key, 20 << 20).await;
    feed(&mut *upload, &unique(14 << 20))
        .await
        .expect("bytes are taken");
    drop(upload);
    store.settle().await;
    let far_ahead = UNIX_EPOCH + Duration::from_secs(1 << 33);
    let unfinished = store.unfinished(far_ahead, 1000).await;
    let unfinished = unfinished.expect("unfinished uploads can be listed");
    let ours = |upload: &crate::store::Unfinished| upload.key == Some(key.into());
    assert!(!unfinished.iter().any(ours), "{unfinished:?}");
}

/// Two uploads under one key, of which all bytes are written.
async fn twins(
    store: &dyn BundleStore,
    key: StagingKey,
    bytes: [&[u8]; 2],
) -> [Box<dyn StagedUpload>; 2] {
    let mut uploads = [
        begin(store, key, bytes[0].len()).await,
        begin(store, key, bytes[1].len()).await,
    ];
    for (upload, bytes) in uploads.iter_mut().zip(bytes) {
        feed(&mut **upload, bytes).await.expect("bytes are taken");
    }
    uploads
}

/// Of two uploads under one key the one that is finished first stays, though both began before.
pub async fn an_upload_is_not_replaced_by_one_that_began_as_early(store: &dyn BundleStore) {
    for lens in [
        [1000, 1000],
        [1000, 2000],
        [6 << 20, 6 << 20],
        [1000, 6 << 20],
    ] {
        let (key, [first, second]) = (new_key(), lens.map(unique));
        let [one, two] = twins(store, key, [&first, &second]).await;
        let told = one.finish().await.expect("the first one is stored");
        let refused = two.finish().await;
        assert!(
            matches!(refused, Err(StoreError::Exists { .. })),
            "{lens:?}: {refused:?}"
        );
        store.settle().await;
        assert_eq!(stat(store, key.into()).await, told);
        assert!(read(store, key.into()).await == first, "{lens:?}");
    }
}

/// Whatever becomes of an upload, what another one stored under its key stays.
pub async fn an_upload_that_goes_wrong_leaves_another_of_its_key_alone(store: &dyn BundleStore) {
    for len in [1000, 6 << 20] {
        for ending in 0..3 {
            let (key, bytes) = (new_key(), unique(len));
            let [mut one, two] = twins(store, key, [&bytes, &bytes]).await;
            let told = two.finish().await.expect("the other one is stored");
            match ending {
                0 => one.abort().await.expect("an upload can be given up"),
                1 => drop(one),
                _ => {
                    let refused = one.write(Bytes::from_static(b"!")).await;
                    refused.expect_err("there is one byte too many");
                    one.finish().await.expect_err("it cannot be finished");
                }
            }
            store.settle().await;
            assert_eq!(stat(store, key.into()).await, told, "{len} {ending}");
        }
    }
}

/// Of two uploads that are finished at once, what is there in the end is one that was told to be stored, whole.
pub async fn racing_uploads_of_one_key_agree(store: &dyn BundleStore) {
    for len in [1000, 6 << 20] {
        let (key, [first, second]) = (new_key(), [len, len].map(unique));
        let [one, two] = twins(store, key, [&first, &second]).await;
        let (one, two) = tokio::join!(one.finish(), two.finish());
        store.settle().await;
        for outcome in [&one, &two] {
            let is_told = matches!(outcome, Ok(_) | Err(StoreError::Exists { .. }));
            assert!(is_told, "{outcome:?}");
        }
        let (there, bytes) = (stat(store, key.into()).await, read(store, key.into()).await);
        let winner = if bytes == first { one } else { two };
        assert!(bytes == first || bytes == second, "{len} bytes are mixed");
        assert_eq!(winner.expect("it is there"), there);
    }
}

/// A key that is taken is not written again.
pub async fn a_staged_upload_is_not_replaced(store: &dyn BundleStore) {
    for len in [1000, 6 << 20] {
        let (key, told) = stage(store, &unique(1000)).await;
        let again = match store.stage(key, CONTENT_TYPE, len as u64).await {
            Ok(mut upload) => match feed(&mut *upload, &unique(len)).await {
                Ok(()) => upload.finish().await.map(drop),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
        assert_eq!(stat(store, key.into()).await, told);
    }
}

/// An upload takes the bytes of one that was given up.
pub async fn what_was_given_up_can_be_uploaded_again(store: &dyn BundleStore) {
    let (key, bytes) = (new_key(), unique(6 << 20));
    let mut upload = begin(store, key, bytes.len()).await;
    feed(&mut *upload, &bytes).await.expect("bytes are taken");
    upload.abort().await.expect("an upload can be given up");
    let mut upload = begin(store, key, bytes.len()).await;
    feed(&mut *upload, &bytes).await.expect("bytes are taken");
    upload.finish().await.expect("the upload is whole");
    assert!(read(store, key.into()).await == bytes);
}

/// A verified upload becomes the object of its hash; doing so again succeeds, and the upload stays.
pub async fn a_verified_upload_is_promoted(store: &dyn BundleStore) {
    for len in [1000, 12 << 20] {
        let bytes = unique(len);
        let upload = staged_and_verified(store, &bytes).await;
        let promoted = store.promote(&upload).await.expect("promoting works");
        assert_eq!(promoted, Created::Written);
        assert!(read(store, bundle_key(&bytes)).await == bytes);
        assert_eq!(stat(store, upload.key.into()).await.etag, upload.etag);
        let again = store.promote(&upload).await.expect("promoting works twice");
        assert_eq!(again, Created::Existing { size: len as u64 });
        store.remove(upload.key.into()).await.expect("it goes");
        assert!(read(store, bundle_key(&bytes)).await == bytes);
    }
}

/// An upload that is not as it was verified is not promoted, neither is one that is gone.
pub async fn an_upload_that_changed_is_not_promoted(store: &dyn BundleStore) {
    let bytes = unique(1000);
    let upload = staged_and_verified(store, &bytes).await;
    for changed in [
        Verified {
            etag: ETag::new("00000000000000000000000000000000"),
            ..upload.clone()
        },
        Verified {
            size: 999,
            ..upload.clone()
        },
    ] {
        let refused = store.promote(&changed).await;
        assert!(
            matches!(refused, Err(StoreError::Changed { .. })),
            "{refused:?}"
        );
        let refused = store.replace(&changed).await;
        assert!(
            matches!(refused, Err(StoreError::Changed { .. })),
            "{refused:?}"
        );
    }
    store.remove(upload.key.into()).await.expect("it goes");
    let refused = store.promote(&upload).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { key }) if key == upload.key.into()),
        "{refused:?}"
    );
    assert_eq!(size(store, bundle_key(&bytes)).await, None);
}

/// What is there under the hash is left alone and told, whatever its size.
pub async fn a_canonical_object_is_not_promoted_over(store: &dyn BundleStore) {
    let bytes = unique(1000);
    let mut upload = staged_and_verified(store, b"damaged").await;
    let key = bundle_key(&bytes);
    write(store, key, &bytes).await;
    upload.hash = ContentHash::of(&bytes);
    let told = store.promote(&upload).await.expect("promoting works");
    assert_eq!(told, Created::Existing { size: 1000 });
    assert_eq!(read(store, key).await, bytes);
}

/// A damaged object is mended by a verified upload, as often as it takes.
pub async fn a_damaged_object_is_replaced(store: &dyn BundleStore) {
    let bytes = unique(6 << 20);
    // A store keeps what it is told is verified.
    let mut damaged = staged_and_verified(store, b"damaged").await;
    damaged.hash = ContentHash::of(&bytes);
    store.promote(&damaged).await.expect("promoting works");
    let upload = staged_and_verified(store, &bytes).await;
    let told = store.promote(&upload).await.expect("promoting works");
    assert_eq!(told, Created::Existing { size: 7 });
    for _ in 0..2 {
        store.replace(&upload).await.expect("replacing works");
        assert!(read(store, bundle_key(&bytes)).await == bytes);
    }
}

/// Of several promotions at once every one succeeds.
pub async fn racing_promotions_agree(store: &dyn BundleStore) {
    let bytes = unique(70_000);
    let first = staged_and_verified(store, &bytes).await;
    let second = staged_and_verified(store, &bytes).await;
    let outcomes = tokio::join!(
        store.promote(&first),
        store.promote(&second),
        store.promote(&first)
    );
    for outcome in [outcomes.0, outcomes.1, outcomes.2] {
        let is_there = matches!(
            outcome,
            Ok(Created::Written | Created::Existing { size: 70_000 })
        );
        assert!(is_there, "{outcome:?}");
    }
    assert!(read(store, bundle_key(&bytes)).await == bytes);
}

/// An upload that nobody finished is found by its age and aborted; a younger one is not touched.
pub async fn an_unfinished_upload_is_found_and_aborted(store: &dyn BundleStore) {
    let key = new_key();
    let mut upload = begin(store, key, 20 << 20).await;
    feed(&mut *upload, &unique(12 << 20))
        .await
        .expect("bytes are taken");
    let ours = |upload: &crate::store::Unfinished| upload.key == Some(key.into());
    let far_ahead = UNIX_EPOCH + Duration::from_secs(1 << 33);
    let mut patience = 200;
    let found = loop {
        let unfinished = store
            .unfinished(far_ahead, 1000)
            .await
            .expect("unfinished uploads can be listed");
        if let Some(found) = unfinished.into_iter().find(ours) {
            break found;
        }
        assert!(patience > 0, "the upload was begun");
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let older = store
        .unfinished(found.started, 1000)
        .await
        .expect("unfinished uploads can be listed");
    assert!(!older.contains(&found));
    for _ in 0..2 {
        store
            .abort_unfinished(&found)
            .await
            .expect("an unfinished upload can be aborted");
    }
    // Its writer learns of it at the latest when it finishes, and leaves nothing.
    let fed = feed(&mut *upload, &unique(8 << 20)).await;
    let finished = upload.finish().await;
    assert!(fed.is_err() || finished.is_err(), "the upload was aborted");
    wait_until_gone(store, key).await;
    assert_eq!(size(store, ObjectKey::from(key)).await, None);
}
