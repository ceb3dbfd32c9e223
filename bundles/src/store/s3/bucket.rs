//! The requests that a store sends, each one once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_parts::ListPartsOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::super::background::Background;
use super::super::{ETag, ObjectKey, StagingKey, Stat};
use super::error::Refusal;
use super::settings::{S3Checksums, S3Settings};

/// Parts that all uploads of a store together have on their way.
const PARTS_IN_FLIGHT: usize = 24;
/// How long a server may take to put an upload together or to copy it, which some do byte by byte.
const LONG: Duration = Duration::from_secs(300);
/// How long a request may take that removes what an upload left.
const SHORT: Duration = Duration::from_secs(5);

/// Tells what one upload writes from what others write under the same key: it is in the metadata of the object.
/// All objects with one mark have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    /// The name of the metadata; the header is `x-amz-meta-upload`.
    const NAME: &str = "upload";
    /// The characters of each.
    pub(super) const LEN: usize = 32;

    pub(super) fn new() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The mark that is spelled like this.
    pub(super) fn known(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An object as a server shows it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) stat: Stat,
    mark: Option<String>,
}

impl Found {
    /// Whether the upload with this mark wrote it.
    pub(super) fn bears(&self, mark: &Mark) -> bool {
        self.mark.as_deref() == Some(mark.as_str())
    }
}

/// A bucket and the client it is reached with.
#[derive(Clone)]
pub(super) struct Bucket {
    client: Client,
    pub(super) settings: Arc<S3Settings>,
    pub(super) parts_in_flight: Arc<Semaphore>,
    pub(super) background: Background,
    /// Whether the server knows the condition that nothing is there yet. Nothing rests on it.
    knows_conditions: Arc<AtomicBool>,
}

