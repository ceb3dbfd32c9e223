//! The requests that a store sends, each one once.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

use super::super::{ETag, ObjectKey, StagingKey, Stat};
use super::error::Refusal;
use super::settings::S3Settings;

/// Parts that all uploads of a store together have on their way.
const PARTS_IN_FLIGHT: usize = 24;
/// How long a server may take to put an upload together or to copy it, which some do byte by byte.
const LONG: Duration = Duration::from_secs(300);

/// A bucket and the client it is reached with.
#[derive(Clone)]
pub(super) struct Bucket {
    client: Client,
    pub(super) settings: Arc<S3Settings>,
    pub(super) parts_in_flight: Arc<Semaphore>,
}

impl Bucket {
    pub(super) fn new(settings: S3Settings) -> Self {
        Self {
            client: settings.client(),
            settings: Arc::new(settings),
            parts_in_flight: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
        }
    }

    fn name(&self) -> &str {
        &self.settings.bucket
    }

    pub(super) async fn head(&self, key: ObjectKey) -> Result<Option<Stat>, Refusal> {
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
            Ok(head) => Ok(Some(stat(
                head.content_length,
                head.e_tag,
                head.last_modified,
            ))),
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
            object.content_length,
            object.e_tag.take(),
            object.last_modified,
        );
        Ok((stat, object))
    }

    /// Writes a whole object unless there is one. Sent once, as an answer that is lost on the way would
    /// make the second attempt find the work of the first.
    pub(super) async fn put(
        &self,
        key: ObjectKey,
        content_type: &str,
        bytes: Bytes,
    ) -> Result<(), Refusal> {
        let request = self
            .client
            .put_object()
            .bucket(self.name())
            .key(key.to_string())
            .content_type(content_type)
            .if_none_match("*")
            .body(ByteStream::from(bytes));
        let sent = request.customize().config_override(once()).send().await;
        sent.map(drop)
            .map_err(|error| Refusal::of("PutObject", &error))
    }

    /// Begins an upload in parts, and gives its id. Sent once, as an upload whose id is lost on the way
    /// stays.
    pub(super) async fn begin(
        &self,
        key: ObjectKey,
        content_type: &str,
    ) -> Result<String, Refusal> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .content_type(content_type);
        let sent = request.customize().config_override(once()).send().await;
        let begun = sent.map_err(|error| Refusal::of("CreateMultipartUpload", &error))?;
        Ok(begun.upload_id.unwrap_or_default())
    }

    pub(super) async fn put_part(
        &self,
        key: ObjectKey,
        upload: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<CompletedPart, Refusal> {
        let request = self
            .client
            .upload_part()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(bytes));
        let sent = request.send().await;
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
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload)
            .multipart_upload(parts);
        let sent = request
            .customize()
            .config_override(self.slowly())
            .send()
            .await;
        sent.map(drop)
            .map_err(|error| Refusal::of("CompleteMultipartUpload", &error))
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

/// What a server says of an object. One that doesn't say something tells nothing apart by it.
pub(super) fn stat(size: Option<i64>, etag: Option<String>, modified: Option<DateTime>) -> Stat {
    Stat {
        size: size
            .and_then(|size| size.try_into().ok())
            .unwrap_or_default(),
        etag: ETag::new(etag.unwrap_or_default()),
        modified: time(modified),
    }
}

pub(super) fn time(time: Option<DateTime>) -> SystemTime {
    time.and_then(|time| time.try_into().ok())
        .unwrap_or(UNIX_EPOCH)
}
