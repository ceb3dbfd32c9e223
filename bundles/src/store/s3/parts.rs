//! Uploads into a bucket whose parts come in calls of their own.
//!
//! Nothing is known of one but what the server tells: parts are compared before the upload is completed, so that no
//! object ever becomes visible that is not the one that was asked for. The id of an upload is its [`Mark`], a letter
//! for the checksums it was begun with and what the server calls it, so that whoever has it knows the object, and
//! gives each part what the others have, whatever is set meanwhile.

use std::collections::BTreeMap;

use aws_sdk_s3::types::{CompletedPart, Part};
use bytes::Bytes;

use super::super::{ETag, ObjectKey, PartedUpload, StagingKey, Stat, StoreError};
use super::bucket::{Bucket, Found, Mark};
use super::error::Refusal;
use super::settings::S3Checksums;
use super::traces::{Traces, pause};
use super::upload::{self, ATTEMPTS, NotStored};

/// Parts that have arrived, by number.
type Arrived = BTreeMap<i32, Part>;

/// What the id of an upload says.
struct Told<'a> {
    mark: Mark,
    checksums: S3Checksums,
    /// What the server calls it.
    id: &'a str,
}

pub(super) async fn begin(
    bucket: &Bucket,
    key: StagingKey,
    content_type: &str,
) -> Result<PartedUpload, StoreError> {
    let mark = Mark::new();
    let begun = upload::begin(bucket, key.into(), content_type, &mark).await;
    let id = begun.map_err(|refusal| refusal.into_error(ObjectKey::from(key)))?;
    let letter = letter(bucket.settings.checksums);
    let id = format!("{}{letter}{id}", mark.as_str());
    let upload = PartedUpload { key, id };
    if upload.has_id() {
        Ok(upload)
    } else {
        Err(StoreError::failed(
            upload.object(),
            "the server gave an upload no id that can be kept",
        ))
    }
}

/// Repeated by the client as often as any request: a part that is written again is the same.
pub(super) async fn put(
    bucket: &Bucket,
    upload: &PartedUpload,
    number: u32,
    bytes: Bytes,
) -> Result<ETag, StoreError> {
    upload.check_part(number, bytes.len())?;
    let told = told_apart(upload).ok_or_else(|| upload.is_gone())?;
    let key = upload.object();
    let number = i32::try_from(number).map_err(|error| StoreError::failed(key, error))?;
    let _place = bucket.parts_in_flight.acquire().await;
    let put = bucket
        .put_part(key, told.id, number, bytes, told.checksums)
        .await;
    let part = put.map_err(|refusal| refused(upload, refusal))?;
    let etag = part.e_tag.map(ETag::new);
    etag.ok_or_else(|| StoreError::failed(key, "the server does not tell parts apart"))
}

pub(super) async fn join(
    bucket: &Bucket,
    upload: &PartedUpload,
    told: &[ETag],
    size: u64,
) -> Result<Stat, StoreError> {
    let Told { mark, id, .. } = told_apart(upload).ok_or_else(|| upload.is_gone())?;
    let Some(arrived) = arrived(bucket, upload).await? else {
        return joined_before(bucket, upload, size).await;
    };
    if look(bucket, upload).await?.is_some() {
        return taken(bucket, upload, size).await;
    }
    let parts = chosen(upload, arrived, told, size)?;
    match bucket.complete(upload.object(), id, parts).await {
        Ok(()) => verify(bucket, upload, size).await,
        // It may have been carried out though its answer was lost, and is not found again then.
        Err(refusal)
            if refusal.is_transient() || refusal.is_missing() || refusal.is_condition() =>
        {
            match bucket.look(upload.object()).await {
                Ok(Some(found)) if found.bears(&mark) && found.stat.size == size => Ok(found.stat),
                Ok(Some(_)) if refusal.is_condition() => Err(is_taken(upload)),
                _ => Err(refused(upload, refusal)),
            }
        }
        Err(refusal) => Err(refused(upload, refusal)),
    }
}

pub(super) async fn abort(bucket: &Bucket, upload: &PartedUpload) -> Result<(), StoreError> {
    let Some(told) = told_apart(upload) else {
        return Ok(());
    };
    let key = upload.object();
    let aborted = bucket.abort(&key.to_string(), told.id).await;
    aborted.map_err(|refusal| refusal.into_error(key))
}

/// What an upload is told by, unless it is none of this store.
fn told_apart(upload: &PartedUpload) -> Option<Told<'_>> {
    let (mark, rest) = upload.id.split_at_checked(Mark::LEN)?;
    let all = [S3Checksums::WhenRequired, S3Checksums::WhenSupported];
    let (checksums, id) = all
        .into_iter()
        .find_map(|checksums| Some((checksums, rest.strip_prefix(letter(checksums))?)))?;
    let mark = Mark::known(mark);
    (upload.has_id() && !id.is_empty()).then_some(Told {
        mark,
        checksums,
        id,
    })
}

