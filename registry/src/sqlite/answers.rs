//! Statements about requests that are answered once.

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::find_one;
use crate::error::{RegistryError, Resource};
use crate::idempotency::{
    AnswerQuota, AnswerQuotas, Claim, Claimed, KeptAnswer, KeyedRequest, Known,
};
use crate::rows;

/// A content is read only where it is to be given.
const FIND: &str = "SELECT claim, request, expires_at, status, bytes,
        CASE WHEN request = ?3 AND expires_at > ?4 THEN answer END AS answer
    FROM registry_answers WHERE install_id = ?1 AND key = ?2";
const TENANT: &str =
    "SELECT tenant_id FROM registry_installs WHERE id = ?1 AND state <> 'uninstalled'";
const CLAIM: &str =
    "INSERT INTO registry_answers (install_id, tenant_id, key, request, claim, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (install_id, key) DO UPDATE SET request = excluded.request,
        claim = excluded.claim, expires_at = excluded.expires_at,
        status = NULL, bytes = NULL, answer = NULL";
const KEEP: &str = "UPDATE registry_answers
    SET status = ?4, bytes = ?5, answer = ?6, expires_at = ?7
    WHERE install_id = ?1 AND key = ?2 AND claim = ?3 AND status IS NULL";
const GIVE_UP: &str = "DELETE FROM registry_answers
    WHERE install_id = ?1 AND key = ?2 AND claim = ?3 AND status IS NULL";
const REMOVE: &str = "DELETE FROM registry_answers WHERE rowid IN
    (SELECT rowid FROM registry_answers WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
const REMOVE_OF: &str = "DELETE FROM registry_answers WHERE rowid IN
    (SELECT rowid FROM registry_answers WHERE install_id = ?1 LIMIT ?2)";

/// Rows of an install that are removed at once. Each may have a MiB, and who writes beside it waits.
const BATCH: u32 = 64;

/// Those whose answers are counted together.
struct Owner<'a> {
    id: &'a [u8; 16],
    count: &'static str,
    forget_oldest: &'static str,
    strip_oldest: &'static str,
}

const COUNT_OF_INSTALL: &str =
    "SELECT id, answers, bytes FROM registry_answer_counts WHERE kind = 'install' AND id = ?1";
const COUNT_OF_TENANT: &str =
    "SELECT id, answers, bytes FROM registry_answer_counts WHERE kind = 'tenant' AND id = ?1";
const FORGET_OLDEST_OF_INSTALL: &str = "DELETE FROM registry_answers WHERE rowid =
    (SELECT rowid FROM registry_answers WHERE install_id = ?1 AND status IS NOT NULL
        ORDER BY expires_at LIMIT 1)";
const FORGET_OLDEST_OF_TENANT: &str = "DELETE FROM registry_answers WHERE rowid =
    (SELECT rowid FROM registry_answers WHERE tenant_id = ?1 AND status IS NOT NULL
        ORDER BY expires_at LIMIT 1)";
const STRIP_OLDEST_OF_INSTALL: &str = "UPDATE registry_answers SET answer = NULL WHERE rowid =
    (SELECT rowid FROM registry_answers WHERE install_id = ?1 AND answer IS NOT NULL
        ORDER BY expires_at LIMIT 1)";
const STRIP_OLDEST_OF_TENANT: &str = "UPDATE registry_answers SET answer = NULL WHERE rowid =
    (SELECT rowid FROM registry_answers WHERE tenant_id = ?1 AND answer IS NOT NULL
        ORDER BY expires_at LIMIT 1)";

/// What is known of a request; nothing where it can be claimed.
#[tracing::instrument(level = "debug", name = "db.answers.find", skip_all)]
pub(super) fn find(
    connection: &Connection,
    request: &KeyedRequest,
    now: Timestamp,
) -> Result<Option<Known>, SqliteError> {
    let params = params![
        request.install.as_bytes(),
        request.key.as_str(),
        request.digest.as_bytes(),
        now.as_millis(),
    ];
    let used = find_one(connection, FIND, params, rows::used_key)?;
    Ok(used.and_then(|used| used.judge(request, now)))
}

/// Claims a request unless it is claimed or answered.
#[tracing::instrument(level = "debug", name = "db.answers.claim", skip_all)]
pub(super) fn claim(
    tx: &Transaction<'_>,
    request: &KeyedRequest,
    now: Timestamp,
    until: Timestamp,
) -> Result<Claimed, SqliteError> {
    let tenant = tenant_of(tx, request.install)?;
    if let Some(known) = find(tx, request, now)? {
        return Ok(Claimed::Known(known));
    }
    let claim = Claim::of(request, tenant, Uuid::now_v7());
    tx.prepare_cached(CLAIM)?.execute(params![
        claim.install.as_bytes(),
        claim.tenant.as_bytes(),
        claim.key.as_str(),
        request.digest.as_bytes(),
        claim.id.as_bytes(),
        until.as_millis(),
    ])?;
    Ok(Claimed::Ours(claim))
}

