//! The audit: what a transaction changed in a namespace, in a row of the same transaction.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::rows;
use super::state::Place;
use crate::contract::{Namespace, Revision};
use crate::maintenance::{AuditFilter, AuditRecord, Removed};
use crate::service::Scope;
use crate::told::{Change, EXPIRE, SWEEPER};

/// Gives ids that grow with time and with every call: UUIDs of version 7 (RFC 9562, 5.7).
#[derive(Debug)]
pub(super) struct AuditIds(Mutex<Uuid>);

/// What one write changed.
#[derive(Debug)]
pub(super) struct AuditEntry<'g> {
    pub(super) scope: &'g Scope,
    pub(super) namespace: &'g Namespace,
    pub(super) operation: &'static str,
    pub(super) changes: Vec<Change>,
}

impl AuditIds {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Uuid::nil()))
    }

    /// The next id, at `now`. The first 12 bytes of an id are those of no other
    /// one of this process, nor, but for a coincidence of 41 random bits, of another one.
    ///
    /// The first of a millisecond is random, each further one greater by a step (RFC 9562, 6.2, method
    /// 2): asking the system for randomness every time costs as much as the row that the id is for.
    pub(super) fn next(&self, now: Timestamp) -> Uuid {
        const STEP: u128 = 1 << 32;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let following = Uuid::from_u128(last.as_u128() + STEP);
        *last = if following < first_id_at(now) {
            random_id_at(now)
        } else {
            following
        };
        *last
    }
}

