//! Statements about the audit.

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_postgres::Time;
use sqlx::{Postgres, QueryBuilder};

use super::error::PostgresError;
use super::session::{Session, bigint};
use crate::audit::{AuditEntry, AuditFilter, AuditOrder, AuditRecord};
use crate::change::Change;
use crate::error::RegistryError;
use crate::json;
use crate::page::{Page, PageRequest};
use crate::rows;

const INSERT: &str = "WITH last AS (
        UPDATE registry_audit_last SET seq = seq + 1 WHERE id = 1 RETURNING seq
    )
    INSERT INTO registry_audit
        (seq, at, actor, request_id, action, tenant_id, install_id, extension, details)
    SELECT seq, $1, $2, $3, $4, $5, $6, $7, $8::json FROM last";
const SELECT: &str = "SELECT seq, at, actor, request_id, action, tenant_id, install_id, extension,
        details::text AS details
    FROM registry_audit";
/// What another process removes at this moment is left to it.
const REMOVE: &str = "DELETE FROM registry_audit WHERE seq = ANY (ARRAY(
    SELECT seq FROM registry_audit WHERE at < $1 ORDER BY at, seq LIMIT $2 FOR UPDATE SKIP LOCKED))";

/// Adds a record to the transaction of the mutation it describes, as the last thing done there: others
/// wait for their numbers from now on until it is committed.
#[tracing::instrument(level = "debug", name = "db.audit.record", skip_all)]
pub(super) async fn record(
    session: &mut Session<'_>,
    entry: &AuditEntry<'_>,
    change: Change<'_>,
) -> Result<(), PostgresError> {
    let insert = session
        .of(INSERT)
        .bind(Time(change.now))
        .bind(change.actor)
        .bind(change.request_id)
        .bind(entry.action.as_str())
        .bind(entry.tenant.as_ref().map(TenantId::as_uuid))
        .bind(entry.install.as_ref().map(InstallId::as_uuid))
        .bind(entry.extension.map(ExtensionName::as_str))
        .bind(json::text(&entry.details)?);
    if session.execute(insert).await? == 0 {
        let missing = RegistryError::Inconsistency {
            table: "registry_audit_last",
            column: "seq",
            key: "1".to_owned(),
        };
        return Err(missing.into());
    }
    Ok(())
}

#[tracing::instrument(level = "debug", name = "db.audit.list", skip_all)]
pub(super) async fn list(
    session: &mut Session<'_>,
    filter: &AuditFilter,
    page: PageRequest<u64>,
) -> Result<Page<AuditRecord, u64>, PostgresError> {
    let mut sql = page_sql(filter, page);
    let listing = session.built(&mut sql);
    let found = session.find_all(listing, rows::audit_record).await?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |record: &AuditRecord| record.seq,
    ))
}

/// Removes the oldest records from before `before`, at most `limit`, and tells how many.
#[tracing::instrument(level = "debug", name = "db.audit.remove", skip_all)]
pub(super) async fn remove(
    session: &mut Session<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, PostgresError> {
    let remove = session.of(REMOVE).bind(Time(before)).bind(i64::from(limit));
    session.execute(remove).await
}

/// A page of the audit. A condition is there only if it is asked for, so that each gets its index.
fn page_sql(filter: &AuditFilter, page: PageRequest<u64>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(SELECT);
    let after = page.after.map(bigint);
    let (begin, first, end) = match filter.order {
        AuditOrder::OldestFirst => (" WHERE seq > ", 0, " ORDER BY seq LIMIT "),
        AuditOrder::NewestFirst => (" WHERE seq < ", i64::MAX, " ORDER BY seq DESC LIMIT "),
    };
    sql.push(begin).push_bind(after.unwrap_or(first));
    if let Some(tenant) = &filter.tenant {
        sql.push(" AND tenant_id = ").push_bind(*tenant.as_uuid());
    }
    if let Some(install) = &filter.install {
        sql.push(" AND install_id = ").push_bind(*install.as_uuid());
    }
    if let Some(extension) = &filter.extension {
        sql.push(" AND extension = ")
            .push_bind(extension.as_str().to_owned());
    }
    if let Some(action) = filter.action {
        sql.push(" AND action = ").push_bind(action.as_str());
    }
    if let Some(since) = filter.since {
        sql.push(" AND at >= ").push_bind(Time(since));
    }
    if let Some(until) = filter.until {
        sql.push(" AND at < ").push_bind(Time(until));
    }
    sql.push(end).push_bind(page.lookahead());
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    fn page_of(filter: &AuditFilter) -> String {
        page_sql(filter, PageRequest::first(10)).into_string()
    }

    #[tokio::test]
    async fn the_oldest_records_are_found_by_time() {
        let plans = Plans::new().await;
        plans.assert_uses(REMOVE, "registry_audit_of_time").await;
        plans.assert_uses(REMOVE, "registry_audit_pkey").await;
    }

    #[tokio::test]
    async fn a_span_of_time_is_read_without_sorting() {
        let plans = Plans::new().await;
        for (since, until) in [(Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
            for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
                let filter = AuditFilter {
                    since: since.map(Timestamp::from_millis),
                    until: until.map(Timestamp::from_millis),
                    order,
                    ..AuditFilter::default()
                };
                plans
                    .assert_uses(&page_of(&filter), "registry_audit_pkey")
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn each_subject_has_its_index() {
        let tenant = AuditFilter {
            tenant: Some(TenantId::generate()),
            ..AuditFilter::default()
        };
        let install = AuditFilter {
            install: Some(InstallId::generate()),
            ..AuditFilter::default()
        };
        let extension = AuditFilter {
            extension: Some("com.example.notes".parse().unwrap()),
            ..AuditFilter::default()
        };
        let cases = [
            (AuditFilter::default(), "registry_audit_pkey"),
            (tenant, "registry_audit_of_tenant"),
            (install, "registry_audit_of_install"),
            (extension, "registry_audit_of_extension"),
        ];
        let plans = Plans::new().await;
        for (filter, index) in cases {
            for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
                let filter = AuditFilter {
                    order,
                    ..filter.clone()
                };
                plans.assert_uses(&page_of(&filter), index).await;
            }
        }
    }
}
