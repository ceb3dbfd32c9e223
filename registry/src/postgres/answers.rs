//! Statements about requests that are answered once.

use alga_model::{TenantId, Timestamp};
use alga_postgres::Time;
use uuid::Uuid;

use super::error::PostgresError;
use super::session::{Session, bigint};
use crate::error::{RegistryError, Resource};
use crate::idempotency::{AnswerQuota, AnswerQuotas, Claim, KeptAnswer, KeyedRequest, Known};
use crate::install::Install;
use crate::rows;

/// A content is read only where it is to be given.
const FIND: &str = "SELECT claim, request, expires_at, status, bytes,
        CASE WHEN request = $3 AND expires_at > $4 THEN answer END AS answer
    FROM registry_answers WHERE install_id = $1 AND key = $2";
const TENANT: &str =
    "SELECT tenant_id FROM registry_installs WHERE id = $1 AND state <> 'uninstalled'";
/// Waits for whoever uninstalls the install, and keeps others from that.
const CLAIM: &str =
    "INSERT INTO registry_answers (install_id, tenant_id, key, request, claim, expires_at)
    SELECT id, tenant_id, $2, $3, $4, $5 FROM registry_installs
        WHERE id = $1 AND state <> 'uninstalled' FOR SHARE
    ON CONFLICT (install_id, key) DO NOTHING
    RETURNING tenant_id";
const KEEP: &str = "UPDATE registry_answers
    SET status = $4, bytes = $5, answer = $6, expires_at = $7
    WHERE install_id = $1 AND key = $2 AND claim = $3 AND status IS NULL";
const GIVE_UP: &str = "DELETE FROM registry_answers
    WHERE install_id = $1 AND key = $2 AND claim = $3 AND status IS NULL";
const FREE: &str = "DELETE FROM registry_answers
    WHERE install_id = $1 AND key = $2 AND expires_at <= $3";
const REMOVE_OF: &str = "DELETE FROM registry_answers
    WHERE install_id = $1 AND key = ANY (ARRAY(
        SELECT key FROM registry_answers WHERE install_id = $1 LIMIT $2 FOR UPDATE))";
/// The tenants whose answers are over first.
const TENANTS_TO_REMOVE_OF: &str = "SELECT DISTINCT tenant_id FROM (
        SELECT tenant_id FROM registry_answers WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
    ) AS due";
const REMOVE: &str = "DELETE FROM registry_answers AS a USING (
        SELECT install_id, key FROM registry_answers
        WHERE expires_at <= $1 AND tenant_id = ANY ($3) ORDER BY expires_at LIMIT $2
    ) AS due
    WHERE a.install_id = due.install_id AND a.key = due.key AND a.expires_at <= $1";
const LOCK: &str = "INSERT INTO registry_answer_counts AS c (kind, id, answers, bytes)
    SELECT 'tenant', id, 0, 0 FROM unnest($1::uuid[]) AS tenant (id) ORDER BY id
    ON CONFLICT (kind, id) DO UPDATE SET answers = c.answers";

/// Rows of an install that are removed at once. Each may have a MiB, and who writes beside it waits.
const BATCH: u32 = 64;
/// Contents that are dropped at once.
const STRIPPED_AT_ONCE: i64 = 64;

/// Those whose answers are counted together.
struct Owner<'a> {
    id: &'a Uuid,
    count: &'static str,
    forget_oldest: &'static str,
    strip_oldest: &'static str,
}

const COUNT_OF_INSTALL: &str =
    "SELECT id, answers, bytes FROM registry_answer_counts WHERE kind = 'install' AND id = $1";
const COUNT_OF_TENANT: &str =
    "SELECT id, answers, bytes FROM registry_answer_counts WHERE kind = 'tenant' AND id = $1";

/// Forgets the oldest `$2` answers of an owner.
macro_rules! forget_oldest {
    ($owner:literal) => {
        concat!(
            "DELETE FROM registry_answers AS a USING (
                SELECT install_id, key FROM registry_answers WHERE ",
            $owner,
            " = $1 AND status IS NOT NULL ORDER BY expires_at, claim LIMIT $2
            ) AS oldest
            WHERE a.install_id = oldest.install_id AND a.key = oldest.key"
        )
    };
}
/// Drops the oldest contents of an owner until `$2` bytes are free, at most `$3` of them.
macro_rules! strip_oldest {
    ($owner:literal) => {
        concat!(
            "UPDATE registry_answers AS a SET answer = NULL FROM (
                SELECT install_id, key,
                    sum(size) OVER (ORDER BY expires_at, claim) - size AS freed_before
                FROM (
                    SELECT install_id, key, expires_at, claim, octet_length(answer) AS size
                    FROM registry_answers WHERE ",
            $owner,
            " = $1 AND answer IS NOT NULL ORDER BY expires_at, claim LIMIT $3
                ) AS whole
            ) AS oldest
            WHERE a.install_id = oldest.install_id AND a.key = oldest.key AND freed_before < $2"
        )
    };
}

