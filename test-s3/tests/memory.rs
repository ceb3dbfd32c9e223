//! What the server in memory promises to those who test with it.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests may fail like the tests themselves"
)]

use std::io::Write as _;

use alga_test_s3::{MemoryServer, TestBucket};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart};

const PART: usize = MemoryServer::MIN_PART_BYTES;

/// A bucket, and whoever asks its server.
struct Asked {
    bucket: TestBucket,
    client: Client,
}

impl Asked {
    async fn new() -> Self {
        let bucket = TestBucket::in_memory().await;
        let client = bucket.client();
        Self { bucket, client }
    }

    fn name(&self) -> &str {
        &self.bucket.name
    }

    /// Writes an object unless the key is taken.
    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), String> {
        let put = self.client.put_object().bucket(self.name()).key(key);
        let put = put.if_none_match("*").body(bytes.into()).send().await;
        put.map(drop).map_err(|error| code(&error))
    }

    async fn get(&self, key: &str) -> Vec<u8> {
        let get = self.client.get_object().bucket(self.name()).key(key);
        let object = get.send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    async fn begin(&self, key: &str, checksum: Option<ChecksumAlgorithm>) -> String {
        let begin = self.client.create_multipart_upload().bucket(self.name());
        let begin = begin.key(key).set_checksum_algorithm(checksum);
        begin.send().await.unwrap().upload_id.unwrap()
    }

    /// Writes a part, with a checksum as this client does.
    async fn put_part(
        &self,
        (key, upload): (&str, &str),
        number: i32,
        bytes: Vec<u8>,
    ) -> Result<CompletedPart, String> {
        let put = self.client.upload_part().bucket(self.name()).key(key);
        let put = put
            .upload_id(upload)
            .part_number(number)
            .body(bytes.into())
            .send();
        let part = put.await.map_err(|error| code(&error))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(part.e_tag)
            .set_checksum_crc32(part.checksum_crc32)
            .build())
    }

    /// Makes an object of parts unless the key is taken.
    async fn complete(
        &self,
        (key, upload): (&str, &str),
        parts: Vec<CompletedPart>,
    ) -> Result<(), String> {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(key);
        let complete = complete.upload_id(upload).multipart_upload(parts);
        let completed = complete.if_none_match("*").send().await;
        completed.map(drop).map_err(|error| code(&error))
    }
}

