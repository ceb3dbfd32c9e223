//! The audit: one row a change, in the transaction of the change.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

use alga_model::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};
use uuid::{ContextV7, Uuid};

use super::error::SqliteError;
use super::rows;
use super::state::{Change, Place};
use super::store::write_rows;
use crate::contract::Namespace;
use crate::maintenance::{AuditFilter, AuditRecord, Removed};
use crate::service::Scope;

/// Whom the audit names where expired records were removed.
const SWEEPER: &str = "system:expiry";

/// Gives ids that grow with time and with every call.
pub(super) struct AuditIds(Mutex<ContextV7>);

/// A change and whose it is.
#[derive(Debug)]
pub(super) struct AuditEntry<'g> {
    pub(super) scope: &'g Scope,
    pub(super) namespace: &'g Namespace,
    pub(super) change: Change,
}

impl AuditIds {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ContextV7::new()))
    }

    fn next(&self, now: Timestamp) -> Uuid {
        let millis = now.as_millis().unsigned_abs();
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = u32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
        Uuid::new_v7(uuid::Timestamp::from_unix(&*context, millis / 1_000, nanos))
    }
}

impl fmt::Debug for AuditIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditIds")
    }
}

/// Adds the records of a group.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    ids: &AuditIds,
    entries: &[AuditEntry<'_>],
    now: Timestamp,
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, key, operation,
             revision_before, revision_after, bytes, actor, request_id) ";
    write_rows(connection, (INSERT, ""), entries, |row, entry| {
        let AuditEntry {
            scope,
            namespace,
            change,
        } = entry;
        row.push_bind(scope.tenant.as_bytes().as_slice())
            .push_bind(ids.next(now).as_bytes().as_slice())
            .push_bind(now.as_millis())
            .push_bind(scope.install.as_bytes().as_slice())
            .push_bind(scope.extension.as_str())
            .push_bind(namespace.as_str())
            .push_bind(change.key.as_str())
            .push_bind(change.operation)
            .push_bind(change.before.map(|revision| rows::integer(revision.get())))
            .push_bind(change.after.map(|revision| rows::integer(revision.get())))
            .push_bind(rows::integer(change.bytes))
            .push_bind(scope.actor.to_string())
            .push_bind(scope.request_id.as_ref());
    })
    .await
}

/// Adds the summary of expired records that were removed from a namespace.
pub(super) async fn insert_removal(
    connection: &mut SqliteConnection,
    ids: &AuditIds,
    place: &Place,
    removed: Removed,
    now: Timestamp,
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, namespace, operation, records, bytes, actor)
        VALUES (?, ?, ?, ?, ?, 'expire', ?, ?, ?)";
    sqlx::query(INSERT)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(ids.next(now).as_bytes().as_slice())
        .bind(now.as_millis())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(rows::integer(removed.records))
        .bind(rows::integer(removed.bytes))
        .bind(SWEEPER)
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads records in the order of time.
pub(super) async fn list(
    pool: &SqlitePool,
    filter: &AuditFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<AuditRecord>, SqliteError> {
    list_statement(filter, after, limit)
        .build()
        .fetch_all(pool)
        .await?
        .iter()
        .map(rows::audit_record)
        .collect()
}

fn list_statement(filter: &AuditFilter, after: Option<Uuid>, limit: u32) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(
        "SELECT audit_id, at, tenant_id, install_id, extension, namespace, key, operation,
                revision_before, revision_after, schema_version, records, bytes, actor, request_id
         FROM ext_storage_audit WHERE audit_id > ",
    );
    // Ids begin with their time, so that a range of time is a range of ids.
    let since = filter.since.map(first_id_at);
    let from = after.max(since).unwrap_or(Uuid::nil());
    statement.push_bind(from.as_bytes().as_slice());
    if let Some(until) = filter.until {
        statement
            .push(" AND audit_id < ")
            .push_bind(first_id_at(until).as_bytes().as_slice());
    }
    if let Some(tenant) = filter.tenant {
        statement
            .push(" AND tenant_id = ")
            .push_bind(tenant.as_bytes().as_slice());
    }
    if let Some(install) = filter.install {
        statement
            .push(" AND install_id = ")
            .push_bind(install.as_bytes().as_slice());
    }
    statement.push(" ORDER BY audit_id LIMIT ").push_bind(limit);
    statement
}

/// Removes records from before `before`, the oldest first.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, SqliteError> {
    const DELETE: &str = "
        DELETE FROM ext_storage_audit WHERE (tenant_id, audit_id) IN (
            SELECT tenant_id, audit_id FROM ext_storage_audit
            WHERE audit_id < ? ORDER BY audit_id LIMIT ?
        )";
    let done = sqlx::query(DELETE)
        .bind(first_id_at(before).as_bytes().as_slice())
        .bind(limit)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Before every id that was given at `time` or later, after every one from before (RFC 9562, 5.7).
fn first_id_at(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(time.as_millis().unsigned_abs()) << 80)
}

impl AuditEntry<'_> {
    /// Says what happened, for a log pipeline. Off unless the target is asked for.
    pub(super) fn tell(&self, now: Timestamp) {
        let Self {
            scope,
            namespace,
            change,
        } = self;
        tracing::debug!(
            target: "audit",
            time = %now,
            tenant.id = %scope.tenant,
            install.id = %scope.install,
            extension.id = %scope.extension,
            namespace = %namespace,
            key = change.key.as_str(),
            operation = change.operation,
            revision_before = change.before.map(crate::contract::Revision::get),
            revision_after = change.after.map(crate::contract::Revision::get),
            bytes = change.bytes,
            actor = %scope.actor,
            request.id = %scope.request_id,
            "a record was changed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_within_an_instant_and_lie_in_its_range() {
        let ids = AuditIds::new();
        let now = Timestamp::from_millis(1_800_000_000_123);
        let given: Vec<Uuid> = (0..1_000).map(|_| ids.next(now)).collect();
        assert!(given.is_sorted() && given.windows(2).all(|pair| pair[0] != pair[1]));
        let next = Timestamp::from_millis(1_800_000_000_124);
        assert!(first_id_at(now) < given[0]);
        assert!(given[999] < first_id_at(next));
    }
}
