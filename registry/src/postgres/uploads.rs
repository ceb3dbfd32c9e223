//! Statements about uploads of bundles.

use alga_model::{ContentHash, Timestamp};
use alga_postgres::Time;
use uuid::Uuid;

use super::error::PostgresError;
use super::session::{Session, bigint};
use crate::json;
use crate::rows;
use crate::upload::{BundleUpload, NewBundleUpload, UploadEnd, UploadProgress};

const FIND: &str =
    "SELECT id, actor, filename, content_type, size, declared_hash, received, state, code,
        sha256, etag, store_upload, parts::text AS parts, created_at, updated_at
    FROM registry_bundle_uploads WHERE id = $1";
const BEGIN: &str = "INSERT INTO registry_bundle_uploads
    (id, actor, filename, content_type, size, declared_hash, received, state, store_upload, parts,
        created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, 0, 'receiving', $7, '[]', $8, $8)
    ON CONFLICT (id) DO NOTHING";
const PROGRESS: &str = "UPDATE registry_bundle_uploads
    SET received = $3, parts = coalesce($4::json, parts), updated_at = $5
    WHERE id = $1 AND received = $2 AND state = 'receiving' AND size >= $3";
/// What was published is published, whoever gave it up meanwhile; all else ends once.
const END: &str = "UPDATE registry_bundle_uploads
    SET state = $2, code = $3, sha256 = coalesce($4, sha256), etag = coalesce($5, etag),
        received = CASE WHEN $2 = 'staged' THEN size ELSE received END, updated_at = $6
    WHERE id = $1 AND (state = 'receiving' OR (state = 'staged' AND $2 = 'aborted')
        OR (state <> 'published' AND $2 = 'published'))";
/// What another process removes at this moment is left to it.
const REMOVE: &str = "DELETE FROM registry_bundle_uploads WHERE id = ANY (ARRAY(
    SELECT id FROM registry_bundle_uploads WHERE updated_at < $1 ORDER BY updated_at, id LIMIT $2
    FOR UPDATE SKIP LOCKED))";

#[tracing::instrument(level = "debug", name = "db.uploads.find", skip_all)]
pub(super) async fn find(
    session: &mut Session<'_>,
    id: Uuid,
) -> Result<Option<BundleUpload>, PostgresError> {
    let find = session.of(FIND).bind(id);
    session.find_one(find, rows::bundle_upload).await
}

/// Notes an upload, unless there is one with its id.
#[tracing::instrument(level = "debug", name = "db.uploads.begin", skip_all)]
pub(super) async fn begin(
    session: &mut Session<'_>,
    new: &NewBundleUpload,
    now: Timestamp,
) -> Result<bool, PostgresError> {
    let begin = session
        .of(BEGIN)
        .bind(new.id)
        .bind(&new.actor)
        .bind(&new.filename)
        .bind(&new.content_type)
        .bind(bigint(new.size))
        .bind(new.declared_hash.as_ref().map(ContentHash::as_bytes))
        .bind(new.store_upload.as_deref())
        .bind(Time(now));
    Ok(session.execute(begin).await? > 0)
}

/// Notes how far an upload has come, if nobody has done so since.
#[tracing::instrument(level = "debug", name = "db.uploads.progress", skip_all)]
pub(super) async fn progress(
    session: &mut Session<'_>,
    id: Uuid,
    progress: &UploadProgress,
    now: Timestamp,
) -> Result<bool, PostgresError> {
    let parts = progress.parts.as_ref().map(json::text).transpose()?;
    let note = session
        .of(PROGRESS)
        .bind(id)
        .bind(bigint(progress.from))
        .bind(bigint(progress.to))
        .bind(parts)
        .bind(Time(now));
    Ok(session.execute(note).await? > 0)
}

/// Ends an upload, if it can end so.
#[tracing::instrument(level = "debug", name = "db.uploads.end", skip_all)]
pub(super) async fn end(
    session: &mut Session<'_>,
    id: Uuid,
    end: &UploadEnd,
    now: Timestamp,
) -> Result<bool, PostgresError> {
    let note = session
        .of(END)
        .bind(id)
        .bind(end.state().as_str())
        .bind(end.code())
        .bind(end.hash().map(ContentHash::as_bytes))
        .bind(end.etag())
        .bind(Time(now));
    Ok(session.execute(note).await? > 0)
}

/// Removes what was last noted before `before`, at most `limit`, and tells how much it was.
#[tracing::instrument(level = "debug", name = "db.uploads.remove", skip_all)]
pub(super) async fn remove(
    session: &mut Session<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, PostgresError> {
    let remove = session.of(REMOVE).bind(Time(before)).bind(i64::from(limit));
    session.execute(remove).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn an_upload_is_found_by_its_id() {
        let plans = Plans::new().await;
        for sql in [FIND, PROGRESS, END] {
            plans.assert_uses(sql, "registry_bundle_uploads_pkey").await;
        }
    }

    #[tokio::test]
    async fn the_oldest_uploads_are_found_by_time() {
        let plans = Plans::new().await;
        for index in [
            "registry_bundle_uploads_of_time",
            "registry_bundle_uploads_pkey",
        ] {
            plans.assert_uses(REMOVE, index).await;
        }
    }
}
