//! Statements about the audit.

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use rusqlite::{Connection, Transaction, params};

use super::error::SqliteError;
use super::find_all;
use crate::audit::{AuditAction, AuditEntry, AuditFilter, AuditOrder, AuditRecord};
use crate::change::Change;
use crate::json;
use crate::page::{Page, PageRequest};
use crate::rows;

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
pub(super) fn record(
    tx: &Transaction<'_>,
    entry: &AuditEntry<'_>,
    change: Change<'_>,
) -> Result<(), SqliteError> {
    tx.prepare_cached(INSERT)?.execute(params![
        change.now.as_millis(),
        change.actor,
        change.request_id,
        entry.action.as_str(),
        entry.tenant.as_ref().map(TenantId::as_bytes),
        entry.install.as_ref().map(InstallId::as_bytes),
        entry.extension.map(ExtensionName::as_str),
        json::text(&entry.details)?,
    ])?;
    Ok(())
}

#[tracing::instrument(level = "debug", name = "db.audit.list", skip_all)]
pub(super) fn list(
    connection: &Connection,
    filter: &AuditFilter,
    page: PageRequest<u64>,
) -> Result<Page<AuditRecord, u64>, SqliteError> {
    let after = page.after.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let params = params![
        after.unwrap_or(match filter.order {
            AuditOrder::OldestFirst => 0,
            AuditOrder::NewestFirst => i64::MAX,
        }),
        filter.tenant.as_ref().map(TenantId::as_bytes),
        filter.install.as_ref().map(InstallId::as_bytes),
        filter.extension.as_ref().map(ExtensionName::as_str),
        filter.action.map(AuditAction::as_str),
        filter.since.map(Timestamp::as_millis),
        filter.until.map(Timestamp::as_millis),
        page.lookahead(),
    ];
    let found = find_all(connection, &page_sql(filter), params, rows::audit_record)?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |record: &AuditRecord| record.seq,
    ))
}

/// Removes the oldest records from before `before`, at most `limit`, and tells how many.
#[tracing::instrument(level = "debug", name = "db.audit.remove", skip_all)]
pub(super) fn remove(
    tx: &Transaction<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, SqliteError> {
    let params = params![before.as_millis(), limit];
    let removed = tx.prepare_cached(REMOVE)?.execute(params)?;
    Ok(removed as u64)
}

/// A page of the audit. Each condition has a number of its own and is there only if it is asked
/// for, so that each gets its index; all are bound nevertheless.
fn page_sql(filter: &AuditFilter) -> String {
    let (begin, end) = match filter.order {
        AuditOrder::OldestFirst => (" WHERE seq > ?1", " ORDER BY seq LIMIT ?8"),
        AuditOrder::NewestFirst => (" WHERE seq < ?1", " ORDER BY seq DESC LIMIT ?8"),
    };
    let conditions = [
        (filter.tenant.is_some(), " AND tenant_id = ?2"),
        (filter.install.is_some(), " AND install_id = ?3"),
        (filter.extension.is_some(), " AND extension = ?4"),
        (filter.action.is_some(), " AND action = ?5"),
        // The plus keeps SQLite from the index of times, whose order isn't that of the pages.
        (filter.since.is_some(), " AND +at >= ?6"),
        (filter.until.is_some(), " AND +at < ?7"),
    ];
    let mut sql = [SELECT, begin].concat();
    sql.extend(
        conditions
            .iter()
            .filter(|(is_there, _)| *is_there)
            .map(|(_, sql)| *sql),
    );
    sql + end
}

#[cfg(test)]
mod tests {
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
                assert_uses(&page_sql(&filter), "INTEGER PRIMARY KEY").await;
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
                assert_uses(&page_sql(&filter), index).await;
            }
        }
    }
}
