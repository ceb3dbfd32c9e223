//! The audit: one row a change, in the transaction of the change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

use alga_model::{InstallId, TenantId, Timestamp};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};
use uuid::{ContextV7, Uuid};

use super::error::SqliteError;
use super::rows;
use super::script::{Insert, Script};
use super::state::{Change, Place};
use crate::contract::{Namespace, Revision};
use crate::maintenance::{AuditFilter, AuditRecord, Removed};
use crate::service::Scope;

/// Whom the audit names where expired records were removed.
const SWEEPER: &str = "system:expiry";

/// Gives ids that grow with time and with every call.
pub(super) struct AuditIds(Mutex<ContextV7>);

/// What one write changed.
#[derive(Debug)]
pub(super) struct AuditEntry<'g> {
    pub(super) scope: &'g Scope,
    pub(super) namespace: &'g Namespace,
    pub(super) operation: &'static str,
    pub(super) changes: Vec<Change>,
}

impl AuditIds {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ContextV7::new()))
    }

    /// The next id, at `now`.
    pub(super) fn next(&self, now: Timestamp) -> Uuid {
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

/// Adds the records of a group, in its order.
pub(super) fn insert(
    script: &mut Script,
    ids: &AuditIds,
    entries: &[AuditEntry<'_>],
    now: Timestamp,
) {
    const INSERT: Insert = Insert {
        into: "
        INSERT INTO ext_storage_audit
            (tenant_id, install_id, extension, namespace, operation, at,
             audit_id, actor, request_id, records, bytes, changes) ",
        columns: 12,
        common_columns: 6,
        on_conflict: "",
    };
    let mut alike: BTreeMap<Origin<'_>, Vec<(Uuid, &AuditEntry<'_>)>> = BTreeMap::new();
    for entry in entries {
        let id = ids.next(now);
        alike.entry(entry.origin()).or_default().push((id, entry));
    }
    let bind_origin = |script: &mut Script, origin: &Origin<'_>| {
        script
            .bind(origin.tenant.as_bytes().as_slice())
            .bind(origin.install.as_bytes().as_slice())
            .bind(origin.extension)
            .bind(origin.namespace)
            .bind(origin.operation)
            .bind(now.as_millis());
    };
    INSERT.write(script, alike, bind_origin, |script, (id, entry)| {
        let bytes = entry.changes.iter().map(|change| change.bytes).sum();
        script
            .bind(id.as_bytes().as_slice())
            .bind(entry.scope.actor.to_string())
            .bind(entry.scope.request_id.as_ref())
            .bind(rows::integer(entry.changes.len() as u64))
            .bind(rows::integer(bytes))
            .bind(rows::json(entry.changes.iter().map(Change::to_json)));
    });
}

/// What changes of the same kind in the same place have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Origin<'g> {
    tenant: &'g TenantId,
    install: &'g InstallId,
    extension: &'g str,
    namespace: &'g str,
    operation: &'static str,
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

/// Reads the records of at most `limit` requests in the order of time.
pub(super) async fn list(
    pool: &SqlitePool,
    filter: &AuditFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<AuditRecord>, SqliteError> {
    let found = list_statement(filter, after, limit)
        .build()
        .fetch_all(pool)
        .await?;
    let mut records = Vec::with_capacity(found.len());
    for row in &found {
        records.extend(rows::audit_records(row)?);
    }
    Ok(records)
}

fn list_statement(filter: &AuditFilter, after: Option<Uuid>, limit: u32) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(
        "SELECT audit_id, at, tenant_id, install_id, extension, namespace, operation, actor, request_id,
                records, bytes, changes
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
    fn origin(&self) -> Origin<'_> {
        Origin {
            tenant: &self.scope.tenant,
            install: &self.scope.install,
            extension: self.scope.extension.as_str(),
            namespace: self.namespace.as_str(),
            operation: self.operation,
        }
    }

    /// Says what happened, for a log pipeline. Off unless the target is asked for.
    pub(super) fn tell(&self, now: Timestamp) {
        let scope = self.scope;
        for change in &self.changes {
            tracing::debug!(
                target: "audit",
                time = %now,
                tenant.id = %scope.tenant,
                install.id = %scope.install,
                extension.id = %scope.extension,
                namespace = %self.namespace,
                key = change.key.as_str(),
                operation = self.operation,
                revision_before = change.before.map(Revision::get),
                revision_after = change.after.map(Revision::get),
                bytes = change.bytes,
                actor = %scope.actor,
                request.id = %scope.request_id,
                "a record was changed"
            );
        }
    }
}

impl Change {
    /// The change as the audit keeps it.
    fn to_json(&self) -> (&str, Option<u64>, Option<u64>, u64, Option<u32>) {
        (
            self.key.as_str(),
            self.before.map(Revision::get),
            self.after.map(Revision::get),
            self.bytes,
            None,
        )
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
