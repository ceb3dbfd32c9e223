//! Uploads whose parts come in calls of their own, over a way that fails.

use alga_bundles::{
    BundleStore, ETag, PART_BYTES, PartedUpload, S3Checksums, S3Settings, S3Store, StagingKey,
    StoreError, suite,
};
use alga_test_s3::{Fault, TestBucket};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use uuid::Uuid;

use super::{Obstructed, is_unavailable};

on_every_server!(
    an_upload_in_parts_goes_on_in_another_process,
    parts_with_checksums_are_joined_by_any_process,
    a_part_that_is_cut_off_is_unavailable_and_is_written_again,
    a_part_whose_answer_is_lost_is_unavailable_and_is_written_again,
    a_join_whose_answer_is_lost_succeeds,
    a_join_out_of_reach_is_unavailable_and_is_repeated,
    what_a_process_joined_before_it_died_is_joined,
    an_upload_in_parts_whose_beginning_is_lost_is_found_by_a_sweep,
    an_upload_in_parts_out_of_reach_is_unavailable_whatever_is_asked,
    an_upload_in_parts_keeps_its_content_type,
);

const SIZE: u64 = PART_BYTES as u64 + 10;

async fn begin(store: &S3Store) -> Result<PartedUpload, StoreError> {
    let key = StagingKey::new(Uuid::new_v4());
    store.begin_parts(key, "application/x-bundle").await
}

fn parts() -> [Bytes; 2] {
    [vec![1; PART_BYTES].into(), vec![2; 10].into()]
}

async fn write(store: &S3Store) -> (PartedUpload, Vec<ETag>) {
    let upload = begin(store).await.unwrap();
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(parts()) {
        etags.push(store.put_part(&upload, number, part).await.unwrap());
    }
    (upload, etags)
}

async fn ensure_whole(store: &S3Store, upload: &PartedUpload) {
    let bytes = store.read(upload.key.into(), SIZE).await.unwrap();
    assert!(bytes == parts().concat());
}

async fn an_upload_in_parts_goes_on_in_another_process(bucket: TestBucket) {
    suite::an_upload_in_parts_goes_on_elsewhere(&bucket.store(), &bucket.store()).await;
}

async fn parts_with_checksums_are_joined_by_any_process(bucket: TestBucket) {
    let with = |checksums| {
        S3Store::new(S3Settings {
            checksums,
            ..bucket.settings()
        })
    };
    let supported = with(S3Checksums::WhenSupported);
    suite::an_upload_in_parts_goes_on_elsewhere(&supported, &supported).await;
    let required = with(S3Checksums::WhenRequired);
    suite::an_upload_in_parts_goes_on_elsewhere(&required, &supported).await;
    suite::an_upload_in_parts_goes_on_elsewhere(&supported, &required).await;
}

async fn a_part_that_is_cut_off_is_unavailable_and_is_written_again(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    for cut in [0, 500, 2 << 20] {
        let upload = begin(&way.store).await.unwrap();
        let [one, two] = parts();
        way.proxy.set(Fault::CutAsked(cut));
        let written = way.store.put_part(&upload, 1, one.clone()).await;
        assert!(is_unavailable(&written), "cut at {cut}: {written:?}");
        way.proxy.set(Fault::None);
        let etags = [
            way.store.put_part(&upload, 1, one).await.unwrap(),
            way.store.put_part(&upload, 2, two).await.unwrap(),
        ];
        way.store.join_parts(&upload, &etags, SIZE).await.unwrap();
        ensure_whole(&way.store, &upload).await;
        way.store.remove(upload.key.into()).await.unwrap();
        way.wait_until_empty().await;
    }
}

async fn a_part_whose_answer_is_lost_is_unavailable_and_is_written_again(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let (upload, mut etags) = write(&way.store).await;
    let [one, _] = parts();
    way.proxy.set(Fault::AnswersLost);
    let written = way.store.put_part(&upload, 1, one.clone()).await;
    assert!(is_unavailable(&written), "{written:?}");
    way.proxy.set(Fault::None);
    etags[0] = way.store.put_part(&upload, 1, one).await.unwrap();
    way.store.join_parts(&upload, &etags, SIZE).await.unwrap();
    ensure_whole(&way.store, &upload).await;
}