const FORGET_OLDEST_OF_INSTALL: &str = forget_oldest!("install_id");
const FORGET_OLDEST_OF_TENANT: &str = forget_oldest!("tenant_id");
const STRIP_OLDEST_OF_INSTALL: &str = strip_oldest!("install_id");
const STRIP_OLDEST_OF_TENANT: &str = strip_oldest!("tenant_id");

/// What is known of a request; nothing where it can be claimed.
#[tracing::instrument(level = "debug", name = "db.answers.find", skip_all)]
pub(super) async fn find(
    session: &mut Session<'_>,
    request: &KeyedRequest,
    now: Timestamp,
) -> Result<Option<Known>, PostgresError> {
    let find = session
        .of(FIND)
        .bind(request.install.as_uuid())
        .bind(request.key.as_str())
        .bind(request.digest.as_bytes())
        .bind(Time(now));
    let used = session.find_one(find, rows::used_key).await?;
    Ok(used.and_then(|used| used.judge(request, now)))
}

/// Claims a request whose key is free, in one statement; nothing where it isn't, or there is no such
/// install.
#[tracing::instrument(level = "debug", name = "db.answers.claim", skip_all)]
pub(super) async fn claim(
    session: &mut Session<'_>,
    request: &KeyedRequest,
    until: Timestamp,
) -> Result<Option<Claim>, PostgresError> {
    let id = Uuid::now_v7();
    let claim = session
        .of(CLAIM)
        .bind(request.install.as_uuid())
        .bind(request.key.as_str())
        .bind(request.digest.as_bytes())
        .bind(id)
        .bind(Time(until));
    let tenant = session.find_one(claim, rows::tenant_id).await?;
    Ok(tenant.map(|tenant| Claim::of(request, tenant, id)))
}

/// What keeps a request from being claimed, in a transaction that the caller commits. Where that is
/// only something that is over, it is removed.
#[tracing::instrument(level = "debug", name = "db.answers.free", skip_all)]
pub(super) async fn known_or_freed(
    session: &mut Session<'_>,
    request: &KeyedRequest,
    now: Timestamp,
) -> Result<Option<Known>, PostgresError> {
    let tenant = session.of(TENANT).bind(request.install.as_uuid());
    let tenant = session.find_one(tenant, rows::tenant_id).await?;
    let tenant = tenant.ok_or(RegistryError::NotFound {
        what: Resource::Install,
    })?;
    if let Some(known) = find(session, request, now).await? {
        return Ok(Some(known));
    }
    lock(session, &[tenant]).await?;
    let free = session
        .of(FREE)
        .bind(request.install.as_uuid())
        .bind(request.key.as_str())
        .bind(Time(now));
    session.execute(free).await?;
    Ok(None)
}

/// Keeps the answer to a request, if it is still the caller's to answer.
#[tracing::instrument(level = "debug", name = "db.answers.keep", skip_all)]
pub(super) async fn keep(
    session: &mut Session<'_>,
    claim: &Claim,
    answer: &KeptAnswer,
    until: Timestamp,
    quotas: AnswerQuotas,
) -> Result<bool, PostgresError> {
    lock(session, &[claim.tenant]).await?;
    let keep = session
        .of(KEEP)
        .bind(claim.install.as_uuid())
        .bind(claim.key.as_str())
        .bind(claim.id)
        .bind(i64::from(answer.status))
        .bind(bigint(answer.bytes))
        .bind(answer.content.as_deref())
        .bind(Time(until));
    if session.execute(keep).await? == 0 {
        return Ok(false);
    }
    let owners = [
        (Owner::install(claim), quotas.install),
        (Owner::tenant(claim), quotas.tenant),
    ];
    for (owner, quota) in owners {
        owner.make_room(session, quota).await?;
    }
    Ok(true)
}

impl<'a> Owner<'a> {
    const fn install(claim: &'a Claim) -> Self {
        Self {
            id: claim.install.as_uuid(),
            count: COUNT_OF_INSTALL,
            forget_oldest: FORGET_OLDEST_OF_INSTALL,
            strip_oldest: STRIP_OLDEST_OF_INSTALL,
        }
    }

    const fn tenant(claim: &'a Claim) -> Self {
        Self {
            id: claim.tenant.as_uuid(),
            count: COUNT_OF_TENANT,
            forget_oldest: FORGET_OLDEST_OF_TENANT,
            strip_oldest: STRIP_OLDEST_OF_TENANT,
        }
    }