/// What a server calls a refusal.
fn code(error: &impl ProvideErrorMetadata) -> String {
    error.code().unwrap_or("nothing").to_owned()
}

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_meet_at_a_key_one_wins() {
    let asked = Asked::new().await;
    for round in 0..10 {
        let key = round.to_string();
        let [one, two, three] = [1, 2, 3].map(|byte| vec![byte; 50_000]);
        let outcomes = tokio::join!(
            asked.put(&key, one),
            asked.put(&key, two),
            asked.put(&key, three)
        );
        let outcomes = [outcomes.0, outcomes.1, outcomes.2];
        let won: Vec<_> = (1..).zip(&outcomes).filter(|(_, it)| it.is_ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        assert!(asked.get(&key).await.iter().all(|byte| *byte == won[0].0));
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_eq!(outcome, refused("PreconditionFailed"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_uploads_that_are_completed_at_once_one_wins_and_the_others_go_on() {
    let asked = Asked::new().await;
    for round in 0..10 {
        let key = round.to_string();
        let mut uploads = Vec::new();
        for byte in [1, 2] {
            let id = asked.begin(&key, Some(ChecksumAlgorithm::Crc32)).await;
            let part = asked.put_part((&key, &id), 1, vec![byte; 1000]).await;
            uploads.push((id, vec![part.unwrap()]));
        }
        let [one, two] = &uploads[..] else {
            unreachable!()
        };
        let outcomes = tokio::join!(
            asked.complete((&key, &one.0), one.1.clone()),
            asked.complete((&key, &two.0), two.1.clone())
        );
        let (won, lost) = match outcomes {
            (Ok(()), refusal) => (1, (refusal, two)),
            (refusal, Ok(())) => (2, (refusal, one)),
            outcomes => panic!("{outcomes:?}"),
        };
        assert_eq!(lost.0, refused("PreconditionFailed"));
        assert_eq!(asked.get(&key).await, vec![won; 1000]);
        let delete = asked.client.delete_object().bucket(asked.name()).key(&key);
        delete.send().await.unwrap();
        let (id, parts) = lost.1;
        asked.complete((&key, id), parts.clone()).await.unwrap();
        let again = asked.complete((&key, id), parts.clone()).await;
        assert_eq!(again, refused("NoSuchUpload"));
    }
}

#[tokio::test]
async fn a_streamed_body_arrives_with_the_checksum_behind_it() {
    let asked = Asked::new().await;
    let bytes = [1, 2, 3].repeat(100_000);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    // A body that is not in memory is sent in signed chunks, with a trailer.
    let body = ByteStream::from_path(file.path()).await.unwrap();
    let put = asked.client.put_object().bucket(asked.name()).key("key");
    let put = put.body(body).send().await.unwrap();
    assert!(put.checksum_crc32.is_some());
    assert_eq!(asked.get("key").await, bytes);
    let head = asked.client.head_object().bucket(asked.name()).key("key");
    let head = head.checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_crc32, put.checksum_crc32);
    assert_eq!(head.content_length, Some(300_000));
    // How it was sent is nothing that the object has.
    assert_eq!(head.content_encoding, None);
}

#[tokio::test]
async fn bytes_with_another_checksum_are_refused_and_leave_nothing() {
    let asked = Asked::new().await;
    let put = asked.client.put_object().bucket(asked.name()).key("key");
    let put = put.checksum_crc32("AAAAAA==").body(vec![1; 10].into());
    let refusal = put.send().await.unwrap_err();
    assert_eq!(code(&refusal), "BadDigest");
    assert_eq!(asked.bucket.contents().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn the_parts_of_an_upload_have_the_checksum_it_was_begun_with() {
    let asked = Asked::new().await;
    let with = asked.begin("key", Some(ChecksumAlgorithm::Crc32)).await;
    let without = asked.begin("key", None).await;
    let put = asked.put_part(("key", &without), 1, vec![1; 10]).await;
    assert_eq!(put.unwrap_err(), "InvalidRequest");
    let put = asked.put_part(("key", &with), 1, vec![1; 10]).await;
    let part = put.unwrap();
    let number = || CompletedPart::builder().part_number(1);
    let etag = part.e_tag().unwrap();
    for (told, refusal) in [
        (number().e_tag(etag), "InvalidRequest"),
        (
            number().e_tag(etag).checksum_crc32("AAAAAA=="),
            "InvalidPart",
        ),
        (
            number()
                .e_tag("00")
                .checksum_crc32(part.checksum_crc32().unwrap()),
            "InvalidPart",
        ),
    ] {
        let completed = asked.complete(("key", &with), vec![told.build()]).await;
        assert_eq!(completed, refused(refusal));
    }
    asked.complete(("key", &with), vec![part]).await.unwrap();
    let head = asked.client.head_object().bucket(asked.name()).key("key");
    let head = head.checksum_mode(ChecksumMode::Enabled);
    let checksum = head.send().await.unwrap().checksum_crc32.unwrap();
    // The checksum of checksums tells nothing of the whole, so nobody may take it for that.
    assert!(checksum.ends_with("-1"), "{checksum}");
    assert_eq!(asked.get("key").await, [1; 10]);
}

#[tokio::test]
async fn only_the_last_part_may_be_short() {
    let asked = Asked::new().await;
    for (lens, expected) in [
        (&[PART - 1, 1][..], refused("EntityTooSmall")),
        (&[PART, 1], Ok(())),
        (&[], refused("MalformedXML")),
    ] {
        let id = asked.begin("key", Some(ChecksumAlgorithm::Crc32)).await;
        let mut parts = Vec::new();
        for (number, len) in (1..).zip(lens) {
            let part = asked.put_part(("key", &id), number, vec![1; *len]).await;
            parts.push(part.unwrap());
        }
        assert_eq!(asked.complete(("key", &id), parts).await, expected);
    }
    assert_eq!(asked.get("key").await.len(), PART + 1);
}

#[tokio::test]
async fn a_copy_is_bound_to_the_state_of_its_source() {
    let asked = Asked::new().await;
    asked.put("from", vec![1; 10]).await.unwrap();
    let copy = |etag: &str| {
        let copy = asked.client.copy_object().bucket(asked.name()).key("to");
        copy.copy_source(format!("{}/from", asked.name()))
            .copy_source_if_match(etag)
            .send()
    };
    let refusal = copy("\"00\"").await.unwrap_err();
    assert_eq!(code(&refusal), "PreconditionFailed");
    let head = asked.client.head_object().bucket(asked.name()).key("from");
    let etag = head.send().await.unwrap().e_tag.unwrap();
    copy(&etag).await.unwrap();
    assert_eq!(asked.get("to").await, [1; 10]);
}

#[tokio::test]
async fn a_read_may_ask_for_a_range_and_for_a_state() {
    let asked = Asked::new().await;
    asked.put("key", (0..10).collect()).await.unwrap();
    let get = || asked.client.get_object().bucket(asked.name()).key("key");
    let part = get().range("bytes=2-4").send().await.unwrap();
    assert_eq!(part.content_range.as_deref(), Some("bytes 2-4/10"));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), [2, 3, 4]);
    let etag = part.e_tag.unwrap();
    get().if_match(etag).send().await.unwrap();
    let other = get().if_match("\"00\"").send().await.unwrap_err();
    assert_eq!(code(&other), "PreconditionFailed");
    let behind = get().range("bytes=10-").send().await.unwrap_err();
    assert_eq!(code(&behind), "InvalidRange");
}

#[tokio::test]
async fn lists_come_in_pages_that_go_on() {
    let bucket = TestBucket::in_memory_with_pages_of(2).await;
    let client = bucket.client();
    let expected = ["a/1", "a/2", "a/3", "a/4", "a/5"];
    for key in expected.into_iter().chain(["0", "b"]) {
        let put = client.put_object().bucket(&bucket.name).key(key);
        put.send().await.unwrap();
    }
    let (mut token, mut keys, mut pages) = (None, Vec::new(), 0);
    loop {
        let list = client.list_objects_v2().bucket(&bucket.name).prefix("a/");
        let page = list.set_continuation_token(token).send().await.unwrap();
        let page_keys = page.contents.unwrap_or_default().into_iter();
        keys.extend(page_keys.filter_map(|object| object.key));
        pages += 1;
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!((pages, &keys[..]), (3, &expected.map(str::to_owned)[..]));
}

#[tokio::test]
async fn whoever_signs_with_another_key_is_refused() {
    let bucket = TestBucket::in_memory().await;
    for (other, expected) in [
        (
            bucket.signed_with(MemoryServer::ACCESS_KEY, "wrong"),
            "SignatureDoesNotMatch",
        ),
        (
            bucket.signed_with("nobody", MemoryServer::SECRET_KEY),
            "InvalidAccessKeyId",
        ),
    ] {
        let put = other.client().put_object().bucket(&bucket.name).key("key");
        let refusal = put.body(vec![1].into()).send().await.unwrap_err();
        assert_eq!(code(&refusal), expected);
    }
    assert_eq!(bucket.contents().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_the_server_does_not_do_is_refused() {
    let asked = Asked::new().await;
    let put = asked.client.put_object().bucket(asked.name()).key("key");
    let put = put.if_match("\"00\"").body(vec![1].into());
    assert_eq!(code(&put.send().await.unwrap_err()), "NotImplemented");
    let list = asked.client.list_objects_v2().bucket(asked.name());
    let listed = list.delimiter("/").send().await;
    assert_eq!(code(&listed.unwrap_err()), "NotImplemented");
    let tags = asked.client.get_object_tagging().bucket(asked.name());
    let tags = tags.key("key").send().await;
    assert_eq!(code(&tags.unwrap_err()), "NotImplemented");
}

#[tokio::test]
async fn a_server_is_gone_with_the_last_who_has_its_bucket() {
    let bucket = TestBucket::in_memory().await;
    let (client, name) = (bucket.client(), bucket.name.clone());
    let clone = bucket.clone();
    drop(bucket);
    let list = || client.list_objects_v2().bucket(&name).send();
    list().await.unwrap();
    drop(clone);
    let mut patience = 100;
    while list().await.is_ok() {
        assert!(patience > 0, "the server stays");
        patience -= 1;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
