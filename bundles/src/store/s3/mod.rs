//! A bucket as a store.
//!
//! What rests on the server: that an object is visible whole or not at all, that a read after a write sees
//! it, that what it confirmed is durable, and that it keeps the metadata of an object. Nothing rests on conditions
//! of writes, which servers ignore in part, nor on checksums other than the SHA-256 of each request's signature.
//!
//! Two uploads under one key are told apart by their marks, and the later one finds the key taken. On a server
//! that ignores the condition of `CompleteMultipartUpload` it can still replace the first where both are
//! completed in the same moment: whoever stages gives each upload a key of its own. A promotion looks at the
//! upload before it is copied; that nobody replaces it between that and the copy rests on the same, and on
//! `x-amz-copy-source-if-match`.

mod bucket;
mod error;
mod parts;
mod settings;
mod traces;
mod upload;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use alga_model::ContentHasher;
use async_trait::async_trait;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::{
    BundleStore, Content, Created, Cursor, ETag, Listed, Listing, ObjectKey, Page, PartedUpload,
    StagedUpload, StagingKey, Stat, StoreError, StoredObject, Target, Unfinished, Verified,
};
use bucket::{Bucket, Mark, stat, time};
use error::Refusal;
use upload::S3Upload;

pub use settings::{S3Checksums, S3Settings};

/// Bytes that a file is read by.
const CHUNK_BYTES: usize = 256 << 10;
/// Between the keys that begin with a digit or an underscore and those that begin with a letter.
const AFTER_UNDERSCORES: &str = "sha256/`";

/// Keeps objects in a bucket of S3, or of a server that speaks as S3 does.
///
/// Any number of processes may share the bucket. Uploads hold at most three parts of 5 MiB each in memory, and
/// all uploads of a process together 24 of those that are on their way.
#[derive(Debug, Clone)]
pub struct S3Store {
    bucket: Bucket,
}

impl S3Store {
    /// Uses a bucket. Sends nothing yet: [`check`](BundleStore::check) tells whether it works.
    pub fn new(settings: S3Settings) -> Self {
        Self {
            bucket: Bucket::new(settings),
        }
    }

    /// Sends content that is not there yet.
    async fn send(&self, key: ObjectKey, content: Content<'_>) -> Result<(), StoreError> {
        let mut source = Source::open(key, content).await?;
        let size = source.size;
        let mut upload = Box::new(S3Upload::begin(
            self.bucket.clone(),
            key,
            content_type(key),
            size,
        ));
        let mut hasher = ContentHasher::new();
        let mut written = Ok(());
        while let Some(chunk) = source.next(key).await? {
            hasher.update(&chunk);
            // Of a source that grew meanwhile, the hash is told that it has now.
            if written.is_ok() {
                written = upload.write(chunk).await;
            }
            if matches!(&written, Err(error) if !matches!(error, StoreError::WrongSize { .. })) {
                break;
            }
        }
        if !matches!(
            written,
            Err(StoreError::Unavailable { .. } | StoreError::Failed { .. })
        ) {
            let actual = hasher.finish();
            if key.promised_hash().is_some_and(|hash| hash != actual) {
                upload.abort().await.ok();
                return Err(StoreError::WrongContent { key, actual });
            }
        }
        written?;
        upload.finish().await.map(drop)
    }

    async fn copy(&self, upload: &Verified) -> Result<(), StoreError> {
        let source = ObjectKey::from(upload.key);
        let target = ObjectKey::Bundle(upload.hash);
        match self.stat(source).await? {
            None => return Err(StoreError::NotFound { key: source }),
            Some(stat) if stat.etag != upload.etag || stat.size != upload.size => {
                return Err(StoreError::Changed { key: source });
            }
            Some(_) => {}
        }
        let copied = self.bucket.copy(upload.key, &upload.etag, target).await;
        copied.map_err(|refusal| {
            if refusal.is_condition() {
                StoreError::Changed { key: source }
            } else if refusal.is_missing() {
                StoreError::NotFound { key: source }
            } else {
                refusal.into_error(target)
            }
        })?;
        match self.stat(target).await? {
            Some(stat) if stat.size == upload.size => Ok(()),
            _ => Err(StoreError::failed(
                target,
                "the server confirmed a copy and does not have it",
            )),
        }
    }

    async fn ensure_free(&self, key: ObjectKey) -> Result<(), StoreError> {
        match self.stat(key).await? {
            Some(_) => Err(StoreError::Exists { key }),
            None => Ok(()),
        }
    }

