//! What a server holds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alga_model::{Clock, SystemClock};
use bytes::Bytes;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompletedPart, ETag, ETagCondition, Metadata};
use s3s::{S3Result, s3_error};
use uuid::Uuid;

use super::MemoryServer;
use super::received::{Received, checksum_of_parts};

/// Buckets, by name. Its methods are called under one lock, so that nothing comes between what they look at and
/// what they do.
#[derive(Debug, Default)]
pub(super) struct Contents {
    buckets: BTreeMap<String, Bucket>,
    clock: SystemClock,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    /// By key and id.
    uploads: BTreeMap<(String, String), Upload>,
}

/// An object that is whole.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) etag: ETag,
    pub(super) checksum: Option<String>,
    pub(super) description: Description,
    pub(super) modified: SystemTime,
}

/// What is said of an object when it is written.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) content_type: Option<String>,
    pub(super) metadata: Option<Metadata>,
}

/// An object that comes in parts.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) description: Description,
    pub(super) begun: SystemTime,
    pub(super) has_checksums: bool,
    pub(super) parts: BTreeMap<i32, Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) received: Received,
    pub(super) modified: SystemTime,
}

impl Contents {
    /// The present second: S3 tells no fractions.
    fn now(&self) -> SystemTime {
        let ms = self.clock.now().as_millis().unsigned_abs();
        UNIX_EPOCH + Duration::from_secs(ms / 1000)
    }

    fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        let bucket = self.buckets.get(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket))
    }

    fn bucket_mut(&mut self, name: &str) -> S3Result<&mut Bucket> {
        let bucket = self.buckets.get_mut(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket))
    }

    pub(super) fn make_bucket(&mut self, name: String) -> S3Result<()> {
        if self.buckets.contains_key(&name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        self.buckets.insert(name, Bucket::default());
        Ok(())
    }

    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<&Object> {
        let object = self.bucket(bucket)?.objects.get(key);
        object.ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Objects whose keys begin with `prefix` and follow `after`.
    pub(super) fn objects<'a>(
        &'a self,
        bucket: &str,
        prefix: &'a str,
        after: &'a str,
    ) -> S3Result<impl Iterator<Item = (&'a String, &'a Object)>> {
        let objects = self.bucket(bucket)?.objects.iter();
        Ok(objects.filter(move |(key, _)| key.starts_with(prefix) && key.as_str() > after))
    }

    pub(super) fn put(
        &mut self,
        bucket: &str,
        key: String,
        description: Description,
        received: &Received,
        unless: Option<&ETagCondition>,
    ) -> S3Result<ETag> {
        let object = Object {
            bytes: received.bytes.clone(),
            etag: etag(&received.md5),
            checksum: received.checksum(),
            description,
            modified: self.now(),
        };
        let etag = object.etag.clone();
        self.bucket_mut(bucket)?.create(key, object, unless)?;
        Ok(etag)
    }

    pub(super) fn remove(&mut self, bucket: &str, key: &str) -> S3Result<()> {
        self.bucket_mut(bucket)?.objects.remove(key);
        Ok(())
    }

    pub(super) fn begin(
        &mut self,
        bucket: &str,
        key: String,
        description: Description,
        has_checksums: bool,
    ) -> S3Result<String> {
        let upload = Upload {
            description,
            begun: self.now(),
            has_checksums,
            parts: BTreeMap::new(),
        };
        let id = Uuid::new_v4().simple().to_string();
        let uploads = &mut self.bucket_mut(bucket)?.uploads;
        uploads.insert((key, id.clone()), upload);
        Ok(id)
    }

    pub(super) fn upload(&self, bucket: &str, key: String, id: String) -> S3Result<&Upload> {
        let upload = self.bucket(bucket)?.uploads.get(&(key, id));
        upload.ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Uploads of keys that begin with `prefix`, behind `after`: a key, and an id if not all uploads of that key
    /// are to be left out.
    pub(super) fn uploads<'a>(
        &'a self,
        bucket: &str,
        prefix: &'a str,
        after: (&'a str, Option<&'a str>),
    ) -> S3Result<impl Iterator<Item = (&'a str, &'a str, &'a Upload)>> {
        let (after_key, after_id) = after;
        let uploads = self.bucket(bucket)?.uploads.iter();
        let uploads = uploads.map(|((key, id), upload)| (key.as_str(), id.as_str(), upload));
        Ok(uploads.filter(move |(key, id, _)| {
            let is_behind = *key > after_key
                || *key == after_key && after_id.is_some_and(|after_id| *id > after_id);
            key.starts_with(prefix) && is_behind
        }))
    }

    pub(super) fn put_part(
        &mut self,
        bucket: &str,
        key: String,
        id: String,
        number: i32,
        received: Received,
    ) -> S3Result<ETag> {
        let modified = self.now();
        let upload = self.bucket_mut(bucket)?.uploads.get_mut(&(key, id));
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(InvalidArgument, "no part has this number"));
        }
        if upload.has_checksums != received.crc32.is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "the part has another checksum than the upload was begun with"
            ));
        }
        let etag = etag(&received.md5);
        upload.parts.insert(number, Part { received, modified });
        Ok(etag)
    }

    pub(super) fn complete(
        &mut self,
        bucket: &str,
        key: String,
        id: String,
        told: &[CompletedPart],
        unless: Option<&ETagCondition>,
    ) -> S3Result<ETag> {
        let modified = self.now();
        let bucket = self.bucket_mut(bucket)?;
        let name = (key, id);
        let upload = bucket.uploads.get(&name);
        let object = upload
            .ok_or_else(|| s3_error!(NoSuchUpload))?
            .joined(told, modified)?;
        let etag = object.etag.clone();
        bucket.create(name.0.clone(), object, unless)?;
        bucket.uploads.remove(&name);
        Ok(etag)
    }

    pub(super) fn abort(&mut self, bucket: &str, key: String, id: String) -> S3Result<()> {
        let aborted = self.bucket_mut(bucket)?.uploads.remove(&(key, id));
        aborted.map(drop).ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

impl Bucket {
    /// Writes an object, over another one if nothing is said against it.
    fn create(
        &mut self,
        key: String,
        object: Object,
        unless: Option<&ETagCondition>,
    ) -> S3Result<()> {
        match unless {
            Some(ETagCondition::Any) if self.objects.contains_key(&key) => {
                return Err(s3_error!(PreconditionFailed));
            }
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(NotImplemented, "a condition on another object"));
            }
            _ => {}
        }
        self.objects.insert(key, object);
        Ok(())
    }
}