impl Bucket {
    pub(super) fn new(settings: S3Settings) -> Self {
        Self {
            client: settings.client(),
            settings: Arc::new(settings),
            parts_in_flight: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
            background: Background::default(),
            knows_conditions: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The bucket for requests that somebody repeats, and waits for: each is sent once and given up soon.
    pub(super) fn hasty(&self) -> Self {
        let answer = SHORT.min(self.settings.request_timeout);
        let config = self.client.config().to_builder();
        let config = config
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.settings.timeouts(answer));
        Self {
            client: Client::from_conf(config.build()),
            ..self.clone()
        }
    }

    fn name(&self) -> &str {
        &self.settings.bucket
    }

    pub(super) async fn head(&self, key: ObjectKey) -> Result<Option<Stat>, Refusal> {
        Ok(self.look(key).await?.map(|found| found.stat))
    }

    pub(super) async fn look(&self, key: ObjectKey) -> Result<Option<Found>, Refusal> {
        let request = self
            .client
            .head_object()
            .bucket(self.name())
            .key(key.to_string());
        match request
            .send()
            .await
            .map_err(|error| Refusal::of("HeadObject", &error))
        {
            Ok(head) => Ok(Some(Found {
                mark: head
                    .metadata
                    .and_then(|mut metadata| metadata.remove(Mark::NAME)),
                stat: stat(
                    "HeadObject",
                    head.content_length,
                    head.e_tag,
                    head.last_modified,
                )?,
            })),
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whoever reads the body begins again when it breaks, and does so here too.
    pub(super) async fn get(&self, key: ObjectKey) -> Result<(Stat, GetObjectOutput), Refusal> {
        let request = self
            .client
            .get_object()
            .bucket(self.name())
            .key(key.to_string());
        let mut object = request
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|error| Refusal::of("GetObject", &error))?;
        let stat = stat(
            "GetObject",
            object.content_length,
            object.e_tag.take(),
            object.last_modified,
        )?;
        Ok((stat, object))
    }

    /// Writes a whole object unless there is one. Sent once, as an answer that is lost on the way would
    /// make the second attempt find the work of the first.
    pub(super) async fn put(
        &self,
        key: ObjectKey,
        content_type: &str,
        mark: &Mark,
        bytes: Bytes,
    ) -> Result<(), Refusal> {
        let put = |condition| {
            let request = self
                .client
                .put_object()
                .bucket(self.name())
                .key(key.to_string())
                .content_type(content_type)
                .metadata(Mark::NAME, mark.as_str())
                .set_if_none_match(condition)
                .body(ByteStream::from(bytes.clone()));
            let request = request.customize().config_override(once());
            async move {
                let sent = request.send().await;
                sent.map(drop)
                    .map_err(|error| Refusal::of("PutObject", &error))
            }
        };
        self.unless_there(put).await
    }

    /// Sends a request with the condition that nothing is there yet, but without it to a server that doesn't
    /// know it.
    async fn unless_there<F: Future<Output = Result<(), Refusal>>>(
        &self,
        send: impl Fn(Option<String>) -> F,
    ) -> Result<(), Refusal> {
        if self.knows_conditions.load(Ordering::Relaxed) {
            match send(Some("*".to_owned())).await {
                Err(refusal) if refusal.is_not_implemented() => {}
                sent => return sent,
            }
        }
        let sent = send(None).await;
        if sent.is_ok() {
            self.knows_conditions.store(false, Ordering::Relaxed);
        }
        sent
    }

    /// Begins an upload in parts with the checksums of the settings, and gives its id. Sent once, as an upload
    /// whose id is lost on the way stays.
    pub(super) async fn begin(
        &self,
        key: ObjectKey,
        content_type: &str,
        mark: &Mark,
    ) -> Result<String, Refusal> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .content_type(content_type)
            .metadata(Mark::NAME, mark.as_str())
            .set_checksum_algorithm(self.settings.checksums.of_parts());
        let sent = request.customize().config_override(once()).send().await;
        let begun = sent.map_err(|error| Refusal::of("CreateMultipartUpload", &error))?;
        let id = begun.upload_id;
        id.ok_or_else(|| Refusal::without("CreateMultipartUpload", "an id"))
    }

    /// Writes a part, with the checksums that its upload was begun with.
    pub(super) async fn put_part(
        &self,
        key: ObjectKey,
        upload: &str,
        number: i32,
        bytes: Bytes,
        checksums: S3Checksums,
    ) -> Result<CompletedPart, Refusal> {
        let request = self
            .client
            .upload_part()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload)
            .part_number(number)
            .set_checksum_algorithm(checksums.of_parts())
            .body(ByteStream::from(bytes));
        let of_upload =
            config::Builder::new().request_checksum_calculation(checksums.of_requests());
        let sent = request.customize().config_override(of_upload).send().await;
        let part = sent.map_err(|error| Refusal::of("UploadPart", &error))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(part.e_tag)
            .set_checksum_crc32(part.checksum_crc32)
            .set_checksum_crc64_nvme(part.checksum_crc64_nvme)
            .build())
    }

    /// Parts of an upload that have arrived, from a place in their list on.
    pub(super) async fn parts(
        &self,
        key: ObjectKey,
        upload: &str,
        after: Option<String>,
    ) -> Result<ListPartsOutput, Refusal> {
        let request = self
            .client
            .list_parts()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload)
            .set_part_number_marker(after);
        let sent = request.send().await;
        sent.map_err(|error| Refusal::of("ListParts", &error))
    }

    pub(super) async fn complete(
        &self,
        key: ObjectKey,
        upload: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), Refusal> {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = |condition| {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(self.name())
                .key(key.to_string())
                .upload_id(upload)
                .set_if_none_match(condition)
                .multipart_upload(parts.clone());
            let request = request.customize().config_override(self.slowly());
            async move {
                let sent = request.send().await;
                sent.map(drop)
                    .map_err(|error| Refusal::of("CompleteMultipartUpload", &error))
            }
        };
        self.unless_there(complete).await
    }

    /// Ends an upload in parts. One that is gone has ended.
    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<(), Refusal> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(self.name())
            .key(key)
            .upload_id(upload);
        match request
            .send()
            .await
            .map_err(|error| Refusal::of("AbortMultipartUpload", &error))
        {
            Err(refusal) if !refusal.is_missing() => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Copies an upload that is in the state `etag` over whatever is at `key`.
    pub(super) async fn copy(
        &self,
        from: StagingKey,
        etag: &ETag,
        key: ObjectKey,
    ) -> Result<(), Refusal> {
        let request = self
            .client
            .copy_object()
            .bucket(self.name())
            .key(key.to_string())
            // Neither holds a character that would have to be escaped.
            .copy_source(format!("{}/{from}", self.name()))
            .copy_source_if_match(format!("\"{}\"", etag.as_str()));
        let sent = request
            .customize()
            .config_override(self.slowly())
            .send()
            .await;
        sent.map(drop)
            .map_err(|error| Refusal::of("CopyObject", &error))
    }

    /// Removes an object. One that is missing is removed.
    pub(super) async fn delete(&self, key: ObjectKey) -> Result<(), Refusal> {
        let request = self
            .client
            .delete_object()
            .bucket(self.name())
            .key(key.to_string());
        match request
            .send()
            .await
            .map_err(|error| Refusal::of("DeleteObject", &error))
        {
            Err(refusal) if !refusal.is_missing() => Err(refusal),
            _ => Ok(()),
        }
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<String>,
        limit: i32,
    ) -> Result<ListObjectsV2Output, Refusal> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(self.name())
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(limit);
        let sent = request.send().await;
        sent.map_err(|error| Refusal::of("ListObjectsV2", &error))
    }

    /// Uploads in parts that have not ended, from a place in their list on.
    pub(super) async fn uploads(
        &self,
        prefix: &str,
        (key, id): (Option<String>, Option<String>),
    ) -> Result<ListMultipartUploadsOutput, Refusal> {
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(self.name())
            .prefix(prefix)
            .set_key_marker(key)
            .set_upload_id_marker(id);
        let sent = request.send().await;
        sent.map_err(|error| Refusal::of("ListMultipartUploads", &error))
    }

    fn slowly(&self) -> config::Builder {
        let answer = LONG.max(self.settings.request_timeout);
        config::Builder::new().timeout_config(self.settings.timeouts(answer))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client shows who it asks as.
        f.debug_struct("Bucket")
            .field("endpoint", &self.settings.endpoint)
            .field("name", &self.settings.bucket)
            .finish_non_exhaustive()
    }
}

