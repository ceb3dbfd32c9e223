//! What only a server shows that keeps every promise of S3: conditions that hold, and lists in small pages.

use alga_bundles::{
    BundleStore, ObjectKey, PART_BYTES, PartedUpload, S3Checksums, StagedUpload, StagingKey, Stat,
    StoreError, suite,
};
use alga_test_s3::TestBucket;
use bytes::Bytes;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::InMemory;

/// Who meets under one key.
const RACERS: u8 = 6;

/// A race whose outcomes are to come: of everybody, the byte that its object is full of.
type Race = JoinSet<(u8, Result<Stat, StoreError>)>;

/// Buckets for stores without checksums and with them.
async fn buckets() -> [TestBucket; 2] {
    [
        TestBucket::in_memory().await,
        TestBucket::in_memory()
            .await
            .with(S3Checksums::WhenSupported),
    ]
}

/// One of all has stored its object, and nothing that came later replaced it.
async fn ensure_one_won(race: Race, bucket: &TestBucket, key: StagingKey, size: usize) {
    let mut won = Vec::new();
    for (byte, outcome) in race.join_all().await {
        match outcome {
            Ok(stat) => won.push((byte, stat)),
            Err(StoreError::Exists { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let [(byte, told)] = &won[..] else {
        panic!("{} of {size} bytes have won", won.len());
    };
    let store = bucket.store();
    assert_eq!(store.stat(key.into()).await.unwrap().as_ref(), Some(told));
    let kept = store.read(key.into(), size as u64).await.unwrap();
    assert!(kept == vec![*byte; size], "another one has replaced it");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_uploads_that_are_finished_in_the_same_moment_one_wins() {
    for bucket in buckets().await {
        for size in [1000, PART_BYTES + 1000] {
            let (store, key) = (bucket.store(), StagingKey::new(Uuid::new_v4()));
            let mut uploads: Vec<(u8, Box<dyn StagedUpload>)> = Vec::new();
            for byte in 0..RACERS {
                let mut upload = store.stage(key, "", size as u64).await.unwrap();
                upload.write(vec![byte; size].into()).await.unwrap();
                uploads.push((byte, upload));
            }
            let mut race = Race::new();
            for (byte, upload) in uploads {
                race.spawn(async move { (byte, upload.finish().await) });
            }
            ensure_one_won(race, &bucket, key, size).await;
            store.settle().await;
            let (objects, unfinished) = bucket.contents().await;
            assert!(objects.contains(&key.to_string()) && unfinished.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_uploads_that_are_joined_in_the_same_moment_one_wins_and_the_others_go_on() {
    for bucket in buckets().await {
        let (store, key) = (bucket.store(), StagingKey::new(Uuid::new_v4()));
        let mut uploads: Vec<PartedUpload> = Vec::new();
        let mut race = Race::new();
        let mut ready = Vec::new();
        for byte in 0..RACERS {
            let upload = store.begin_parts(key, "").await.unwrap();
            let part = Bytes::from(vec![byte; 1000]);
            let etags = vec![store.put_part(&upload, 1, part).await.unwrap()];
            uploads.push(upload.clone());
            ready.push((byte, upload, etags));
        }
        for (byte, upload, etags) in ready {
            let store = store.clone();
            race.spawn(async move { (byte, store.join_parts(&upload, &etags, 1000).await) });
        }
        ensure_one_won(race, &bucket, key, 1000).await;
        let (objects, unfinished) = bucket.contents().await;
        assert_eq!(objects, [key.to_string()]);
        assert_eq!(unfinished.len(), usize::from(RACERS) - 1);
        for upload in uploads {
            store.abort_parts(&upload).await.unwrap();
        }
        assert!(bucket.contents().await.1.is_empty());
    }
}

#[tokio::test]
async fn what_is_listed_in_small_pages_is_listed_whole() {
    for page in [1, 2] {
        let bucket = TestBucket::in_memory_with_pages_of(page).await;
        let store = InMemory::of(bucket);
        suite::a_list_is_read_in_pages(&*store).await;
        suite::a_list_has_every_object_of_its_kind(&*store).await;
    }
}

#[tokio::test]
async fn parts_that_are_listed_in_small_pages_are_joined_all() {
    for page in [1, 2] {
        let bucket = TestBucket::in_memory_with_pages_of(page).await;
        let store = InMemory::of(bucket.with(S3Checksums::WhenSupported));
        suite::an_upload_in_parts_reads_back(&*store).await;
        suite::parts_other_than_those_told_are_not_joined(&*store).await;
    }
}

#[tokio::test]
async fn unfinished_uploads_that_are_listed_in_small_pages_are_found_all() {
    for page in [1, 2] {
        let bucket = TestBucket::in_memory_with_pages_of(page).await;
        let store = bucket.store();
        // Several under one key, so that a page ends between them.
        let keys = [1, 2, 3, 4].map(|count| (StagingKey::new(Uuid::new_v4()), count));
        let mut begun = Vec::new();
        for (key, count) in keys {
            for _ in 0..count {
                store.begin_parts(key, "").await.unwrap();
                begun.push(Some(key.into()));
            }
        }
        let far_ahead = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 33);
        let found = store.unfinished(far_ahead, 100).await.unwrap();
        let mut keys: Vec<_> = found.iter().map(|upload| upload.key).collect();
        keys.sort_by_key(|key| key.as_ref().map(ToString::to_string));
        begun.sort_by_key(|key: &Option<ObjectKey>| key.as_ref().map(ToString::to_string));
        assert_eq!(keys, begun);
        assert_eq!(store.unfinished(far_ahead, 3).await.unwrap().len(), 3);
        for upload in found {
            store.abort_unfinished(&upload).await.unwrap();
        }
        assert_eq!(store.unfinished(far_ahead, 100).await.unwrap(), []);
    }
}
