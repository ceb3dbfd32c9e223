//! Statements about requests that are answered once.

use alga_model::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::error::SqliteError;
use super::{find_one, rows};
use crate::idempotency::{Claim, Claimed, KeyedRequest};

const FIND: &str = "SELECT rowid, request, expires_at, answer FROM registry_answers
    WHERE install_id = ?1 AND key = ?2";
const CLAIM: &str = "INSERT INTO registry_answers (install_id, key, request, claim, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (install_id, key) DO UPDATE SET request = excluded.request,
        claim = excluded.claim, expires_at = excluded.expires_at, answer = NULL";
const KEEP: &str = "UPDATE registry_answers SET answer = ?4, expires_at = ?5
    WHERE install_id = ?1 AND key = ?2 AND claim = ?3 AND answer IS NULL";
const GIVE_UP: &str = "DELETE FROM registry_answers
    WHERE install_id = ?1 AND key = ?2 AND claim = ?3 AND answer IS NULL";
const REMOVE: &str = "DELETE FROM registry_answers WHERE rowid IN
    (SELECT rowid FROM registry_answers WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// What is known of a request; nothing where it can be claimed.
#[tracing::instrument(level = "debug", name = "db.answers.find", skip_all)]
pub(super) fn find(
    connection: &Connection,
    request: &KeyedRequest,
    now: Timestamp,
) -> Result<Option<Claimed>, SqliteError> {
    let params = params![request.install.as_bytes(), request.key.as_str()];
    let known = find_one(connection, FIND, params, rows::known_request)?;
    Ok(known.and_then(|known| known.judge(request, now)))
}

/// Claims a request unless it is claimed or answered.
#[tracing::instrument(level = "debug", name = "db.answers.claim", skip_all)]
pub(super) fn claim(
    tx: &Transaction<'_>,
    request: &KeyedRequest,
    now: Timestamp,
    until: Timestamp,
) -> Result<Claimed, SqliteError> {
    if let Some(known) = find(tx, request, now)? {
        return Ok(known);
    }
    let claim = Claim::to(request);
    tx.prepare_cached(CLAIM)?.execute(params![
        claim.install.as_bytes(),
        claim.key.as_str(),
        request.digest.as_bytes(),
        claim.id.as_bytes(),
        until.as_millis(),
    ])?;
    Ok(Claimed::Ours(claim))
}

/// Keeps the answer to a request, if it is still the caller's to answer.
#[tracing::instrument(level = "debug", name = "db.answers.keep", skip_all)]
pub(super) fn keep(
    tx: &Transaction<'_>,
    claim: &Claim,
    answer: &[u8],
    until: Timestamp,
) -> Result<bool, SqliteError> {
    let kept = tx.prepare_cached(KEEP)?.execute(params![
        claim.install.as_bytes(),
        claim.key.as_str(),
        claim.id.as_bytes(),
        answer,
        until.as_millis(),
    ])?;
    Ok(kept > 0)
}

/// Lets others claim the request at once.
#[tracing::instrument(level = "debug", name = "db.answers.give_up", skip_all)]
pub(super) fn give_up(tx: &Transaction<'_>, claim: &Claim) -> Result<(), SqliteError> {
    tx.prepare_cached(GIVE_UP)?.execute(params![
        claim.install.as_bytes(),
        claim.key.as_str(),
        claim.id.as_bytes(),
    ])?;
    Ok(())
}

/// Removes what is expired, at most `limit`, and tells how much it was.
#[tracing::instrument(level = "debug", name = "db.answers.remove", skip_all)]
pub(super) fn remove(tx: &Transaction<'_>, now: Timestamp, limit: u32) -> Result<u64, SqliteError> {
    let params = params![now.as_millis(), limit];
    let removed = tx.prepare_cached(REMOVE)?.execute(params)?;
    Ok(removed as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::{assert_searches, assert_uses};

    #[tokio::test]
    async fn a_request_is_found_by_its_key() {
        for sql in [FIND, KEEP, GIVE_UP] {
            assert_searches(sql).await;
        }
    }

    #[tokio::test]
    async fn what_is_expired_is_found_by_time() {
        let (delete, select) = REMOVE.split_once("(SELECT").unwrap();
        let select = ["SELECT", select.trim_end_matches(')')].concat();
        assert_uses(&select, "registry_answers_of_time").await;
        assert_uses(&[delete, "(1)"].concat(), "INTEGER PRIMARY KEY").await;
    }
}