impl Object {
    /// Refuses if the object is in another state.
    pub(super) fn ensure(&self, is: Option<&ETagCondition>) -> S3Result<()> {
        match is.and_then(ETagCondition::as_etag) {
            Some(etag) if !etag.strong_cmp(&self.etag) => Err(s3_error!(PreconditionFailed)),
            _ => Ok(()),
        }
    }
}

impl Upload {
    fn joined(&self, told: &[CompletedPart], modified: SystemTime) -> S3Result<Object> {
        if !told.is_sorted_by(|one, next| one.part_number < next.part_number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let parts = told.iter().map(|told| self.part(told));
        let parts = parts.collect::<S3Result<Vec<_>>>()?;
        let Some((_, full)) = parts.split_last() else {
            return Err(s3_error!(MalformedXML, "an upload has at least one part"));
        };
        let is_short = |part: &&Received| part.bytes.len() < MemoryServer::MIN_PART_BYTES;
        if full.iter().any(is_short) {
            return Err(s3_error!(EntityTooSmall));
        }
        let sums: Vec<_> = parts.iter().map(|part| part.md5).collect();
        let hash = etag(&Md5::checksum(&sums.concat())).into_value();
        let bytes: Vec<_> = parts.iter().map(|part| part.bytes.clone()).collect();
        Ok(Object {
            bytes: bytes.concat().into(),
            etag: ETag::Strong(format!("{hash}-{}", parts.len())),
            checksum: checksum_of_parts(&parts),
            description: self.description.clone(),
            modified,
        })
    }

    /// The part that is told, with its `ETag` and its checksum.
    fn part(&self, told: &CompletedPart) -> S3Result<&Received> {
        let part = told.part_number.and_then(|number| self.parts.get(&number));
        let part = &part.ok_or_else(|| s3_error!(InvalidPart))?.received;
        if self.has_checksums && told.checksum_crc32.is_none() {
            return Err(s3_error!(
                InvalidRequest,
                "the upload has checksums, and a part is told without"
            ));
        }
        let is_told =
            told.e_tag.as_ref() == Some(&etag(&part.md5)) && told.checksum_crc32 == part.checksum();
        is_told
            .then_some(part)
            .ok_or_else(|| s3_error!(InvalidPart))
    }
}

/// The `ETag` of bytes with this sum.
pub(super) fn etag(md5: &[u8; 16]) -> ETag {
    let number = u128::from_be_bytes(*md5);
    ETag::Strong(format!("{number:032x}"))
}
