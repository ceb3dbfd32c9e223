//! Statements about tenants' settings.

use alga_model::{TenantId, Timestamp};
use rusqlite::{Connection, Transaction, params};

use super::error::SqliteError;
use super::{BEFORE_EVERY_ID, audit, find_all, find_one};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::json;
use crate::page::{Page, PageRequest};
use crate::rows;
use crate::tenant::{TenantEdit, TenantSettings};

const BY_ID: &str = "SELECT tenant_id, storage, limits, generation, updated_at
    FROM registry_tenants WHERE tenant_id = ?1";
const PAGE: &str = "SELECT tenant_id, storage, limits, generation, updated_at
    FROM registry_tenants WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2";
const SAVE: &str = "INSERT INTO registry_tenants
    (tenant_id, storage, limits, generation, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant_id) DO UPDATE SET storage = excluded.storage, limits = excluded.limits,
        generation = excluded.generation, updated_at = excluded.updated_at";

#[tracing::instrument(level = "debug", name = "db.tenants.find", skip_all, fields(tenant.id = %tenant))]
pub(super) fn find(
    connection: &Connection,
    tenant: TenantId,
) -> Result<TenantSettings, SqliteError> {
    let found = find_one(
        connection,
        BY_ID,
        [tenant.as_bytes()],
        rows::tenant_settings,
    )?;
    Ok(found.unwrap_or_else(|| TenantSettings::unchanged(tenant)))
}

#[tracing::instrument(level = "debug", name = "db.tenants.list", skip_all)]
pub(super) fn list(
    connection: &Connection,
    page: PageRequest<TenantId>,
) -> Result<Page<TenantSettings, TenantId>, SqliteError> {
    let after = page.after.as_ref();
    let after = after.map_or(BEFORE_EVERY_ID, |id| id.as_bytes());
    let params = params![after, page.lookahead()];
    let found = find_all(connection, PAGE, params, rows::tenant_settings)?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |settings: &TenantSettings| settings.tenant,
    ))
}

/// Edits a tenant's settings in a transaction that the caller commits.
pub(super) fn edit(
    tx: &Transaction<'_>,
    tenant: TenantId,
    edit: &TenantEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<TenantSettings, SqliteError> {
    let before = find(tx, tenant)?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    save(tx, &after)?;
    let entry = AuditEntry::tenant_edited(edit, &before, &after);
    audit::record(tx, &entry, change)?;
    Ok(after)
}

#[tracing::instrument(level = "debug", name = "db.tenants.save", skip_all, fields(tenant.id = %settings.tenant))]
fn save(tx: &Transaction<'_>, settings: &TenantSettings) -> Result<(), SqliteError> {
    tx.prepare_cached(SAVE)?.execute(params![
        settings.tenant.as_bytes(),
        settings.storage,
        settings.limits.as_ref().map(json::text).transpose()?,
        settings.generation,
        settings.updated_at.map(Timestamp::as_millis),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::assert_searches;

    #[tokio::test]
    async fn no_statement_scans() {
        for sql in [BY_ID, PAGE] {
            assert_searches(sql).await;
        }
    }
}