fn tenant_of(tx: &Transaction<'_>, install: InstallId) -> Result<TenantId, SqliteError> {
    let found = find_one(tx, TENANT, [install.as_bytes()], rows::tenant_id)?;
    let tenant = found.ok_or(RegistryError::NotFound {
        what: Resource::Install,
    })?;
    Ok(tenant)
}

/// Keeps the answer to a request, if it is still the caller's to answer.
#[tracing::instrument(level = "debug", name = "db.answers.keep", skip_all)]
pub(super) fn keep(
    tx: &Transaction<'_>,
    claim: &Claim,
    answer: &KeptAnswer,
    until: Timestamp,
    quotas: AnswerQuotas,
) -> Result<bool, SqliteError> {
    let kept = tx.prepare_cached(KEEP)?.execute(params![
        claim.install.as_bytes(),
        claim.key.as_str(),
        claim.id.as_bytes(),
        answer.status,
        answer.bytes,
        answer.content,
        until.as_millis(),
    ])?;
    if kept == 0 {
        return Ok(false);
    }
    Owner::install(claim).make_room(tx, quotas.install)?;
    Owner::tenant(claim).make_room(tx, quotas.tenant)?;
    Ok(true)
}

impl<'a> Owner<'a> {
    const fn install(claim: &'a Claim) -> Self {
        Self {
            id: claim.install.as_bytes(),
            count: COUNT_OF_INSTALL,
            forget_oldest: FORGET_OLDEST_OF_INSTALL,
            strip_oldest: STRIP_OLDEST_OF_INSTALL,
        }
    }

    const fn tenant(claim: &'a Claim) -> Self {
        Self {
            id: claim.tenant.as_bytes(),
            count: COUNT_OF_TENANT,
            forget_oldest: FORGET_OLDEST_OF_TENANT,
            strip_oldest: STRIP_OLDEST_OF_TENANT,
        }
    }

    /// Makes the oldest answers give way until the others fit. Every one gives way once, so that
    /// this costs no more in the long run than keeping them did.
    fn make_room(&self, tx: &Transaction<'_>, quota: AnswerQuota) -> Result<(), SqliteError> {
        loop {
            let overcounted = || rows::overcounted_answers(Uuid::from_bytes(*self.id));
            let used = find_one(tx, self.count, [self.id], rows::kept_answers)?;
            let used = used.ok_or_else(overcounted)?;
            let give_way = if used.answers > quota.answers {
                self.forget_oldest
            } else if used.bytes > quota.bytes {
                self.strip_oldest
            } else {
                return Ok(());
            };
            if tx.prepare_cached(give_way)?.execute([self.id])? == 0 {
                // More are counted than there are: a fault, which must not go on for ever.
                return Err(overcounted().into());
            }
        }
    }
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

/// Removes some of what is kept for an install, and tells whether that was not all.
#[tracing::instrument(level = "debug", name = "db.answers.remove_of", skip_all, fields(install.id = %install))]
pub(super) fn remove_of(tx: &Transaction<'_>, install: InstallId) -> Result<bool, SqliteError> {
    let params = params![install.as_bytes(), BATCH];
    let removed = tx.prepare_cached(REMOVE_OF)?.execute(params)?;
    Ok(removed >= BATCH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::{assert_searches, assert_uses};

    #[tokio::test]
    async fn a_request_is_found_by_its_key() {
        for sql in [FIND, TENANT, KEEP, GIVE_UP] {
            assert_searches(sql).await;
        }
    }

    #[tokio::test]
    async fn what_goes_first_is_found_by_time() {
        for (sql, index) in [
            (REMOVE, "registry_answers_of_time"),
            (FORGET_OLDEST_OF_INSTALL, "registry_answers_of_install"),
            (FORGET_OLDEST_OF_TENANT, "registry_answers_of_tenant"),
            (STRIP_OLDEST_OF_INSTALL, "registry_answers_whole_of_install"),
            (STRIP_OLDEST_OF_TENANT, "registry_answers_whole_of_tenant"),
        ] {
            let (change, select) = sql.split_once("(SELECT").unwrap();
            let select = ["SELECT", select.trim_end_matches(')')].concat();
            assert_uses(&select, index).await;
            assert_uses(&[change, "(1)"].concat(), "INTEGER PRIMARY KEY").await;
        }
    }

    #[tokio::test]
    async fn nothing_is_counted_to_know_how_much_is_kept() {
        for sql in [COUNT_OF_INSTALL, COUNT_OF_TENANT] {
            assert_uses(sql, "PRIMARY KEY").await;
        }
    }
}