const fn letter(checksums: S3Checksums) -> char {
    match checksums {
        S3Checksums::WhenRequired => 'n',
        S3Checksums::WhenSupported => 'c',
    }
}

fn is_taken(upload: &PartedUpload) -> StoreError {
    StoreError::Exists {
        key: upload.object(),
    }
}

/// What has arrived of an upload, unless that is gone.
async fn arrived(bucket: &Bucket, upload: &PartedUpload) -> Result<Option<Arrived>, StoreError> {
    let Some(Told { id, .. }) = told_apart(upload) else {
        return Ok(None);
    };
    let mut arrived = Arrived::new();
    let mut after = None;
    loop {
        let page = match bucket.parts(upload.object(), id, after).await {
            Ok(page) => page,
            Err(refusal) if refusal.is_missing() => return Ok(None),
            Err(refusal) => return Err(refused(upload, refusal)),
        };
        let parts = page.parts.unwrap_or_default().into_iter();
        let known = arrived.len();
        arrived.extend(parts.filter_map(|part| Some((part.part_number?, part))));
        // A server that repeats itself would do so for ever.
        if page.is_truncated != Some(true) || arrived.len() == known {
            return Ok(Some(arrived));
        }
        after = page.next_part_number_marker;
    }
}

/// The parts that have arrived, if they are those that were told and make an object of `size` bytes.
fn chosen(
    upload: &PartedUpload,
    mut arrived: Arrived,
    told: &[ETag],
    size: u64,
) -> Result<Vec<CompletedPart>, StoreError> {
    let mut lengths = Vec::new();
    let mut parts = Vec::new();
    for (number, told) in (1..).zip(told) {
        let part = arrived
            .remove(&number)
            .ok_or_else(|| upload.has_changed())?;
        if part.e_tag().map(ETag::new).as_ref() != Some(told) {
            return Err(upload.has_changed());
        }
        let length = part.size.and_then(|size| size.try_into().ok());
        lengths.push(length.unwrap_or_default());
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(part.e_tag)
            .set_checksum_crc32(part.checksum_crc32)
            .set_checksum_crc64_nvme(part.checksum_crc64_nvme);
        parts.push(part.build());
    }
    // Some servers would drop them, others refuse to join the rest.
    if !arrived.is_empty() {
        return Err(upload.has_changed());
    }
    upload.check_lengths(&lengths, size)?;
    Ok(parts)
}

/// What an upload that is gone was joined to, if it was.
async fn joined_before(
    bucket: &Bucket,
    upload: &PartedUpload,
    size: u64,
) -> Result<Stat, StoreError> {
    let found = look(bucket, upload).await?.filter(|found| {
        let is_ours = told_apart(upload).is_some_and(|told| found.bears(&told.mark));
        is_ours && found.stat.size == size
    });
    found
        .map(|found| found.stat)
        .ok_or_else(|| upload.is_gone())
}

/// The object is there and the upload goes on: it is somebody else's, or the upload is just being joined.
async fn taken(bucket: &Bucket, upload: &PartedUpload, size: u64) -> Result<Stat, StoreError> {
    for attempt in 1..=ATTEMPTS {
        pause(attempt).await;
        if arrived(bucket, upload).await?.is_none() {
            return joined_before(bucket, upload, size).await;
        }
    }
    Err(is_taken(upload))
}

/// What the server has now, whatever it answered.
async fn verify(bucket: &Bucket, upload: &PartedUpload, size: u64) -> Result<Stat, StoreError> {
    let found = look(bucket, upload).await?;
    let Told { mark, .. } = told_apart(upload).ok_or_else(|| upload.is_gone())?;
    if found.as_ref().is_some_and(|found| !found.bears(&mark)) {
        return Err(is_taken(upload));
    }
    let actual = found.as_ref().map(|found| found.stat.size);
    if let Some(found) = found.filter(|found| found.stat.size == size) {
        return Ok(found.stat);
    }
    let traces = Traces {
        object: Some(mark),
        ..Traces::default()
    };
    let key = upload.object();
    let (bucket, busy) = (bucket.clone(), bucket.background.busy());
    tokio::spawn(async move {
        // What stays is in the log already, and is not what went wrong.
        traces.clean_up(&bucket, key).await.ok();
        drop(busy);
    });
    Err(StoreError::failed(
        key,
        NotStored {
            size,
            found: actual,
        },
    ))
}

async fn look(bucket: &Bucket, upload: &PartedUpload) -> Result<Option<Found>, StoreError> {
    let found = bucket.look(upload.object()).await;
    found.map_err(|refusal| refused(upload, refusal))
}

fn refused(upload: &PartedUpload, refusal: Refusal) -> StoreError {
    if refusal.is_missing() {
        upload.is_gone()
    } else if refusal.is_other_part() {
        upload.has_changed()
    } else {
        refusal.into_error(upload.object())
    }
}
