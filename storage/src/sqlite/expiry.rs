//! Removes expired records, a bounded number at a time.
//!
//! What is expired has been invisible since its instant came; this only gives its room back. Every
//! removal goes with the counters, the revision floor and one audit record a namespace.

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::audit::{self, AuditIds};
use super::counters::Counted;
use super::error::SqliteError;
use super::rows;
use super::state::Place;
use crate::maintenance::Removed;
use crate::told;

/// How much to remove at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) records: u64,
    /// Namespaces to look into.
    pub(super) namespaces: u32,
}

/// What was removed, to be told once it is durable.
#[derive(Debug, Default)]
pub(super) struct Removals {
    pub(super) total: Removed,
    of_places: Vec<(Place, Removed)>,
}

/// Removes what is expired at `now` of a namespace, an install or a whole tenant. `more` says
/// whether something may be left.
pub(super) fn remove(
    connection: &Connection,
    audit_ids: &AuditIds,
    of: &Counted,
    now: Timestamp,
    batch: Batch,
) -> Result<Removals, SqliteError> {
    let due = due_namespaces(connection, of, now, batch.namespaces)?;
    let mut removals = Removals::default();
    let removed = &mut removals.total;
    removed.more = due.len() >= rows::length(batch.namespaces);
    for place in due {
        let left = batch.records.saturating_sub(removed.records);
        if left == 0 {
            removed.more = true;
            break;
        }
        let of_place = remove_of_namespace(connection, &place, now, left)?;
        if of_place.records > 0 {
            audit::insert_removal(connection, audit_ids, &place, of_place, now)?;
            removals.of_places.push((place, of_place));
        }
        removed.records += of_place.records;
        removed.bytes += of_place.bytes;
        removed.more |= of_place.more;
    }
    // Also where nothing was found: what was said of the tenant may have been too early.
    update_tenant(connection, of.tenant(), removals.total)?;
    Ok(removals)
}

/// Tenants that may hold expired records, those that have waited longest first.
pub(super) fn due_tenants(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<TenantId>, SqliteError> {
    const DUE: &str = "
        SELECT tenant_id FROM ext_storage_usage
        WHERE next_expiry <= ? AND namespace = ''
        ORDER BY next_expiry LIMIT ?";
    connection
        .prepare_cached(DUE)?
        .query_and_then(params![now.as_millis(), limit], rows::tenant_id)?
        .collect()
}

/// Namespaces that may hold expired records, those that have waited longest first.
fn due_namespaces(
    connection: &Connection,
    of: &Counted,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Place>, SqliteError> {
    const DUE: &str = "
        SELECT install_id, namespace FROM ext_storage_usage
        WHERE tenant_id = ?1 AND next_expiry <= ?2 AND namespace <> ''
          AND (?3 IS NULL OR install_id = ?3) AND (?4 IS NULL OR namespace = ?4)
        ORDER BY next_expiry LIMIT ?5";
    let tenant = of.tenant();
    let (install, namespace) = match of {
        Counted::Tenant(_) => (None, None),
        Counted::Install(_, install) => (Some(install), None),
        Counted::Namespace(place) => (Some(&place.install), Some(place.namespace.as_str())),
    };
    let of_row = |row: &Row<'_>| {
        let (install, namespace) = rows::place(row)?;
        Ok(Place {
            tenant,
            install,
            namespace,
        })
    };
    let due = params![
        tenant.as_bytes(),
        now.as_millis(),
        install.map(InstallId::as_bytes),
        namespace,
        limit,
    ];
    connection
        .prepare_cached(DUE)?
        .query_and_then(due, of_row)?
        .collect()
}

fn remove_of_namespace(
    connection: &Connection,
    place: &Place,
    now: Timestamp,
    limit: u64,
) -> Result<Removed, SqliteError> {
    const DELETE: &str = "
        DELETE FROM ext_storage_records
        WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3 AND key IN (
            SELECT key FROM ext_storage_records
            WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3 AND expires_at <= ?4
            ORDER BY expires_at LIMIT ?5
        )
        RETURNING revision, bytes";
    let mut statement = connection.prepare_cached(DELETE)?;
    let mut deleted = statement.query(params![
        place.tenant.as_bytes(),
        place.install.as_bytes(),
        place.namespace.as_str(),
        now.as_millis(),
        limit,
    ])?;
    let mut removed = Removed::default();
    let mut greatest = 0;
    while let Some(row) = deleted.next()? {
        let (revision, bytes) = rows::removed(row)?;
        greatest = greatest.max(revision);
        removed.records += 1;
        removed.bytes += bytes;
    }
    let (keys, next_expiry) = update_namespace(connection, place, removed, greatest)?;
    if removed.records > 0 {
        update_install(connection, place.tenant, place.install, removed, keys == 0)?;
    }
    removed.more = next_expiry.is_some_and(|next| next <= now);
    Ok(removed)
}

/// Counts records out of their namespace; gives the keys that are left and when the next expires.
fn update_namespace(
    connection: &Connection,
    place: &Place,
    removed: Removed,
    greatest_revision: u64,
) -> Result<(u64, Option<Timestamp>), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_usage SET
            keys = max(keys - ?4, 0), bytes = max(bytes - ?5, 0),
            revision_floor = max(revision_floor, ?6), change_seq = change_seq + ?4,
            next_expiry = (
                SELECT min(expires_at) FROM ext_storage_records
                WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3 AND expires_at IS NOT NULL
            )
        WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3
        RETURNING keys, next_expiry";
    let counted_out = params![
        place.tenant.as_bytes(),
        place.install.as_bytes(),
        place.namespace.as_str(),
        removed.records,
        removed.bytes,
        greatest_revision,
    ];
    connection
        .prepare_cached(UPDATE)?
        .query_row(counted_out, |row| Ok(rows::keys_left(row)))?
}

fn update_install(
    connection: &Connection,
    tenant: TenantId,
    install: InstallId,
    removed: Removed,
    emptied: bool,
) -> Result<(), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_usage SET
            keys = max(keys - ?3, 0), bytes = max(bytes - ?4, 0), namespaces = max(namespaces - ?5, 0)
        WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ''";
    let counted_out = params![
        tenant.as_bytes(),
        install.as_bytes(),
        removed.records,
        removed.bytes,
        emptied,
    ];
    connection.prepare_cached(UPDATE)?.execute(counted_out)?;
    Ok(())
}

fn update_tenant(
    connection: &Connection,
    tenant: TenantId,
    removed: Removed,
) -> Result<(), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_usage SET
            keys = max(keys - ?2, 0), bytes = max(bytes - ?3, 0),
            next_expiry = (
                SELECT min(next_expiry) FROM ext_storage_usage
                WHERE tenant_id = ?1 AND next_expiry IS NOT NULL AND namespace <> ''
            )
        WHERE tenant_id = ?1 AND install_id = x'' AND namespace = ''";
    let counted_out = params![tenant.as_bytes(), removed.records, removed.bytes];
    connection.prepare_cached(UPDATE)?.execute(counted_out)?;
    Ok(())
}

impl Removals {
    /// Adds what else was removed in the same transaction.
    pub(super) fn extend(&mut self, others: Self) {
        self.total.records += others.total.records;
        self.total.bytes += others.total.bytes;
        self.of_places.extend(others.of_places);
    }

    /// Says in log and metrics what was removed; `by` says what it was done by.
    pub(super) fn tell(&self, by: &'static str, now: Timestamp) {
        told::removed(by, self.total);
        for (place, removed) in &self.of_places {
            told::removal(place.tenant, place.install, &place.namespace, *removed, now);
        }
    }
}