    /// Writes, reads and lists what `check` removes then.
    async fn try_out(&self, key: ObjectKey) -> Result<(), StoreError> {
        let (written, mark) = (Bytes::from(key.to_string()), Mark::new());
        let put = self
            .bucket
            .put(key, content_type(key), &mark, written.clone())
            .await;
        put.map_err(|refusal| refusal.into_error(key))?;
        let found = self.bucket.look(key).await;
        let found = found.map_err(|refusal| refusal.into_error(key))?;
        if !found.is_some_and(|found| found.bears(&mark)) {
            return Err(StoreError::failed(
                key,
                "the server does not keep the metadata of objects, by which uploads are told apart",
            ));
        }
        if self.read(key, written.len() as u64).await? != written {
            return Err(StoreError::failed(
                key,
                "what was written is not what is read",
            ));
        }
        self.list(Listing::Staging, None, 1).await.map(drop)
    }
}

#[async_trait]
impl BundleStore for S3Store {
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError> {
        let stat = self.bucket.head(key).await;
        stat.map_err(|refusal| refusal.into_error(key))
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        match self.bucket.get(key).await {
            Ok((stat, object)) => Ok(StoredObject {
                body: Box::pin(object.body.into_async_read().take(stat.size)),
                stat,
            }),
            Err(refusal) if refusal.is_missing() => Err(StoreError::NotFound { key }),
            Err(refusal) => Err(refusal.into_error(key)),
        }
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        if let Some(stat) = self.stat(key).await? {
            return Ok(Created::Existing { size: stat.size });
        }
        match self.send(key, content).await {
            Ok(()) => Ok(Created::Written),
            // Somebody else was faster.
            Err(StoreError::Exists { key }) => match self.stat(key).await? {
                Some(stat) => Ok(Created::Existing { size: stat.size }),
                None => Err(StoreError::unavailable(key, "it came and went meanwhile")),
            },
            Err(error) => Err(error),
        }
    }

    async fn stage(
        &self,
        key: StagingKey,
        content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError> {
        let key = ObjectKey::from(key);
        self.ensure_free(key).await?;
        let content_type = usable(content_type);
        let upload = S3Upload::begin(self.bucket.clone(), key, content_type, size);
        Ok(Box::new(upload))
    }

    async fn begin_parts(
        &self,
        key: StagingKey,
        content_type: &str,
    ) -> Result<PartedUpload, StoreError> {
        self.ensure_free(key.into()).await?;
        parts::begin(&self.bucket, key, usable(content_type)).await
    }

    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError> {
        parts::put(&self.bucket, upload, number, bytes).await
    }

    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError> {
        parts::join(&self.bucket, upload, parts, size).await
    }

    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError> {
        parts::abort(&self.bucket, upload).await
    }

    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError> {
        if let Some(stat) = self.stat(ObjectKey::Bundle(upload.hash)).await? {
            return Ok(Created::Existing { size: stat.size });
        }
        self.copy(upload).await?;
        Ok(Created::Written)
    }

    async fn replace(&self, upload: &Verified) -> Result<(), StoreError> {
        self.copy(upload).await
    }

    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError> {
        let removed = self.bucket.delete(key).await;
        removed.map_err(|refusal| refusal.into_error(key))
    }

    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let prefix = match listing {
            // What is tried out lies beside, and is left where a check is interrupted.
            Listing::Staging => "sha256/_",
            Listing::Canonical => "sha256/",
            Listing::Compiled => "compiled/",
        };
        let after = after.map(|Cursor(after)| after.clone());
        let limit = i32::try_from(limit.clamp(1, 1000)).unwrap_or(1000);
        let page = self.bucket.list(prefix, after, limit).await;
        let page = page.map_err(|refusal| refusal.into_error(listing))?;

        let mut objects = Vec::new();
        let mut last = None;
        for object in page.contents.unwrap_or_default() {
            let name = object.key.unwrap_or_default();
            let key = name.parse().ok().filter(|key| listing.contains(key));
            if let Some(key) = key {
                let (size, etag) = (object.size, object.e_tag);
                let stat = stat("ListObjectsV2", size, etag, object.last_modified);
                let stat = stat.map_err(|refusal| refusal.into_error(listing))?;
                objects.push(Listed { key, stat });
            }
            last = Some(name);
        }
        let is_aside =
            |name: &String| listing == Listing::Canonical && name.starts_with("sha256/_");
        let next = last
            .filter(|_| page.is_truncated == Some(true))
            .map(|last| {
                Cursor(if is_aside(&last) {
                    AFTER_UNDERSCORES.to_owned()
                } else {
                    last
                })
            });
        Ok(Page { objects, next })
    }

    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let refused = |refusal: Refusal| refusal.into_error(Target::Unfinished);
        let mut found = Vec::new();
        for prefix in ["sha256/", "compiled/"] {
            let mut place = Some((None, None));
            while let Some(from) = place {
                let page = self.bucket.uploads(prefix, from.clone()).await;
                let page = page.map_err(refused)?;
                place = next_place(&page, &from);
                for upload in page.uploads.unwrap_or_default() {
                    let name = upload.key.unwrap_or_default();
                    let Ok(key) = name.parse::<ObjectKey>() else {
                        continue;
                    };
                    let started = time(LIST_UPLOADS, upload.initiated).map_err(refused)?;
                    if started >= before {
                        continue;
                    }
                    if found.len() == limit {
                        return Ok(found);
                    }
                    let id = upload.upload_id;
                    found.push(Unfinished {
                        key: Some(key),
                        started,
                        name,
                        id: id.ok_or_else(|| refused(Refusal::without(LIST_UPLOADS, "an id")))?,
                    });
                }
            }
        }
        Ok(found)
    }

    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError> {
        let aborted = self.bucket.abort(&upload.name, &upload.id).await;
        aborted.map_err(|refusal| refusal.into_error(Target::Unfinished))
    }

    async fn check(&self) -> Result<(), StoreError> {
        let key = ObjectKey::Check(Uuid::new_v4());
        let tried = self.try_out(key).await;
        let removed = self.remove(key).await;
        tried.and(removed)
    }

    async fn settle(&self) {
        self.bucket.background.settle().await;
    }
}