async fn a_join_whose_answer_is_lost_succeeds(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let (upload, etags) = write(&way.store).await;
    way.proxy.set(Fault::AnswersLostTo("POST"));
    let joined = way.store.join_parts(&upload, &etags, SIZE).await.unwrap();
    way.proxy.set(Fault::None);
    let stat = way.store.stat(upload.key.into()).await.unwrap();
    assert_eq!(stat, Some(joined));
    ensure_whole(&way.store, &upload).await;
    let (objects, uploads) = way.bucket.contents().await;
    assert_eq!((objects.len(), uploads.len()), (1, 0));
}

async fn a_join_out_of_reach_is_unavailable_and_is_repeated(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let (upload, etags) = write(&way.store).await;
    for fault in [Fault::Refused, Fault::AnswersLost] {
        way.proxy.set(fault);
        let joined = way.store.join_parts(&upload, &etags, SIZE).await;
        assert!(is_unavailable(&joined), "{fault:?}: {joined:?}");
    }
    way.proxy.set(Fault::None);
    way.store.join_parts(&upload, &etags, SIZE).await.unwrap();
    ensure_whole(&way.store, &upload).await;
}

async fn what_a_process_joined_before_it_died_is_joined(bucket: TestBucket) {
    let store = bucket.store();
    let (upload, etags) = write(&store).await;
    let (client, key) = (bucket.client(), upload.key.to_string());
    // What the server calls it is behind its mark and a letter.
    let id = &upload.id[33..];
    let list = client.list_parts().bucket(&bucket.name).key(&key);
    let listed = list.upload_id(id).send().await.unwrap();
    let parts = listed.parts.unwrap().into_iter().map(|part| {
        let number = CompletedPart::builder().set_part_number(part.part_number);
        let told = number.set_e_tag(part.e_tag);
        told.set_checksum_crc32(part.checksum_crc32).build()
    });
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
    let complete = client.complete_multipart_upload().bucket(&bucket.name);
    let complete = complete.key(&key).upload_id(id);
    let complete = complete.multipart_upload(parts.build());
    complete.send().await.unwrap();
    let joined = store.join_parts(&upload, &etags, SIZE).await.unwrap();
    assert_eq!(store.stat(upload.key.into()).await.unwrap(), Some(joined));
}

async fn an_upload_in_parts_whose_beginning_is_lost_is_found_by_a_sweep(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    way.proxy.set(Fault::AnswersLostTo("POST"));
    let begun = begin(&way.store).await;
    assert!(is_unavailable(&begun), "{begun:?}");
    way.sweep().await;
    way.wait_until_empty().await;
}

async fn an_upload_in_parts_out_of_reach_is_unavailable_whatever_is_asked(bucket: TestBucket) {
    let way = Obstructed::new(bucket).await;
    let (upload, etags) = write(&way.store).await;
    way.proxy.set(Fault::Refused);
    let part = Bytes::from_static(b"part");
    assert!(is_unavailable(&begin(&way.store).await));
    assert!(is_unavailable(&way.store.put_part(&upload, 1, part).await));
    let joined = way.store.join_parts(&upload, &etags, SIZE).await;
    assert!(is_unavailable(&joined));
    assert!(is_unavailable(&way.store.abort_parts(&upload).await));
    way.proxy.set(Fault::None);
    way.store.abort_parts(&upload).await.unwrap();
    way.wait_until_empty().await;
}

async fn an_upload_in_parts_keeps_its_content_type(bucket: TestBucket) {
    let store = bucket.store();
    let (upload, etags) = write(&store).await;
    store.join_parts(&upload, &etags, SIZE).await.unwrap();
    let client = bucket.client();
    let head = client
        .head_object()
        .bucket(&bucket.name)
        .key(upload.key.to_string());
    let head = head.send().await.unwrap();
    assert_eq!(head.content_type.as_deref(), Some("application/x-bundle"));
}
