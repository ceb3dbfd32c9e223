//! Statements about tenants' settings.

use alga_model::TenantId;
use alga_postgres::Time;

use super::error::PostgresError;
use super::session::{Session, bigint};
use super::{audit, changed};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::json;
use crate::listener::Changed;
use crate::page::{Page, PageRequest};
use crate::rows;
use crate::tenant::{TenantEdit, TenantSettings};

/// Selects settings as `rows::tenant_settings` reads them, followed by a literal condition.
macro_rules! select_settings {
    ($condition:literal) => {
        concat!(
            "SELECT tenant_id, storage, limits::text AS limits, generation, updated_at
            FROM registry_tenants ",
            $condition
        )
    };
}

const BY_ID: &str = select_settings!("WHERE tenant_id = $1");
const LOCK: &str = select_settings!("WHERE tenant_id = $1 FOR NO KEY UPDATE");
const FIRST_PAGE: &str = select_settings!("ORDER BY tenant_id LIMIT $1");
const PAGE: &str = select_settings!("WHERE tenant_id > $2 ORDER BY tenant_id LIMIT $1");
/// Changes nothing where the settings are not those of the generation before.
const SAVE: &str = "INSERT INTO registry_tenants AS t
    (tenant_id, storage, limits, generation, updated_at) VALUES ($1, $2, $3::json, $4, $5)
    ON CONFLICT (tenant_id) DO UPDATE SET storage = excluded.storage, limits = excluded.limits,
        generation = excluded.generation, updated_at = excluded.updated_at
    WHERE t.generation = excluded.generation - 1";

#[tracing::instrument(level = "debug", name = "db.tenants.find", skip_all, fields(tenant.id = %tenant))]
pub(super) async fn find(
    session: &mut Session<'_>,
    tenant: TenantId,
) -> Result<TenantSettings, PostgresError> {
    read(session, BY_ID, tenant).await
}

#[tracing::instrument(level = "debug", name = "db.tenants.list", skip_all)]
pub(super) async fn list(
    session: &mut Session<'_>,
    page: PageRequest<TenantId>,
) -> Result<Page<TenantSettings, TenantId>, PostgresError> {
    // Every id may be a tenant's, so none comes before all.
    let listing = match &page.after {
        None => session.of(FIRST_PAGE).bind(page.lookahead()),
        Some(after) => session
            .of(PAGE)
            .bind(page.lookahead())
            .bind(after.as_uuid()),
    };
    let found = session.find_all(listing, rows::tenant_settings).await?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |settings: &TenantSettings| settings.tenant,
    ))
}

/// Edits a tenant's settings in a transaction that the caller commits.
pub(super) async fn edit(
    session: &mut Session<'_>,
    tenant: TenantId,
    edit: &TenantEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<TenantSettings, PostgresError> {
    loop {
        let before = read(session, LOCK, tenant).await?;
        let Some(after) = before.edited(edit, expected_generation, change.now)? else {
            return Ok(before);
        };
        if save(session, &after).await? {
            changed::tell(session, Changed::Tenant(tenant)).await?;
            let entry = AuditEntry::tenant_edited(edit, &before, &after);
            audit::record(session, &entry, change).await?;
            return Ok(after);
        }
        // There was nothing to lock, and somebody else's were the first settings. They stay.
    }
}

async fn read(
    session: &mut Session<'_>,
    sql: &'static str,
    tenant: TenantId,
) -> Result<TenantSettings, PostgresError> {
    let settings = session.of(sql).bind(tenant.as_uuid());
    let found = session.find_one(settings, rows::tenant_settings).await?;
    Ok(found.unwrap_or_else(|| TenantSettings::unchanged(tenant)))
}

/// Saves settings, unless others were saved since those of the generation before.
#[tracing::instrument(level = "debug", name = "db.tenants.save", skip_all, fields(tenant.id = %settings.tenant))]
async fn save(session: &mut Session<'_>, settings: &TenantSettings) -> Result<bool, PostgresError> {
    let save = session
        .of(SAVE)
        .bind(settings.tenant.as_uuid())
        .bind(settings.storage)
        .bind(settings.limits.as_ref().map(json::text).transpose()?)
        .bind(bigint(settings.generation))
        .bind(settings.updated_at.map(Time));
    Ok(session.execute(save).await? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn no_statement_scans() {
        let plans = Plans::new().await;
        for sql in [BY_ID, LOCK, FIRST_PAGE, PAGE] {
            plans.assert_searches(sql).await;
        }
    }
}
