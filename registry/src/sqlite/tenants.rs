//! Statements about tenants' settings.

use alga_model::{TenantId, Timestamp};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::error::SqliteError;
use super::{audit, json_text, lookahead, rows, signed};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::page::{Page, PageRequest};
use crate::tenant::{TenantEdit, TenantSettings};

const BY_ID: &str = "SELECT tenant_id, storage, limits, generation, updated_at
    FROM registry_tenants WHERE tenant_id = ?1";
const PAGE: &str = "SELECT tenant_id, storage, limits, generation, updated_at
    FROM registry_tenants WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2";
const SAVE: &str = "INSERT INTO registry_tenants
    (tenant_id, storage, limits, generation, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant_id) DO UPDATE SET storage = excluded.storage, limits = excluded.limits,
        generation = excluded.generation, updated_at = excluded.updated_at";

/// Sorts before every id.
const BEFORE_EVERY_ID: &[u8] = &[];

#[tracing::instrument(level = "debug", name = "db.tenants.find", skip_all, fields(tenant.id = %tenant))]
pub(super) async fn find(
    executor: impl SqliteExecutor<'_>,
    tenant: TenantId,
) -> Result<TenantSettings, SqliteError> {
    let row = sqlx::query(BY_ID)
        .bind(tenant.as_bytes().as_slice())
        .fetch_optional(executor)
        .await?;
    row.as_ref().map_or_else(
        || Ok(TenantSettings::unchanged(tenant)),
        rows::tenant_settings,
    )
}

#[tracing::instrument(level = "debug", name = "db.tenants.list", skip_all)]
pub(super) async fn list(
    executor: impl SqliteExecutor<'_>,
    page: PageRequest<TenantId>,
) -> Result<Page<TenantSettings, TenantId>, SqliteError> {
    let after = page.after.as_ref();
    let rows = sqlx::query(PAGE)
        .bind(after.map_or(BEFORE_EVERY_ID, |id| id.as_bytes().as_slice()))
        .bind(lookahead(page.limit))
        .fetch_all(executor)
        .await?;
    let found = rows
        .iter()
        .map(rows::tenant_settings)
        .collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |settings: &TenantSettings| settings.tenant,
    ))
}

/// Edits a tenant's settings in a transaction that the caller commits.
pub(super) async fn edit(
    tx: &mut SqliteConnection,
    tenant: TenantId,
    edit: &TenantEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<TenantSettings, SqliteError> {
    let before = find(&mut *tx, tenant).await?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    save(&mut *tx, &after).await?;
    let entry = AuditEntry::tenant_edited(edit, &before, &after);
    audit::record(tx, &entry, change).await?;
    Ok(after)
}

#[tracing::instrument(level = "debug", name = "db.tenants.save", skip_all, fields(tenant.id = %settings.tenant))]
async fn save(tx: &mut SqliteConnection, settings: &TenantSettings) -> Result<(), SqliteError> {
    sqlx::query(SAVE)
        .bind(settings.tenant.as_bytes().as_slice())
        .bind(settings.storage)
        .bind(settings.limits.as_ref().map(json_text).transpose()?)
        .bind(signed(settings.generation)?)
        .bind(settings.updated_at.map(Timestamp::as_millis))
        .execute(tx)
        .await?;
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
