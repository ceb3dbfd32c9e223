//! Uploads whose parts come in calls of their own.

#![expect(
    clippy::indexing_slicing,
    reason = "a store that falls short is told by a panic"
)]

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::staging::{CONTENT_TYPE, new_key, stage, wait_until_gone};
use super::{all, read, size, stat, unique};
use crate::store::{
    BundleStore, ETag, Listing, PART_BYTES, PartedUpload, Stat, StoreError, Unfinished,
};

/// An upload with parts that differ from each other, all of them written.
struct Parted {
    upload: PartedUpload,
    parts: Vec<Vec<u8>>,
    etags: Vec<ETag>,
}

impl Parted {
    /// Writes parts of these lengths, the last one first.
    async fn write(store: &dyn BundleStore, lengths: &[usize]) -> Self {
        let parts: Vec<_> = lengths.iter().map(|len| unique(*len)).collect();
        let upload = begin(store).await;
        let mut etags = Vec::new();
        for (number, part) in (1..).zip(&parts).collect::<Vec<_>>().into_iter().rev() {
            etags.insert(0, put(store, &upload, number, part).await);
        }
        Self {
            upload,
            parts,
            etags,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.parts.concat()
    }

    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    async fn join(&self, store: &dyn BundleStore) -> Result<Stat, StoreError> {
        store
            .join_parts(&self.upload, &self.etags, self.size())
            .await
    }

    /// Joins it, and has exactly its bytes then.
    async fn joined(&self, store: &dyn BundleStore) -> Stat {
        let told = self.join(store).await.expect("the parts are whole");
        assert_eq!(told.size, self.size());
        assert_eq!(stat(store, self.upload.key.into()).await, told);
        let is_same = read(store, self.upload.key.into()).await == self.bytes();
        assert!(is_same, "{} bytes came back changed", self.size());
        told
    }

    /// Nothing is seen of it, and it goes on.
    async fn ensure_open(&self, store: &dyn BundleStore) {
        ensure_invisible(store, &self.upload).await;
        let found = unfinished(store, &self.upload).await;
        assert!(found.is_some(), "the upload went away");
    }
}

async fn begin(store: &dyn BundleStore) -> PartedUpload {
    let begun = store.begin_parts(new_key(), CONTENT_TYPE).await;
    let upload = begun.expect("the store takes an upload");
    assert!((1..=1024).contains(&upload.id.len()), "{}", upload.id);
    upload
}

async fn put(store: &dyn BundleStore, upload: &PartedUpload, number: u32, part: &[u8]) -> ETag {
    let put = store.put_part(upload, number, Bytes::copy_from_slice(part));
    put.await.expect("the store takes a part")
}

async fn unfinished(store: &dyn BundleStore, upload: &PartedUpload) -> Option<Unfinished> {
    let far_ahead = UNIX_EPOCH + Duration::from_secs(1 << 33);
    let found = store
        .unfinished(far_ahead, 1000)
        .await
        .expect("unfinished uploads can be listed");
    found
        .into_iter()
        .find(|found| found.key == Some(upload.key.into()))
}

async fn ensure_invisible(store: &dyn BundleStore, upload: &PartedUpload) {
    assert_eq!(size(store, upload.key.into()).await, None);
    let listed = all(store, Listing::Staging).await;
    let is_listed = listed.iter().any(|object| object.key == upload.key.into());
    assert!(!is_listed, "what is not whole is in the list");
}

fn is_gone<T>(outcome: &Result<T, StoreError>, upload: &PartedUpload) -> bool {
    matches!(outcome, Err(StoreError::NotFound { key }) if *key == upload.key.into())
}

/// Parts that were written in any order are read back in theirs, and are invisible until they are joined.
pub async fn an_upload_in_parts_reads_back(store: &dyn BundleStore) {
    for lengths in [
        &[1][..],
        &[PART_BYTES],
        &[PART_BYTES, 1],
        &[PART_BYTES, PART_BYTES, 7],
    ] {
        let upload = Parted::write(store, lengths).await;
        upload.ensure_open(store).await;
        upload.joined(store).await;
        assert_eq!(unfinished(store, &upload.upload).await, None);
        let listed = all(store, Listing::Staging).await;
        let key = upload.upload.key.into();
        assert!(listed.iter().any(|object| object.key == key));
        store.remove(key).await.expect("removing works");
        assert!(is_gone(&upload.join(store).await, &upload.upload));
    }
}

/// What one process began and wrote, another one goes on with; `other` is another way to the same objects.
pub async fn an_upload_in_parts_goes_on_elsewhere(
    store: &dyn BundleStore,
    other: &dyn BundleStore,
) {
    let parts = [unique(PART_BYTES), unique(PART_BYTES), unique(9)];
    let upload = begin(store).await;
    let remembered = PartedUpload {
        key: upload.key,
        id: upload.id.clone(),
    };
    let mut etags = vec![put(store, &upload, 1, &parts[0]).await];
    etags.push(put(other, &remembered, 2, &parts[1]).await);
    etags.push(put(store, &upload, 3, &parts[2]).await);
    let etags: Vec<_> = etags.iter().map(|etag| ETag::new(etag.as_str())).collect();
    let size = parts.concat().len() as u64;
    let joined = other.join_parts(&remembered, &etags, size).await;
    let joined = joined.expect("the parts are whole");
    assert_eq!(stat(store, upload.key.into()).await, joined);
    assert!(read(store, upload.key.into()).await == parts.concat());
    let again = store.join_parts(&upload, &etags, size).await;
    assert_eq!(again.expect("it is joined"), joined);
}

/// An upload that is joined is joined as often as it takes, takes no part any more, and stays when it is given up.
pub async fn joining_again_tells_the_same(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, 100]).await;
    let told = upload.joined(store).await;
    for _ in 0..2 {
        assert_eq!(upload.join(store).await.expect("it is joined"), told);
    }
    let other_size = store.join_parts(&upload.upload, &upload.etags, 100).await;
    assert!(is_gone(&other_size, &upload.upload), "{other_size:?}");
    let late = store.put_part(&upload.upload, 1, Bytes::from_static(b"late"));
    let late = late.await;
    assert!(is_gone(&late, &upload.upload), "{late:?}");
    let aborted = store.abort_parts(&upload.upload).await;
    aborted.expect("an upload that is gone is given up");
    upload.joined(store).await;
}

