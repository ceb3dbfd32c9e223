//! Removes expired records, a bounded number at a time.
//!
//! What is expired has been invisible since its instant came; this only gives its room back. Every
//! removal goes with the counters, the revision floor and one audit record a namespace.

use alga_model::{InstallId, TenantId, Timestamp};
use sqlx::SqliteConnection;

use super::audit::{self, AuditIds};
use super::error::SqliteError;
use super::rows;
use super::state::{Counted, Place};
use crate::maintenance::Removed;

/// How much to remove at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) records: u32,
    /// Namespaces to look into.
    pub(super) namespaces: u32,
}

/// Removes what is expired at `now` of a namespace, an install or a whole tenant. `more` says
/// whether something may be left.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    audit_ids: &AuditIds,
    of: &Counted,
    now: Timestamp,
    batch: Batch,
) -> Result<Removed, SqliteError> {
    let due = due_namespaces(connection, of, now, batch.namespaces).await?;
    let mut removed = Removed {
        more: due.len() >= rows::length(batch.namespaces),
        ..Removed::default()
    };
    for place in &due {
        let left = u64::from(batch.records).saturating_sub(removed.records);
        if left == 0 {
            removed.more = true;
            break;
        }
        let of_place = remove_of_namespace(connection, place, now, left).await?;
        if of_place.records > 0 {
            audit::insert_removal(connection, audit_ids, place, of_place, now).await?;
        }
        removed.records += of_place.records;
        removed.bytes += of_place.bytes;
        removed.more |= of_place.more;
    }
    // Also where nothing was found: what was said of the tenant may have been too early.
    update_tenant(connection, of.tenant(), removed).await?;
    Ok(removed)
}

/// Tenants that may hold expired records, those that have waited longest first.
pub(super) async fn due_tenants(
    connection: &mut SqliteConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<TenantId>, SqliteError> {
    const DUE: &str = "
        SELECT tenant_id FROM ext_storage_usage
        WHERE next_expiry <= ? AND namespace = ''
        ORDER BY next_expiry LIMIT ?";
    sqlx::query(DUE)
        .bind(now.as_millis())
        .bind(limit)
        .fetch_all(connection)
        .await?
        .iter()
        .map(rows::tenant_id)
        .collect()
}

/// Namespaces that may hold expired records, those that have waited longest first.
async fn due_namespaces(
    connection: &mut SqliteConnection,
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
    let due = sqlx::query(DUE)
        .bind(tenant.as_bytes().as_slice())
        .bind(now.as_millis())
        .bind(install.map(|install| install.as_bytes().as_slice()))
        .bind(namespace)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    due.iter()
        .map(|row| {
            let (install, namespace) = rows::place(row)?;
            Ok(Place {
                tenant,
                install,
                namespace,
            })
        })
        .collect()
}

async fn remove_of_namespace(
    connection: &mut SqliteConnection,
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
    let deleted = sqlx::query(DELETE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(now.as_millis())
        .bind(rows::integer(limit))
        .fetch_all(&mut *connection)
        .await?;
    let mut removed = Removed {
        records: deleted.len() as u64,
        ..Removed::default()
    };
    let mut greatest = 0;
    for row in &deleted {
        let (revision, bytes) = rows::removed(row)?;
        greatest = greatest.max(revision);
        removed.bytes += bytes;
    }
    let (keys, next_expiry) = update_namespace(connection, place, removed, greatest).await?;
    if removed.records > 0 {
        update_install(connection, place.tenant, place.install, removed, keys == 0).await?;
    }
    removed.more = next_expiry.is_some_and(|next| next <= now);
    Ok(removed)
}

/// Counts records out of their namespace; gives the keys that are left and when the next expires.
async fn update_namespace(
    connection: &mut SqliteConnection,
    place: &Place,
    removed: Removed,
    greatest_revision: u64,
) -> Result<(u64, Option<Timestamp>), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_usage SET
            keys = max(keys - ?4, 0), bytes = max(bytes - ?5, 0),
            revision_floor = max(revision_floor, ?6),
            next_expiry = (
                SELECT min(expires_at) FROM ext_storage_records
                WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3 AND expires_at IS NOT NULL
            )
        WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3
        RETURNING keys, next_expiry";
    let row = sqlx::query(UPDATE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(rows::integer(removed.records))
        .bind(rows::integer(removed.bytes))
        .bind(rows::integer(greatest_revision))
        .fetch_one(connection)
        .await?;
    rows::keys_left(&row)
}

async fn update_install(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    install: InstallId,
    removed: Removed,
    emptied: bool,
) -> Result<(), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_usage SET
            keys = max(keys - ?3, 0), bytes = max(bytes - ?4, 0), namespaces = max(namespaces - ?5, 0)
        WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ''";
    sqlx::query(UPDATE)
        .bind(tenant.as_bytes().as_slice())
        .bind(install.as_bytes().as_slice())
        .bind(rows::integer(removed.records))
        .bind(rows::integer(removed.bytes))
        .bind(emptied)
        .execute(connection)
        .await?;
    Ok(())
}

async fn update_tenant(
    connection: &mut SqliteConnection,
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
    sqlx::query(UPDATE)
        .bind(tenant.as_bytes().as_slice())
        .bind(rows::integer(removed.records))
        .bind(rows::integer(removed.bytes))
        .execute(connection)
        .await?;
    Ok(())
}

impl Removed {
    /// Adds the removal, which is durable, to the metrics; `by` says what it was done by.
    pub(super) fn count(&self, by: &'static str) {
        if self.records > 0 {
            metrics::counter!("alga_storage_expired_removed_total", "by" => by)
                .increment(self.records);
            metrics::counter!("alga_storage_expired_removed_bytes_total", "by" => by)
                .increment(self.bytes);
        }
    }
}
