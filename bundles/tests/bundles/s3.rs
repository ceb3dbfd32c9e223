//! Buckets of a real server and of one that keeps every promise of S3, and ways to them that fail.

/// Makes each function a test on every server: the real one, and that of the test's own process, for stores
/// that send no checksums and for those that do.
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => {
        $(
            mod $test {
                use alga_bundles::S3Checksums;
                use alga_test_s3::TestBucket;

                #[tokio::test]
                async fn radosgw() {
                    if let Some(bucket) = TestBucket::create().await {
                        super::$test(bucket).await;
                    }
                }

                #[tokio::test]
                async fn memory() {
                    super::$test(TestBucket::in_memory().await).await;
                }

                #[tokio::test]
                async fn memory_with_checksums() {
                    let bucket = TestBucket::in_memory().await;
                    super::$test(bucket.with(S3Checksums::WhenSupported)).await;
                }
            }
        )+
    };
}

mod parts;
mod strict;

use std::ops::Deref;
use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use alga_bundles::{
    BundleStore, Content, ObjectKey, S3Checksums, S3Settings, S3Store, StagedUpload, StagingKey,
    StoreError, bundle_store_suite,
};
use alga_model::{ContentHash, Secret};
use alga_test_s3::{Fault, Proxy, TestBucket};
use bytes::Bytes;
use uuid::Uuid;

bundle_store_suite!(radosgw, async {
    let bucket = TestBucket::create().await;
    bucket.map(|bucket| Box::new(bucket.store()))
});

bundle_store_suite!(memory, async {
    let bucket = TestBucket::in_memory().await;
    Some(InMemory::of(bucket))
});

bundle_store_suite!(memory_with_checksums, async {
    let bucket = TestBucket::in_memory().await;
    Some(InMemory::of(bucket.with(S3Checksums::WhenSupported)))
});

on_every_server!(
    an_upload_that_is_cut_off_is_unavailable_and_leaves_nothing,
    an_upload_whose_answers_are_lost_is_unavailable_and_leaves_nothing,
    an_upload_whose_last_answer_is_lost_is_found_to_be_stored,
    an_upload_that_fails_removes_nothing_of_another_under_its_key,
    an_upload_whose_id_is_lost_ends_no_other_under_its_key,
    what_took_the_place_of_an_upload_that_nobody_wants_stays,
    a_server_that_does_not_answer_keeps_nobody_waiting_for_a_clean_up,
    giving_up_what_has_failed_waits_until_nothing_of_it_is_left,
    an_upload_over_a_slow_way_arrives,
    a_read_that_is_cut_off_is_unavailable_and_never_short,
    a_read_of_which_nothing_more_comes_is_unavailable_as_soon_as_is_set,
    a_store_out_of_reach_is_unavailable_whatever_it_is_asked,
    a_check_tells_what_is_configured_wrongly_and_no_secret,
    a_check_leaves_nothing,
    an_upload_keeps_its_content_type_unless_that_is_none,
    what_others_keep_in_the_bucket_is_not_listed_and_does_not_hide_what_is,
);

/// A store, and the bucket that its server is gone with.
struct InMemory {
    store: S3Store,
    _bucket: TestBucket,
}

impl InMemory {
    fn of(bucket: TestBucket) -> Self {
        Self {
            store: bucket.store(),
            _bucket: bucket,
        }
    }
}

impl Deref for InMemory {
    type Target = S3Store;

    fn deref(&self) -> &S3Store {
        &self.store
    }
}

/// A bucket, and a store that reaches it by a way that can be obstructed.
struct Obstructed {
    bucket: TestBucket,
    proxy: Proxy,
    store: S3Store,
}

impl Obstructed {
    async fn new(bucket: TestBucket) -> Self {
        let proxy = Proxy::before(&bucket.endpoint).await;
        let store = S3Store::new(S3Settings {
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(3),
            ..bucket.at(proxy.url()).settings()
        });
        Self {
            bucket,
            proxy,
            store,
        }
    }

