//! The requests that a server answers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumMode,
    ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput,
    CopyObjectOutput, CopyObjectResult, CopySource, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
    ListPartsOutput, MultipartUpload, Object as ListedObject, Part as ListedPart, PutObjectInput,
    PutObjectOutput, StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::contents::{Contents, Description, Object, etag};
use super::received::Received;

/// Answers requests from what is in memory.
#[derive(Debug)]
pub(super) struct Service {
    contents: Mutex<Contents>,
    /// What is listed at once, at most.
    page: usize,
}

type Answer<T> = S3Result<S3Response<T>>;

impl Service {
    pub(super) fn new(page: usize) -> Self {
        Self {
            contents: Mutex::default(),
            page,
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Nothing is half done when a request panics.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to as many as are asked for and fit into a page, and whether there are more.
    fn page<T>(&self, found: impl Iterator<Item = T>, asked: Option<i32>) -> (Vec<T>, bool) {
        let asked = asked.and_then(|asked| usize::try_from(asked).ok());
        let limit = asked.unwrap_or(self.page).min(self.page);
        let mut page: Vec<_> = found.take(limit + 1).collect();
        let is_truncated = page.len() > limit;
        page.truncate(limit);
        (page, is_truncated)
    }
}

#[async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        asked: S3Request<CreateBucketInput>,
    ) -> Answer<CreateBucketOutput> {
        self.contents().make_bucket(asked.input.bucket)?;
        answer(CreateBucketOutput::default())
    }