/// Of several calls at once that join the same parts every one succeeds.
pub async fn racing_joins_agree(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, 100]).await;
    let outcomes = tokio::join!(upload.join(store), upload.join(store), upload.join(store));
    let told = upload.joined(store).await;
    for outcome in [outcomes.0, outcomes.1, outcomes.2] {
        match outcome {
            Ok(stat) => assert_eq!(stat, told),
            // A store may not do the same thing twice at once; asking again succeeds.
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// A part that is written again is the one that counts, also when it has fewer bytes.
pub async fn a_part_written_again_counts(store: &dyn BundleStore) {
    let mut upload = Parted::write(store, &[PART_BYTES, 100]).await;
    let old = upload.etags.clone();
    for (number, part) in [(1, unique(PART_BYTES)), (2, unique(60)), (2, unique(80))] {
        let index = usize::try_from(number - 1).expect("it is small");
        upload.etags[index] = put(store, &upload.upload, number, &part).await;
        upload.parts[index] = part;
    }
    let refused = store
        .join_parts(&upload.upload, &old, (PART_BYTES + 100) as u64)
        .await;
    let is_changed = matches!(refused, Err(StoreError::Changed { .. }));
    assert!(is_changed, "{refused:?}");
    upload.ensure_open(store).await;
    upload.joined(store).await;
}

/// Parts are joined by what was told of them, or not at all.
pub async fn parts_other_than_those_told_are_not_joined(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, PART_BYTES]).await;
    let [one, two] = [&upload.etags[0], &upload.etags[1]];
    for (told, len) in [
        (vec![two, one], 2 * PART_BYTES),
        (vec![one, one], 2 * PART_BYTES),
        (vec![one, &ETag::new("")], 2 * PART_BYTES),
        (
            vec![&ETag::new("00000000000000000000000000000000"), two],
            2 * PART_BYTES,
        ),
        (vec![one, two, two], 3 * PART_BYTES),
        (vec![two], PART_BYTES),
        // There is another part.
        (vec![one], PART_BYTES),
    ] {
        let told: Vec<_> = told.into_iter().cloned().collect();
        let refused = store.join_parts(&upload.upload, &told, len as u64).await;
        let is_changed = matches!(refused, Err(StoreError::Changed { .. }));
        assert!(is_changed, "{told:?}: {refused:?}");
        upload.ensure_open(store).await;
    }
    upload.joined(store).await;
}

