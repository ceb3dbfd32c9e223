//! Statements about uploads of bundles.

use alga_model::{ContentHash, Timestamp};
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::find_one;
use crate::json;
use crate::rows;
use crate::upload::{BundleUpload, NewBundleUpload, UploadEnd, UploadProgress};

const FIND: &str =
    "SELECT id, actor, filename, content_type, size, declared_hash, received, state, code,
        sha256, etag, store_upload, parts, created_at, updated_at
    FROM registry_bundle_uploads WHERE id = ?1";
const BEGIN: &str = "INSERT INTO registry_bundle_uploads
    (id, actor, filename, content_type, size, declared_hash, received, state, store_upload, parts,
        created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 'receiving', ?7, '[]', ?8, ?8)
    ON CONFLICT (id) DO NOTHING";
const PROGRESS: &str = "UPDATE registry_bundle_uploads
    SET received = ?3, parts = coalesce(?4, parts), updated_at = ?5
    WHERE id = ?1 AND received = ?2 AND state = 'receiving' AND size >= ?3";
/// What was published is published, whoever gave it up meanwhile; all else ends once.
const END: &str = "UPDATE registry_bundle_uploads
    SET state = ?2, code = ?3, sha256 = coalesce(?4, sha256), etag = coalesce(?5, etag),
        received = CASE WHEN ?2 = 'staged' THEN size ELSE received END, updated_at = ?6
    WHERE id = ?1 AND (state = 'receiving' OR (state = 'staged' AND ?2 = 'aborted')
        OR (state <> 'published' AND ?2 = 'published'))";
const REMOVE: &str = "DELETE FROM registry_bundle_uploads WHERE rowid IN
    (SELECT rowid FROM registry_bundle_uploads WHERE updated_at < ?1 ORDER BY updated_at, id LIMIT ?2)";

#[tracing::instrument(level = "debug", name = "db.uploads.find", skip_all)]
pub(super) fn find(connection: &Connection, id: Uuid) -> Result<Option<BundleUpload>, SqliteError> {
    find_one(connection, FIND, [id.as_bytes()], rows::bundle_upload)
}

/// Notes an upload, unless there is one with its id.
#[tracing::instrument(level = "debug", name = "db.uploads.begin", skip_all)]
pub(super) fn begin(
    tx: &Transaction<'_>,
    new: &NewBundleUpload,
    now: Timestamp,
) -> Result<bool, SqliteError> {
    let begun = tx.prepare_cached(BEGIN)?.execute(params![
        new.id.as_bytes(),
        new.actor,
        new.filename,
        new.content_type,
        new.size,
        new.declared_hash.as_ref().map(ContentHash::as_bytes),
        new.store_upload,
        now.as_millis(),
    ])?;
    Ok(begun > 0)
}

/// Notes how far an upload has come, if nobody has done so since.
#[tracing::instrument(level = "debug", name = "db.uploads.progress", skip_all)]
pub(super) fn progress(
    tx: &Transaction<'_>,
    id: Uuid,
    progress: &UploadProgress,
    now: Timestamp,
) -> Result<bool, SqliteError> {
    let parts = progress.parts.as_ref().map(json::text).transpose()?;
    let noted = tx.prepare_cached(PROGRESS)?.execute(params![
        id.as_bytes(),
        progress.from,
        progress.to,
        parts,
        now.as_millis(),
    ])?;
    Ok(noted > 0)
}

/// Ends an upload, if it can end so.
#[tracing::instrument(level = "debug", name = "db.uploads.end", skip_all)]
pub(super) fn end(
    tx: &Transaction<'_>,
    id: Uuid,
    end: &UploadEnd,
    now: Timestamp,
) -> Result<bool, SqliteError> {
    let ended = tx.prepare_cached(END)?.execute(params![
        id.as_bytes(),
        end.state().as_str(),
        end.code(),
        end.hash().map(ContentHash::as_bytes),
        end.etag(),
        now.as_millis(),
    ])?;
    Ok(ended > 0)
}

/// Removes what was last noted before `before`, at most `limit`, and tells how much it was.
#[tracing::instrument(level = "debug", name = "db.uploads.remove", skip_all)]
pub(super) fn remove(
    tx: &Transaction<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, SqliteError> {
    let params = params![before.as_millis(), limit];
    let removed = tx.prepare_cached(REMOVE)?.execute(params)?;
    Ok(removed as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::{assert_searches, assert_uses};

    #[tokio::test]
    async fn an_upload_is_found_by_its_id() {
        for sql in [FIND, PROGRESS, END] {
            assert_searches(sql).await;
        }
    }

    #[tokio::test]
    async fn the_oldest_uploads_are_found_by_time() {
        let (delete, select) = REMOVE.split_once("(SELECT").unwrap();
        let select = ["SELECT", select.trim_end_matches(')')].concat();
        assert_uses(&select, "registry_bundle_uploads_of_time").await;
        assert_uses(&[delete, "(1)"].concat(), "INTEGER PRIMARY KEY").await;
    }
}