    /// Makes the oldest answers give way until the others fit. Every one gives way once, so that
    /// this costs no more in the long run than keeping them did.
    async fn make_room(
        &self,
        session: &mut Session<'_>,
        quota: AnswerQuota,
    ) -> Result<(), PostgresError> {
        let overcounted = || rows::overcounted_answers(*self.id);
        loop {
            let count = session.of(self.count).bind(self.id);
            let used = session.find_one(count, rows::kept_answers).await?;
            let used = used.ok_or_else(overcounted)?;
            let answers = used.answers.saturating_sub(quota.answers);
            let bytes = used.bytes.saturating_sub(quota.bytes);
            let oldest = |sql, much| session.of(sql).bind(self.id).bind(bigint(much));
            let give_way = if answers > 0 {
                oldest(self.forget_oldest, answers)
            } else if bytes > 0 {
                oldest(self.strip_oldest, bytes).bind(STRIPPED_AT_ONCE)
            } else {
                return Ok(());
            };
            if session.execute(give_way).await? == 0 {
                // More are counted than there are: a fault, which must not go on for ever.
                return Err(overcounted().into());
            }
        }
    }
}

/// Lets others claim the request at once.
#[tracing::instrument(level = "debug", name = "db.answers.give_up", skip_all)]
pub(super) async fn give_up(session: &mut Session<'_>, claim: &Claim) -> Result<(), PostgresError> {
    let give_up = session
        .of(GIVE_UP)
        .bind(claim.install.as_uuid())
        .bind(claim.key.as_str())
        .bind(claim.id);
    session.execute(give_up).await?;
    Ok(())
}

/// The tenants of the first `limit` answers that are over.
#[tracing::instrument(level = "debug", name = "db.answers.due", skip_all)]
pub(super) async fn tenants_to_remove_of(
    session: &mut Session<'_>,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<TenantId>, PostgresError> {
    let due = session
        .of(TENANTS_TO_REMOVE_OF)
        .bind(Time(now))
        .bind(bigint(limit));
    session.find_all(due, rows::tenant_id).await
}

/// Removes what is expired of these tenants, at most `limit`, and tells how much it was.
#[tracing::instrument(level = "debug", name = "db.answers.remove", skip_all)]
pub(super) async fn remove(
    session: &mut Session<'_>,
    tenants: &[TenantId],
    now: Timestamp,
    limit: u64,
) -> Result<u64, PostgresError> {
    lock(session, tenants).await?;
    let remove = session
        .of(REMOVE)
        .bind(Time(now))
        .bind(bigint(limit))
        .bind(ids(tenants));
    session.execute(remove).await
}

/// Removes some of what is kept for an install, and tells whether that was not all.
#[tracing::instrument(level = "debug", name = "db.answers.remove_of", skip_all, fields(install.id = %install.id))]
pub(super) async fn remove_of(
    session: &mut Session<'_>,
    install: &Install,
) -> Result<bool, PostgresError> {
    lock(session, &[install.tenant]).await?;
    let remove = session
        .of(REMOVE_OF)
        .bind(install.id.as_uuid())
        .bind(i64::from(BATCH));
    Ok(session.execute(remove).await? >= u64::from(BATCH))
}

/// Keeps others from changing or removing answers of these tenants before the transaction ends.
async fn lock(session: &mut Session<'_>, tenants: &[TenantId]) -> Result<(), PostgresError> {
    let lock = session.of(LOCK).bind(ids(tenants));
    session.execute(lock).await?;
    Ok(())
}

fn ids(tenants: &[TenantId]) -> Vec<Uuid> {
    tenants.iter().map(TenantId::as_uuid).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn a_request_is_found_by_its_key() {
        let plans = Plans::new().await;
        for sql in [FIND, TENANT, CLAIM, KEEP, GIVE_UP, FREE] {
            plans.assert_searches(sql).await;
        }
        plans.assert_uses(REMOVE_OF, "registry_answers_pkey").await;
    }

    #[tokio::test]
    async fn what_goes_first_is_found_by_time() {
        let plans = Plans::new().await;
        for (sql, index) in [
            (REMOVE, "registry_answers_of_time"),
            (FORGET_OLDEST_OF_INSTALL, "registry_answers_of_install"),
            (FORGET_OLDEST_OF_TENANT, "registry_answers_of_tenant"),
            (STRIP_OLDEST_OF_INSTALL, "registry_answers_whole_of_install"),
            (STRIP_OLDEST_OF_TENANT, "registry_answers_whole_of_tenant"),
        ] {
            plans.assert_uses(sql, index).await;
            plans.assert_uses(sql, "registry_answers_pkey").await;
        }
    }

    #[tokio::test]
    async fn nothing_is_counted_to_know_how_much_is_kept() {
        let plans = Plans::new().await;
        for sql in [COUNT_OF_INSTALL, COUNT_OF_TENANT] {
            plans.assert_uses(sql, "registry_answer_counts_pkey").await;
        }
    }
}
