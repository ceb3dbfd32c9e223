//! Statements about the audit.

use alga_model::{ExtensionName, Timestamp};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqliteExecutor};

use super::error::SqliteError;
use super::{json_text, lookahead, rows};
use crate::audit::{AuditEntry, AuditFilter, AuditOrder, AuditRecord};
use crate::change::Change;
use crate::page::{Page, PageRequest};

const INSERT: &str = "INSERT INTO registry_audit
    (at, actor, request_id, action, tenant_id, install_id, extension, details)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const SELECT: &str =
    "SELECT seq, at, actor, request_id, action, tenant_id, install_id, extension, details
    FROM registry_audit";
const REMOVE: &str = "DELETE FROM registry_audit WHERE seq IN
    (SELECT seq FROM registry_audit WHERE at < ?1 ORDER BY at, seq LIMIT ?2)";

/// Adds a record to the transaction of the mutation it describes.
#[tracing::instrument(level = "debug", name = "db.audit.record", skip_all)]
pub(super) async fn record(
    tx: &mut SqliteConnection,
    entry: &AuditEntry<'_>,
    change: Change<'_>,
) -> Result<(), SqliteError> {
    sqlx::query(INSERT)
        .bind(change.now.as_millis())
        .bind(change.actor)
        .bind(change.request_id)
        .bind(entry.action.as_str())
        .bind(
            entry
                .tenant
                .as_ref()
                .map(|tenant| tenant.as_bytes().as_slice()),
        )
        .bind(
            entry
                .install
                .as_ref()
                .map(|install| install.as_bytes().as_slice()),
        )
        .bind(entry.extension.map(ExtensionName::as_str))
        .bind(json_text(&entry.details)?)
        .execute(tx)
        .await?;
    Ok(())
}

#[tracing::instrument(level = "debug", name = "db.audit.list", skip_all)]
pub(super) async fn list(
    executor: impl SqliteExecutor<'_>,
    filter: &AuditFilter,
    page: PageRequest<u64>,
) -> Result<Page<AuditRecord, u64>, SqliteError> {
    let rows = page_query(filter, page).build().fetch_all(executor).await?;
    let found = rows
        .iter()
        .map(rows::audit_record)
        .collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |record: &AuditRecord| record.seq,
    ))
}

/// Removes the oldest records from before `before`, at most `limit`, and tells how many.
#[tracing::instrument(level = "debug", name = "db.audit.remove", skip_all)]
pub(super) async fn remove(
    tx: &mut SqliteConnection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, SqliteError> {
    let removed = sqlx::query(REMOVE)
        .bind(before.as_millis())
        .bind(limit)
        .execute(tx)
        .await?;
    Ok(removed.rows_affected())
}

fn page_query(filter: &AuditFilter, page: PageRequest<u64>) -> QueryBuilder<Sqlite> {
    let after = page.after.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let mut query = QueryBuilder::new(SELECT);
    match filter.order {
        AuditOrder::OldestFirst => query.push(" WHERE seq > ").push_bind(after.unwrap_or(0)),
        AuditOrder::NewestFirst => query
            .push(" WHERE seq < ")
            .push_bind(after.unwrap_or(i64::MAX)),
    };
    if let Some(tenant) = &filter.tenant {
        query
            .push(" AND tenant_id = ")
            .push_bind(tenant.as_bytes().as_slice());
    }
    if let Some(install) = &filter.install {
        query
            .push(" AND install_id = ")
            .push_bind(install.as_bytes().as_slice());
    }
    if let Some(extension) = &filter.extension {
        query
            .push(" AND extension = ")
            .push_bind(extension.as_str());
    }
    if let Some(action) = filter.action {
        query.push(" AND action = ").push_bind(action.as_str());
    }
    // The plus keeps SQLite from the index of times, whose order isn't that of the pages.
    if let Some(since) = filter.since {
        query.push(" AND +at >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.until {
        query.push(" AND +at < ").push_bind(until.as_millis());
    }
    query.push(match filter.order {
        AuditOrder::OldestFirst => " ORDER BY seq LIMIT ",
        AuditOrder::NewestFirst => " ORDER BY seq DESC LIMIT ",
    });
    query.push_bind(lookahead(page.limit));
    query
}

#[cfg(test)]
mod tests {
    use alga_model::{InstallId, TenantId};

    use super::*;
    use crate::sqlite::plan::assert_uses;

    #[tokio::test]
    async fn the_oldest_records_are_found_by_time() {
        let (delete, select) = REMOVE.split_once("(SELECT").unwrap();
        let select = ["SELECT", select.trim_end_matches(')')].concat();
        assert_uses(&select, "registry_audit_of_time").await;
        assert_uses(&[delete, "(1)"].concat(), "INTEGER PRIMARY KEY").await;
    }

    #[tokio::test]
    async fn a_span_of_time_is_read_without_sorting() {
        for (since, until) in [(Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
            for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
                let filter = AuditFilter {
                    since: since.map(Timestamp::from_millis),
                    until: until.map(Timestamp::from_millis),
                    order,
                    ..AuditFilter::default()
                };
                let query = page_query(&filter, PageRequest::first(10));
                assert_uses(query.sql().as_str(), "INTEGER PRIMARY KEY").await;
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
            (AuditFilter::default(), "INTEGER PRIMARY KEY"),
            (tenant, "registry_audit_of_tenant"),
            (install, "registry_audit_of_install"),
            (extension, "registry_audit_of_extension"),
        ];
        for (filter, index) in cases {
            for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
                let filter = AuditFilter {
                    order,
                    ..filter.clone()
                };
                assert_uses(
                    page_query(&filter, PageRequest::first(10)).sql().as_str(),
                    index,
                )
                .await;
            }
        }
    }
}