const LIST_UPLOADS: &str = "ListMultipartUploads";

/// A place in a list of uploads: after this key and this id.
type Place = (Option<String>, Option<String>);

/// Where a list goes on, unless that was its end, or the server would give the same again and again.
fn next_place(page: &ListMultipartUploadsOutput, from: &Place) -> Option<Place> {
    let next = (
        page.next_key_marker.clone(),
        page.next_upload_id_marker.clone(),
    );
    (page.is_truncated == Some(true) && next.0.is_some() && next != *from).then_some(next)
}

/// [`Content`] that is being read.
struct Source {
    size: u64,
    rest: Rest,
}

enum Rest {
    File(tokio::fs::File),
    Bytes(Bytes),
}

impl Source {
    async fn open(key: ObjectKey, content: Content<'_>) -> Result<Self, StoreError> {
        let open = async |path: &Path| -> io::Result<Self> {
            let file = tokio::fs::File::open(path).await?;
            Ok(Self {
                size: file.metadata().await?.len(),
                rest: Rest::File(file),
            })
        };
        match content {
            Content::File(path) => open(path)
                .await
                .map_err(|error| StoreError::failed(key, error)),
            Content::Bytes(bytes) => Ok(Self {
                size: bytes.len() as u64,
                rest: Rest::Bytes(Bytes::copy_from_slice(bytes)),
            }),
        }
    }

    async fn next(&mut self, key: ObjectKey) -> Result<Option<Bytes>, StoreError> {
        let chunk = match &mut self.rest {
            Rest::Bytes(bytes) => bytes.split_to(bytes.len().min(CHUNK_BYTES)),
            Rest::File(file) => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let read = file.take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await;
                read.map_err(|error| StoreError::failed(key, error))?;
                chunk.into()
            }
        };
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}

/// What the object of a key is.
const fn content_type(key: ObjectKey) -> &'static str {
    match key {
        ObjectKey::Bundle(_) | ObjectKey::Staging(_) => "application/zstd",
        ObjectKey::Manifest(_) => "application/json",
        ObjectKey::Compiled { .. } => "application/octet-stream",
        ObjectKey::Check(_) | ObjectKey::Owner => "text/plain",
    }
}

/// A content type as a header can have it.
fn usable(content_type: &str) -> &str {
    let is_header = !content_type.is_empty()
        && content_type.len() <= 255
        && content_type.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_header {
        content_type
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_uploads_that_does_not_move_ends() {
        let page = |key: Option<&str>, id: Option<&str>| {
            let page = ListMultipartUploadsOutput::builder().is_truncated(true);
            page.set_next_key_marker(key.map(str::to_owned))
                .set_next_upload_id_marker(id.map(str::to_owned))
                .build()
        };
        let start = (None, None);
        let first = next_place(&page(Some("a"), Some("1")), &start).unwrap();
        let second = next_place(&page(Some("a"), Some("2")), &first).unwrap();
        assert_eq!(next_place(&page(Some("a"), Some("2")), &second), None);
        assert_eq!(next_place(&page(None, None), &start), None);
        let last = ListMultipartUploadsOutput::builder().next_key_marker("b");
        assert_eq!(next_place(&last.build(), &second), None);
    }
}