/// The settings of a request that is not repeated.
fn once() -> config::Builder {
    config::Builder::new().retry_config(RetryConfig::disabled())
}

/// What a server says of an object. What it doesn't say is never guessed: an object without a time would look
/// old, and two without an `ETag` alike.
pub(super) fn stat(
    operation: &str,
    size: Option<i64>,
    etag: Option<String>,
    modified: Option<DateTime>,
) -> Result<Stat, Refusal> {
    let without = |what| Refusal::without(operation, what);
    let size = size.and_then(|size| size.try_into().ok());
    let etag = ETag::new(etag.unwrap_or_default());
    if etag.as_str().is_empty() {
        return Err(without("an ETag"));
    }
    Ok(Stat {
        size: size.ok_or_else(|| without("a size"))?,
        etag,
        modified: time(operation, modified)?,
    })
}

/// When something was written or begun.
pub(super) fn time(operation: &str, time: Option<DateTime>) -> Result<SystemTime, Refusal> {
    let time = time.and_then(|time| time.try_into().ok());
    time.ok_or_else(|| Refusal::without(operation, "a time"))
}

#[cfg(test)]
mod tests {
    use alga_model::Secret;

    use super::*;

    #[tokio::test]
    async fn a_server_that_knows_no_conditions_is_asked_without_them() {
        let secret = || Secret::new("secret".to_owned());
        let bucket = Bucket::new(S3Settings::new("region", "bucket", secret(), secret()));
        let refused = || Refusal::answered("PutObject", 501, Some("NotImplemented"), None);
        let asked = std::cell::RefCell::new(Vec::new());
        let send = |condition: Option<String>, refuses_all: bool| {
            asked.borrow_mut().push(condition.is_some());
            let is_refused = refuses_all || condition.is_some();
            std::future::ready(if is_refused { Err(refused()) } else { Ok(()) })
        };
        // What it refuses all the same is not refused for the condition.
        let sent = bucket.unless_there(|it| send(it, true)).await;
        assert!(sent.unwrap_err().is_not_implemented());
        for _ in 0..2 {
            let sent = bucket.unless_there(|it| send(it, false));
            sent.await.unwrap();
        }
        assert_eq!(asked.into_inner(), [true, false, true, false, false]);
    }

    #[test]
    fn what_a_server_does_not_say_is_an_error_and_never_guessed() {
        let size = Some(1);
        let etag = Some("\"a\"".to_owned());
        let modified = Some(DateTime::from_secs(1));
        let told = stat("HeadObject", size, etag.clone(), modified).unwrap();
        assert_eq!((told.size, told.etag.as_str()), (1, "a"));
        for (size, etag, modified) in [
            (None, etag.clone(), modified),
            (Some(-1), etag.clone(), modified),
            (size, None, modified),
            (size, Some("\"\"".to_owned()), modified),
            (size, etag, None),
        ] {
            let refusal = stat("HeadObject", size, etag, modified).unwrap_err();
            assert!(
                !refusal.is_transient() && !refusal.is_missing(),
                "{refusal}"
            );
        }
    }
}