    async fn upload(&self, len: usize, fault: Fault) -> Result<(), StoreError> {
        let key = StagingKey::new(Uuid::new_v4());
        let mut upload = self
            .store
            .stage(key, "application/zstd", len as u64)
            .await?;
        self.proxy.set(fault);
        for chunk in vec![7; len].chunks(1 << 20) {
            upload.write(Bytes::copy_from_slice(chunk)).await?;
        }
        upload.finish().await.map(drop)
    }

    /// An upload of which more than a part is written, and which has begun in the bucket therefore.
    async fn begun(&self, store: &S3Store, key: StagingKey, len: u64) -> Box<dyn StagedUpload> {
        let mut upload = store.stage(key, "application/zstd", len).await.unwrap();
        let (_, before) = self.bucket.contents().await;
        upload.write(vec![7; 6 << 20].into()).await.unwrap();
        let mut patience = 300;
        while self.bucket.contents().await.1.len() == before.len() {
            assert!(patience > 0, "the upload does not begin");
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        upload
    }

    /// Removes what was begun and not finished, as a sweep does; objects there are none.
    async fn sweep(&self) {
        self.proxy.set(Fault::None);
        self.store.settle().await;
        let (objects, uploads) = self.bucket.contents().await;
        assert!(objects.is_empty() && !uploads.is_empty(), "{objects:?}");
        let far_ahead = UNIX_EPOCH + Duration::from_secs(1 << 33);
        for upload in self.store.unfinished(far_ahead, 100).await.unwrap() {
            self.store.abort_unfinished(&upload).await.unwrap();
        }
    }

    /// Waits until the bucket has nothing, not even an upload that was begun.
    async fn wait_until_empty(&self) {
        let mut patience = 300;
        loop {
            let (objects, uploads) = self.bucket.contents().await;
            if objects.is_empty() && uploads.is_empty() {
                return;
            }
            assert!(patience > 0, "{objects:?} and {uploads:?} stay");
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_unavailable<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(error) if error.is_transient())
}

async fn an_upload_that_is_cut_off_is_unavailable_and_leaves_nothing(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    for (len, cut) in [
        (1000, 0),
        (1000, 500),
        (12 << 20, 0),
        (12 << 20, 2 << 20),
        (12 << 20, 7 << 20),
        (12 << 20, (12 << 20) + 2000),
    ] {
        let outcome = way.upload(len, Fault::CutAsked(cut)).await;
        assert!(
            is_unavailable(&outcome),
            "{len} bytes, cut at {cut}: {outcome:?}"
        );
        way.proxy.set(Fault::None);
        way.wait_until_empty().await;
    }
}

async fn an_upload_whose_answers_are_lost_is_unavailable_and_leaves_nothing(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    for len in [1000, 12 << 20] {
        let outcome = way.upload(len, Fault::AnswersLost).await;
        assert!(is_unavailable(&outcome), "{len} bytes: {outcome:?}");
        way.proxy.set(Fault::None);
        if len > 5 << 20 {
            // Nobody knows whose those are whose ids were lost.
            way.sweep().await;
        }
        way.wait_until_empty().await;
    }
}

async fn an_upload_whose_last_answer_is_lost_is_found_to_be_stored(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    way.upload(1000, Fault::AnswersLostTo("PUT")).await.unwrap();
    way.proxy.set(Fault::None);
    let key = StagingKey::new(Uuid::new_v4());
    let upload = way.begun(&way.store, key, 6 << 20).await;
    way.proxy.set(Fault::AnswersLostTo("POST"));
    let stat = upload.finish().await.unwrap();
    assert_eq!(
        way.bucket.store().stat(key.into()).await.unwrap(),
        Some(stat)
    );
}

async fn an_upload_that_fails_removes_nothing_of_another_under_its_key(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let key = StagingKey::new(Uuid::new_v4());
    let mut one = way.store.stage(key, "", 100_000).await.unwrap();
    one.write(vec![1; 100_000].into()).await.unwrap();
    // Its look at the key passes, its bytes do not.
    way.proxy.set(Fault::CutAsked(20_000));
    assert!(is_unavailable(&one.finish().await));
    let mut two = way.bucket.store().stage(key, "", 10).await.unwrap();
    two.write(vec![2; 10].into()).await.unwrap();
    let stat = two.finish().await.unwrap();
    way.proxy.set(Fault::None);
    way.store.settle().await;
    assert_eq!(way.store.stat(key.into()).await.unwrap(), Some(stat));
}

async fn an_upload_whose_id_is_lost_ends_no_other_under_its_key(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let key = StagingKey::new(Uuid::new_v4());
    let mut one = way.store.stage(key, "", 12 << 20).await.unwrap();
    let two = way.begun(&way.bucket.store(), key, 6 << 20).await;
    way.proxy.set(Fault::AnswersLostTo("POST"));
    while one.write(vec![1; 1 << 20].into()).await.is_ok() {}
    way.proxy.set(Fault::None);
    one.abort().await.unwrap();
    two.finish().await.unwrap();
}

async fn what_took_the_place_of_an_upload_that_nobody_wants_stays(bucket: TestBucket) {
    let (store, key) = (bucket.store(), StagingKey::new(Uuid::new_v4()));
    let mut upload = store.stage(key, "", 10).await.unwrap();
    upload.write(vec![1; 10].into()).await.unwrap();
    let mut finish = Box::pin(upload.finish());
    let polled = std::future::poll_fn(|context| Poll::Ready(finish.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    while store.stat(key.into()).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (client, other) = (bucket.client(), vec![2; 20]);
    let put = client.put_object().bucket(&bucket.name);
    let put = put.key(key.to_string()).body(other.clone().into());
    put.send().await.unwrap();
    drop(finish);
    store.settle().await;
    assert_eq!(store.read(key.into(), 100).await.unwrap(), other);
}

async fn a_server_that_does_not_answer_keeps_nobody_waiting_for_a_clean_up(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let key = StagingKey::new(Uuid::new_v4());
    let upload = way.begun(&way.store, key, 12 << 20).await;
    way.proxy.set(Fault::HoldAnswers(0));
    let patience = Duration::from_secs(15);
    let finished = tokio::time::timeout(patience, upload.finish()).await;
    let refused = finished.expect("the answer does not wait for the clean-up");
    assert!(
        matches!(refused, Err(StoreError::WrongSize { .. })),
        "{refused:?}"
    );
    way.proxy.set(Fault::None);
    way.store.settle().await;
    assert_eq!(way.bucket.contents().await, (Vec::new(), Vec::new()));
}

async fn giving_up_what_has_failed_waits_until_nothing_of_it_is_left(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let key = StagingKey::new(Uuid::new_v4());
    let mut upload = way.begun(&way.store, key, 40 << 20).await;
    way.proxy.set(Fault::CutAsked(0));
    while upload.write(vec![7; 1 << 20].into()).await.is_ok() {}
    way.proxy.set(Fault::None);
    upload.abort().await.unwrap();
    assert_eq!(way.bucket.contents().await, (Vec::new(), Vec::new()));
}

async fn an_upload_over_a_slow_way_arrives(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let slow = Fault::Slow(Duration::from_millis(1));
    way.upload(12 << 20, slow).await.unwrap();
    let (objects, uploads) = way.bucket.contents().await;
    assert_eq!((objects.len(), uploads.len()), (1, 0));
}

async fn a_read_that_is_cut_off_is_unavailable_and_never_short(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let bytes = vec![7; 3 << 20];
    let key = ObjectKey::Bundle(ContentHash::of(&bytes));
    way.store.create(key, Content::Bytes(&bytes)).await.unwrap();
    for cut in [0, 100, 1 << 20, 3 << 20] {
        way.proxy.set(Fault::CutAnswers(cut));
        let outcome = way.store.read(key, 4 << 20).await;
        assert!(is_unavailable(&outcome), "cut at {cut}");
    }
    way.proxy.set(Fault::None);
    assert!(way.store.read(key, 4 << 20).await.unwrap() == bytes);
}

async fn a_read_of_which_nothing_more_comes_is_unavailable_as_soon_as_is_set(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let bytes = vec![7; 3 << 20];
    let key = ObjectKey::Bundle(ContentHash::of(&bytes));
    way.store.create(key, Content::Bytes(&bytes)).await.unwrap();
    let store = S3Store::new(S3Settings {
        stall: Duration::from_millis(100),
        ..way.bucket.at(way.proxy.url()).settings()
    });
    way.proxy.set(Fault::HoldAnswers(1 << 20));
    let read = tokio::time::timeout(Duration::from_secs(20), store.read(key, 4 << 20));
    assert!(is_unavailable(&read.await.expect("a read is given up")));
}

async fn a_store_out_of_reach_is_unavailable_whatever_it_is_asked(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    way.proxy.set(Fault::Refused);
    let key = ObjectKey::Check(Uuid::new_v4());
    assert!(is_unavailable(&way.store.stat(key).await));
    assert!(is_unavailable(&way.store.open(key).await));
    assert!(is_unavailable(&way.store.remove(key).await));
    assert!(is_unavailable(&way.store.check().await));
    let created = way.store.create(key, Content::Bytes(b"check")).await;
    assert!(is_unavailable(&created));
}

async fn a_check_tells_what_is_configured_wrongly_and_no_secret(bucket: TestBucket) {
    let settings = bucket.settings();
    let secret = "a-secret-that-is-wrong";
    for (wrong, advice) in [
        (
            S3Settings {
                secret_key: Secret::new(secret.to_owned()),
                ..settings.clone()
            },
            "the secret key does not belong to the access key",
        ),
        (
            S3Settings {
                access_key: Secret::new("nobody".to_owned()),
                ..settings.clone()
            },
            "does not know this access key",
        ),
        (
            S3Settings {
                bucket: "no-such-bucket".to_owned(),
                ..settings.clone()
            },
            "make the bucket",
        ),
    ] {
        let debug = format!("{wrong:?}");
        let store = S3Store::new(wrong);
        let refused = store.check().await.unwrap_err();
        let StoreError::Failed { source, .. } = &refused else {
            panic!("{refused:?}");
        };
        assert!(source.to_string().contains(advice), "{source}");
        for shown in [
            debug,
            format!("{store:?}"),
            format!("{refused:?}"),
            source.to_string(),
        ] {
            assert!(!shown.contains(secret) && !shown.contains(&bucket.secret_key));
        }
    }
}

async fn a_check_leaves_nothing(bucket: TestBucket) {
    bucket.store().check().await.unwrap();
    assert_eq!(bucket.contents().await, (Vec::new(), Vec::new()));
}

async fn an_upload_keeps_its_content_type_unless_that_is_none(bucket: TestBucket) {
    for (len, told, kept) in [
        (10, "application/x-bundle", "application/x-bundle"),
        (6 << 20, "application/x-bundle", "application/x-bundle"),
        (10, "", "application/octet-stream"),
        (10, "text/plain\r\nx-evil: 1", "application/octet-stream"),
    ] {
        let key = StagingKey::new(Uuid::new_v4());
        let mut upload = bucket.store().stage(key, told, len).await.unwrap();
        let bytes = vec![7; usize::try_from(len).unwrap()];
        upload.write(bytes.into()).await.unwrap();
        upload.finish().await.unwrap();
        let client = bucket.client();
        let head = client
            .head_object()
            .bucket(&bucket.name)
            .key(key.to_string());
        assert_eq!(
            head.send().await.unwrap().content_type.as_deref(),
            Some(kept)
        );
    }
}

async fn what_others_keep_in_the_bucket_is_not_listed_and_does_not_hide_what_is(
    bucket: TestBucket,
) {
    let (client, store) = (bucket.client(), bucket.store());
    for name in [
        "sha256/0-of-others",
        "sha256/_aside/1",
        "sha256/_aside/2",
        "sha256/zzz",
        "others",
    ] {
        let put = client.put_object().bucket(&bucket.name).key(name);
        put.send().await.unwrap();
    }
    let hash = ContentHash::of(b"bundle");
    let keys = [ObjectKey::Bundle(hash), ObjectKey::Manifest(hash)];
    for key in keys {
        store.create(key, Content::Bytes(b"bundle")).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .list(alga_bundles::Listing::Canonical, after.as_ref(), 1)
            .await
            .unwrap();
        listed.extend(page.objects.into_iter().map(|object| object.key));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(listed, keys);
}