    async fn head_object(&self, asked: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let asked = asked.input;
        ensure_plain(asked.if_none_match.is_none() && asked.range.is_none())?;
        let contents = self.contents();
        let object = contents.object(&asked.bucket, &asked.key)?;
        object.ensure(asked.if_match.as_ref())?;
        let (checksum_crc32, checksum_type) = shown(object, asked.checksum_mode.as_ref());
        answer(HeadObjectOutput {
            checksum_crc32,
            checksum_type,
            content_length: Some(length(&object.bytes)),
            content_type: object.description.content_type.clone(),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.into()),
            metadata: object.description.metadata.clone(),
            ..HeadObjectOutput::default()
        })
    }

    async fn get_object(&self, asked: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let asked = asked.input;
        ensure_plain(asked.if_none_match.is_none() && asked.part_number.is_none())?;
        let object = self.contents().object(&asked.bucket, &asked.key)?.clone();
        object.ensure(asked.if_match.as_ref())?;
        let (checksum_crc32, checksum_type) = match asked.range {
            None => shown(&object, asked.checksum_mode.as_ref()),
            Some(_) => (None, None),
        };
        let (bytes, content_range) = match asked.range {
            None => (object.bytes, None),
            Some(range) => {
                let size = object.bytes.len() as u64;
                let range = range.check(size)?;
                let (first, behind) = (index(range.start)?, index(range.end)?);
                let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (object.bytes.slice(first..behind), Some(told))
            }
        };
        answer(GetObjectOutput {
            checksum_crc32,
            checksum_type,
            content_length: Some(length(&bytes)),
            content_range,
            content_type: object.description.content_type,
            e_tag: Some(object.etag),
            last_modified: Some(object.modified.into()),
            metadata: object.description.metadata,
            body: Some(StreamingBlob::from(Body::from(bytes))),
            ..GetObjectOutput::default()
        })
    }

    async fn put_object(&self, asked: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let S3Request {
            input: asked,
            trailing_headers,
            ..
        } = asked;
        ensure_plain(
            asked.checksum_crc32c.is_none()
                && asked.checksum_crc64nvme.is_none()
                && asked.checksum_sha1.is_none()
                && asked.checksum_sha256.is_none()
                && asked.content_md5.is_none()
                && asked.if_match.is_none(),
        )?;
        let (algorithm, told) = (asked.checksum_algorithm, asked.checksum_crc32);
        let received = Received::wait(asked.body, algorithm, told, trailing_headers).await?;
        let description = Description {
            content_type: asked.content_type,
            metadata: asked.metadata,
        };
        let unless = asked.if_none_match.as_ref();
        let etag = self
            .contents()
            .put(&asked.bucket, asked.key, description, &received, unless)?;
        answer(PutObjectOutput {
            checksum_crc32: received.checksum(),
            e_tag: Some(etag),
            ..PutObjectOutput::default()
        })
    }

    async fn copy_object(&self, asked: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let asked = asked.input;
        ensure_plain(
            asked.copy_source_if_none_match.is_none()
                && asked.copy_source_if_modified_since.is_none()
                && asked.copy_source_if_unmodified_since.is_none()
                && asked.metadata_directive.is_none()
                && asked.checksum_algorithm.is_none(),
        )?;
        let CopySource::Bucket { bucket, key, .. } = &asked.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let mut contents = self.contents();
        let source = contents.object(bucket, key)?.clone();
        source.ensure(asked.copy_source_if_match.as_ref())?;
        // A copy is one piece, whatever its source came in.
        let whole = Received::new(source.bytes, source.checksum.is_some());
        let etag = contents.put(
            &asked.bucket,
            asked.key.clone(),
            source.description,
            &whole,
            None,
        )?;
        let copied = contents.object(&asked.bucket, &asked.key)?;
        answer(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                checksum_crc32: whole.checksum(),
                e_tag: Some(etag),
                last_modified: Some(copied.modified.into()),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        })
    }

    async fn delete_object(
        &self,
        asked: S3Request<DeleteObjectInput>,
    ) -> Answer<DeleteObjectOutput> {
        let asked = asked.input;
        ensure_plain(asked.if_match.is_none())?;
        self.contents().remove(&asked.bucket, &asked.key)?;
        answer(DeleteObjectOutput::default())
    }

    async fn list_objects_v2(
        &self,
        asked: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let asked = asked.input;
        ensure_plain(asked.delimiter.is_none() && asked.encoding_type.is_none())?;
        let prefix = asked.prefix.unwrap_or_default();
        // A token is the key that it goes on behind.
        let after = asked.continuation_token.or(asked.start_after);
        let after = after.unwrap_or_default();
        let contents = self.contents();
        let found = contents.objects(&asked.bucket, &prefix, &after)?;
        let (page, is_truncated) = self.page(found, asked.max_keys);
        let last = page.last().map(|(key, _)| (*key).clone());
        let listed = page.into_iter().map(|(key, object)| ListedObject {
            e_tag: Some(object.etag.clone()),
            key: Some(key.clone()),
            last_modified: Some(object.modified.into()),
            size: Some(length(&object.bytes)),
            ..ListedObject::default()
        });
        answer(ListObjectsV2Output {
            contents: Some(listed.collect()),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            ..ListObjectsV2Output::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        asked: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let asked = asked.input;
        let algorithm = asked.checksum_algorithm.as_ref();
        let is_known = algorithm.is_none_or(|it| it.as_str() == ChecksumAlgorithm::CRC32);
        ensure_plain(is_known && asked.checksum_type.is_none())?;
        let description = Description {
            content_type: asked.content_type,
            metadata: asked.metadata,
        };
        let key = asked.key.clone();
        let has_checksums = algorithm.is_some();
        let id = self
            .contents()
            .begin(&asked.bucket, key, description, has_checksums)?;
        answer(CreateMultipartUploadOutput {
            bucket: Some(asked.bucket),
            checksum_algorithm: asked.checksum_algorithm,
            key: Some(asked.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, asked: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let S3Request {
            input: asked,
            trailing_headers,
            ..
        } = asked;
        ensure_plain(
            asked.checksum_crc32c.is_none()
                && asked.checksum_crc64nvme.is_none()
                && asked.checksum_sha1.is_none()
                && asked.checksum_sha256.is_none()
                && asked.content_md5.is_none(),
        )?;
        let (algorithm, told) = (asked.checksum_algorithm, asked.checksum_crc32);
        let received = Received::wait(asked.body, algorithm, told, trailing_headers).await?;
        let checksum_crc32 = received.checksum();
        let (key, id, number) = (asked.key, asked.upload_id, asked.part_number);
        let etag = self
            .contents()
            .put_part(&asked.bucket, key, id, number, received)?;
        answer(UploadPartOutput {
            checksum_crc32,
            e_tag: Some(etag),
            ..UploadPartOutput::default()
        })
    }

    async fn list_parts(&self, asked: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let asked = asked.input;
        let after = asked.part_number_marker.unwrap_or(0);
        let contents = self.contents();
        let upload = contents.upload(&asked.bucket, asked.key, asked.upload_id)?;
        let behind = upload.parts.iter().filter(|(number, _)| **number > after);
        let (page, is_truncated) = self.page(behind, asked.max_parts);
        let last = page.last().map(|(number, _)| **number);
        let listed = page.into_iter().map(|(number, part)| ListedPart {
            checksum_crc32: part.received.checksum(),
            e_tag: Some(etag(&part.received.md5)),
            last_modified: Some(part.modified.into()),
            part_number: Some(*number),
            size: Some(length(&part.received.bytes)),
            ..ListedPart::default()
        });
        answer(ListPartsOutput {
            is_truncated: Some(is_truncated),
            next_part_number_marker: last.filter(|_| is_truncated),
            parts: Some(listed.collect()),
            ..ListPartsOutput::default()
        })
    }

    async fn list_multipart_uploads(
        &self,
        asked: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let asked = asked.input;
        ensure_plain(asked.delimiter.is_none() && asked.encoding_type.is_none())?;
        let prefix = asked.prefix.unwrap_or_default();
        let after_key = asked.key_marker.unwrap_or_default();
        let after = (after_key.as_str(), asked.upload_id_marker.as_deref());
        let contents = self.contents();
        let found = contents.uploads(&asked.bucket, &prefix, after)?;
        let (page, is_truncated) = self.page(found, asked.max_uploads);
        let last = page.last().filter(|_| is_truncated);
        answer(ListMultipartUploadsOutput {
            is_truncated: Some(is_truncated),
            next_key_marker: last.map(|(key, _, _)| (*key).to_owned()),
            next_upload_id_marker: last.map(|(_, id, _)| (*id).to_owned()),
            uploads: Some(
                page.iter()
                    .map(|(key, id, upload)| MultipartUpload {
                        initiated: Some(upload.begun.into()),
                        key: Some((*key).to_owned()),
                        upload_id: Some((*id).to_owned()),
                        ..MultipartUpload::default()
                    })
                    .collect(),
            ),
            ..ListMultipartUploadsOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        asked: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let asked = asked.input;
        ensure_plain(asked.if_match.is_none() && asked.checksum_crc32.is_none())?;
        let told = asked.multipart_upload.and_then(|upload| upload.parts);
        let told = told.unwrap_or_default();
        let (key, id) = (asked.key.clone(), asked.upload_id);
        let unless = asked.if_none_match.as_ref();
        let etag = self
            .contents()
            .complete(&asked.bucket, key, id, &told, unless)?;
        answer(CompleteMultipartUploadOutput {
            bucket: Some(asked.bucket),
            e_tag: Some(etag),
            key: Some(asked.key),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        asked: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let asked = asked.input;
        self.contents()
            .abort(&asked.bucket, asked.key, asked.upload_id)?;
        answer(AbortMultipartUploadOutput::default())
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every answer is one that might have been a refusal"
)]
fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

/// Refuses a request that asks for something this server doesn't do.
fn ensure_plain(is_plain: bool) -> S3Result<()> {
    if is_plain {
        Ok(())
    } else {
        Err(s3_error!(NotImplemented))
    }
}

/// The checksum of an object for whoever asks for it, and of what kind it is.
fn shown(object: &Object, mode: Option<&ChecksumMode>) -> (Option<String>, Option<ChecksumType>) {
    let is_asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
    let checksum = object.checksum.clone().filter(|_| is_asked);
    let kind = checksum.as_ref().map(|checksum| {
        ChecksumType::from_static(if checksum.contains('-') {
            ChecksumType::COMPOSITE
        } else {
            ChecksumType::FULL_OBJECT
        })
    });
    (checksum, kind)
}

fn length(bytes: &Bytes) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn index(place: u64) -> S3Result<usize> {
    usize::try_from(place).map_err(|_| s3_error!(InvalidRange))
}