/// Parts of another size than is told are not joined.
pub async fn the_parts_have_the_size_that_is_told(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, 100]).await;
    let actual = upload.size();
    for expected in [0, 1, actual - 1, actual + 1, u64::MAX] {
        let refused = store
            .join_parts(&upload.upload, &upload.etags, expected)
            .await;
        let is_wrong = matches!(refused, Err(StoreError::WrongSize { expected: told, actual: came, .. })
            if (told, came) == (expected, actual));
        assert!(is_wrong, "{expected}: {refused:?}");
        upload.ensure_open(store).await;
    }
    upload.joined(store).await;
}

/// Parts that leave gaps are not joined, nor is none.
pub async fn only_the_last_part_may_be_short(store: &dyn BundleStore) {
    let mut upload = Parted::write(store, &[PART_BYTES - 1, 100]).await;
    let refused = upload.join(store).await;
    let is_refused = matches!(refused, Err(StoreError::Failed { .. }));
    assert!(is_refused, "{refused:?}");
    for size in [0, 1] {
        let none = store.join_parts(&upload.upload, &[], size).await;
        assert!(none.is_err(), "{none:?}");
    }
    upload.ensure_open(store).await;
    upload.parts[0] = unique(PART_BYTES);
    upload.etags[0] = put(store, &upload.upload, 1, &upload.parts[0]).await;
    upload.joined(store).await;
}

/// A part that is too large, empty or out of the numbers is refused, and changes nothing.
pub async fn a_part_that_is_none_is_refused(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, 100]).await;
    for (number, len) in [
        (0, 1),
        (10_001, 1),
        (u32::MAX, 1),
        (1, 0),
        (1, PART_BYTES + 1),
    ] {
        let part = Bytes::from(unique(len));
        let refused = store.put_part(&upload.upload, number, part).await;
        let is_refused = matches!(refused, Err(StoreError::Failed { .. }));
        assert!(is_refused, "{len} bytes as {number}: {refused:?}");
    }
    upload.joined(store).await;
    let upload = begin(store).await;
    put(store, &upload, 10_000, b"the last one there can be").await;
    let aborted = store.abort_parts(&upload).await;
    aborted.expect("an upload can be given up");
}