/// A random id, above which there is room for as many steps as a millisecond can have.
fn random_id_at(time: Timestamp) -> Uuid {
    let millis = time.as_millis().unsigned_abs();
    let mut random = [0; 10];
    random.copy_from_slice(&Uuid::new_v4().as_bytes()[..10]);
    // The highest bit after the variant.
    random[2] &= 0b1101_1111;
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Changes that a row may have, unless a single request made more: few enough for a page of an export to
/// be read into memory.
const CHANGES_OF_ROW: usize = 100;

/// A row: what writes to one namespace changed.
struct Row<'g> {
    of: &'g AuditEntry<'g>,
    changes: Vec<(&'g AuditEntry<'g>, &'g Change)>,
}

/// Adds what a group changed: the changes of a namespace in the order in which they were made.
pub(super) fn insert(
    connection: &Connection,
    ids: &AuditIds,
    entries: &[AuditEntry<'_>],
    now: Timestamp,
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id,
             records, bytes, changes)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut insert = connection.prepare_cached(INSERT)?;
    for row in rows_of(entries) {
        let scope = row.of.scope;
        let request = row.only_request();
        insert.execute(params![
            scope.tenant.as_bytes(),
            ids.next(now).as_bytes(),
            now.as_millis(),
            scope.install.as_bytes(),
            scope.extension.as_str(),
            row.of.namespace.as_str(),
            request.map(|entry| entry.operation),
            request.map(|entry| entry.scope.actor.to_string()),
            request.map(|entry| entry.scope.request_id.as_ref()),
            row.changes.len(),
            row.changes
                .iter()
                .map(|(_, change)| change.bytes)
                .sum::<u64>(),
            row.changes_json(),
        ])?;
    }
    Ok(())
}

fn rows_of<'g>(entries: &'g [AuditEntry<'g>]) -> Vec<Row<'g>> {
    let mut full = Vec::new();
    let mut open: BTreeMap<_, Row<'g>> = BTreeMap::new();
    for entry in entries {
        let row = open.entry(entry.place()).or_insert_with(|| Row::of(entry));
        if !row.changes.is_empty() && row.changes.len() + entry.changes.len() > CHANGES_OF_ROW {
            full.push(std::mem::replace(row, Row::of(entry)));
        }
        let changes = entry.changes.iter().map(|change| (entry, change));
        row.changes.extend(changes);
    }
    full.extend(open.into_values());
    full
}

impl<'g> Row<'g> {
    const fn of(entry: &'g AuditEntry<'g>) -> Self {
        Self {
            of: entry,
            changes: Vec::new(),
        }
    }

    /// The request whose changes they all are.
    fn only_request(&self) -> Option<&'g AuditEntry<'g>> {
        (self.changes.len() == self.of.changes.len()).then_some(self.of)
    }

    fn changes_json(&self) -> String {
        match self.only_request() {
            Some(entry) => rows::json(entry.changes.iter().map(Change::to_json)),
            None => rows::json(self.changes.iter().map(|(entry, change)| {
                let (key, before, after, bytes, schema_version) = change.to_json();
                let scope = entry.scope;
                (
                    key,
                    before,
                    after,
                    bytes,
                    schema_version,
                    entry.operation,
                    scope.actor.to_string(),
                    scope.request_id.as_ref(),
                )
            })),
        }
    }
}

/// Adds the summary of expired records that were removed from a namespace.
pub(super) fn insert_removal(
    connection: &Connection,
    ids: &AuditIds,
    place: &Place,
    removed: Removed,
    now: Timestamp,
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, namespace, operation, records, bytes, actor)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(INSERT)?.execute(params![
        place.tenant.as_bytes(),
        ids.next(now).as_bytes(),
        now.as_millis(),
        place.install.as_bytes(),
        place.namespace.as_str(),
        EXPIRE,
        removed.records,
        removed.bytes,
        SWEEPER,
    ])?;
    Ok(())
}

/// Reads the records of at most `limit` rows in the order of time.
pub(super) fn list(
    connection: &Connection,
    filter: &AuditFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<AuditRecord>, SqliteError> {
    // Ids begin with their time, so that a range of time is a range of ids.
    const OF_ALL: &str = "
        SELECT audit_id, at, tenant_id, install_id, extension, namespace, operation, actor, request_id,
               records, bytes, changes
        FROM ext_storage_audit
        WHERE audit_id > ?1 AND audit_id < ?2 AND (?4 IS NULL OR install_id = ?4)
        ORDER BY audit_id LIMIT ?5";
    const OF_TENANT: &str = "
        SELECT audit_id, at, tenant_id, install_id, extension, namespace, operation, actor, request_id,
               records, bytes, changes
        FROM ext_storage_audit
        WHERE audit_id > ?1 AND audit_id < ?2 AND (?4 IS NULL OR install_id = ?4) AND tenant_id = ?3
        ORDER BY audit_id LIMIT ?5";
    let from = after.max(filter.since.map(first_id_at));
    let until = filter.until.map_or(Uuid::max(), first_id_at);
    let statement = filter.tenant.map_or(OF_ALL, |_| OF_TENANT);
    let mut statement = connection.prepare_cached(statement)?;
    let mut found = statement.query(params![
        from.unwrap_or(Uuid::nil()).as_bytes(),
        until.as_bytes(),
        filter.tenant.as_ref().map(TenantId::as_bytes),
        filter.install.as_ref().map(InstallId::as_bytes),
        limit,
    ])?;
    let mut records = Vec::new();
    while let Some(row) = found.next()? {
        records.extend(rows::audit_records(row)?);
    }
    Ok(records)
}

/// Removes rows from before `before`, the oldest first.
pub(super) fn remove(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Removed, SqliteError> {
    const DELETE: &str = "
        DELETE FROM ext_storage_audit WHERE (tenant_id, audit_id) IN (
            SELECT tenant_id, audit_id FROM ext_storage_audit
            WHERE audit_id < ? ORDER BY audit_id LIMIT ?
        ) RETURNING iif(changes IS NULL, 1, records)";
    let before = first_id_at(before);
    let mut delete = connection.prepare_cached(DELETE)?;
    let mut deleted = delete.query(params![before.as_bytes(), limit])?;
    let mut removed = Removed::default();
    let mut rows = 0;
    while let Some(row) = deleted.next()? {
        rows += 1;
        removed.records += row.get::<_, u64>(0)?;
    }
    removed.more = rows == limit;
    Ok(removed)
}

/// Before every id that was given at `time` or later, after every one from before (RFC 9562, 5.7).
fn first_id_at(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(time.as_millis().unsigned_abs()) << 80)
}

impl AuditEntry<'_> {
    fn place(&self) -> (TenantId, InstallId, &str, &Namespace) {
        let scope = self.scope;
        let extension = scope.extension.as_str();
        (scope.tenant, scope.install, extension, self.namespace)
    }

    /// Says what happened, for a log pipeline.
    pub(super) fn tell(&self, now: Timestamp) {
        for change in &self.changes {
            change.tell(self.scope, self.namespace, self.operation, now);
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
        assert!(given.is_sorted());
        // What migrations put behind these bytes must be free.
        let first_bytes = |id: &Uuid| id.as_bytes()[..12].to_vec();
        let distinct: std::collections::BTreeSet<_> = given.iter().map(first_bytes).collect();
        assert_eq!(distinct.len(), given.len());
        let earlier = ids.next(Timestamp::from_millis(now.as_millis() - 1_000));
        assert!(earlier > given[999], "the clock went back");
        let next = Timestamp::from_millis(1_800_000_000_124);
        assert!(first_id_at(now) < given[0]);
        assert!(given[999] < first_id_at(next));
    }
}