/// Nothing is begun for a key that is taken, and what took it meanwhile stays.
pub async fn a_taken_key_is_not_joined_over(store: &dyn BundleStore) {
    let (key, told) = stage(store, &unique(100)).await;
    let refused = store.begin_parts(key, CONTENT_TYPE).await;
    let is_taken = matches!(refused, Err(StoreError::Exists { .. }));
    assert!(is_taken, "{refused:?}");
    assert_eq!(stat(store, key.into()).await, told);

    for len in [100, 101] {
        let upload = Parted::write(store, &[100]).await;
        let key = upload.upload.key;
        let mut faster = store
            .stage(key, CONTENT_TYPE, len as u64)
            .await
            .expect("the key is free");
        let written = faster.write(Bytes::from(unique(len))).await;
        written.expect("bytes are taken");
        let told = faster.finish().await.expect("the upload is whole");
        let refused = upload.join(store).await;
        let is_taken = matches!(refused, Err(StoreError::Exists { .. }));
        assert!(is_taken, "{refused:?}");
        assert_eq!(stat(store, key.into()).await, told);
        store
            .abort_parts(&upload.upload)
            .await
            .expect("an upload can be given up");
        assert_eq!(unfinished(store, &upload.upload).await, None);
        assert_eq!(stat(store, key.into()).await, told);
    }
}

/// An upload that isn't there takes no parts and is not joined, whatever it is called; it is given up already.
pub async fn an_upload_in_parts_that_is_gone_is_not_found(store: &dyn BundleStore) {
    let begun = begin(store).await;
    let other = begin(store).await;
    store
        .abort_parts(&begun)
        .await
        .expect("an upload can be given up");
    let part = unique(100);
    let etag = put(store, &other, 1, &part).await;
    let of = |id: String| PartedUpload { key: begun.key, id };
    for upload in [
        begun.clone(),
        of(other.id.clone()),
        of(String::new()),
        of("0".to_owned()),
        of("../../bundle.tar.zst".to_owned()),
        of(format!("{}\0", other.id)),
        of(format!("{}/../{}", begun.id, begun.id)),
        of(format!("{} ", begun.id)),
        of("0".repeat(1024)),
        of("0".repeat(1025)),
    ] {
        let written = store.put_part(&upload, 1, Bytes::from(part.clone())).await;
        assert!(is_gone(&written, &upload), "{upload:?}: {written:?}");
        let joined = store
            .join_parts(&upload, std::slice::from_ref(&etag), 100)
            .await;
        assert!(is_gone(&joined, &upload), "{upload:?}: {joined:?}");
        store
            .abort_parts(&upload)
            .await
            .expect("an upload that is gone is given up");
    }
    let joined = store.join_parts(&other, &[etag], 100).await;
    joined.expect("the other upload is as it was");
}

/// An upload that is given up leaves nothing, wherever it was.
pub async fn an_upload_in_parts_that_is_given_up_leaves_nothing(store: &dyn BundleStore) {
    for lengths in [&[][..], &[100], &[PART_BYTES, 100]] {
        let upload = Parted::write(store, lengths).await;
        for _ in 0..2 {
            let aborted = store.abort_parts(&upload.upload).await;
            aborted.expect("an upload can be given up");
            assert_eq!(unfinished(store, &upload.upload).await, None);
            ensure_invisible(store, &upload.upload).await;
        }
        let written = store.put_part(&upload.upload, 1, Bytes::from_static(b"late"));
        assert!(is_gone(&written.await, &upload.upload));
        wait_until_gone(store, upload.upload.key).await;
    }
}

/// An upload in parts that nobody joins is found by its age and aborted; a younger one is not touched.
pub async fn an_unfinished_upload_in_parts_is_found_and_aborted(store: &dyn BundleStore) {
    let upload = Parted::write(store, &[PART_BYTES, 100]).await;
    let found = unfinished(store, &upload.upload).await;
    let found = found.expect("an upload that goes on is in the list");
    let older = store
        .unfinished(found.started, 1000)
        .await
        .expect("unfinished uploads can be listed");
    assert!(!older.contains(&found));
    for _ in 0..2 {
        let aborted = store.abort_unfinished(&found).await;
        aborted.expect("an unfinished upload can be aborted");
    }
    assert_eq!(unfinished(store, &upload.upload).await, None);
    let joined = upload.join(store).await;
    assert!(is_gone(&joined, &upload.upload), "{joined:?}");
    ensure_invisible(store, &upload.upload).await;
}
