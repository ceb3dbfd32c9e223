//! Statements about installs.

use alga_model::{InstallId, TenantId};
use alga_postgres::Time;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::error::PostgresError;
use super::session::{Session, bigint};
use super::{answers, audit, changed, extensions, switches, versions};
use crate::audit::{AuditAction, AuditEntry};
use crate::change::Change;
use crate::error::{RegistryError, Resource};
use crate::extension::ExtensionKey;
use crate::grant::Grants;
use crate::install::{Install, InstallEdit, InstallFilter, InstallState, NewInstall};
use crate::json;
use crate::listener::Changed;
use crate::page::{MAX_PAGE_ITEMS, Page, PageRequest};
use crate::rows;
use crate::version::Version;

/// Selects installs as `rows::install` reads them, followed by a literal condition.
macro_rules! select_installs {
    ($condition:literal) => {
        concat!(
            "SELECT i.id, i.tenant_id, i.extension_id, e.name, i.version_id, v.version, v.content_hash,
                i.state, i.allow_envelope_config, i.config::text AS config, i.grants::text AS grants,
                i.limits::text AS limits, i.generation, i.created_at, i.updated_at,
                i.former_version_id, f.version AS former_version,
                f.content_hash AS former_content_hash, i.former_grants::text AS former_grants,
                i.concurrency
            FROM registry_installs i
                JOIN registry_extensions e ON e.id = i.extension_id
                JOIN registry_versions v ON v.id = i.version_id
                LEFT JOIN registry_versions f ON f.id = i.former_version_id
            ",
            $condition
        )
    };
}

const BY_ID: &str = select_installs!("WHERE i.id = $1");
const AFTER_ID: &str = select_installs!("WHERE i.id > ");
const LOCK: &str = "SELECT FROM registry_installs WHERE id = $1 FOR NO KEY UPDATE";
const INSERT: &str = "INSERT INTO registry_installs
    (id, tenant_id, extension_id, version_id, state, allow_envelope_config, config, grants, limits,
        generation, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8::json, $9::json, $10, $11, $12)";
const UPDATE: &str = "UPDATE registry_installs
    SET state = $2, allow_envelope_config = $3, config = $4::json, grants = $5::json,
        limits = $6::json, generation = $7, updated_at = $8, version_id = $9,
        former_version_id = $10, former_grants = $11::json, concurrency = $12
    WHERE id = $1";
/// In one statement, as an install that goes back goes from one part to the other.
const OF_VERSION: &str = "(SELECT id FROM registry_installs
        WHERE extension_id = $1 AND version_id = $2 LIMIT $3)
    UNION ALL (SELECT id FROM registry_installs WHERE former_version_id = $2 LIMIT $3)
    LIMIT $3";

#[tracing::instrument(level = "debug", name = "db.installs.find", skip_all, fields(install.id = %id))]
pub(super) async fn find(
    session: &mut Session<'_>,
    id: InstallId,
) -> Result<Option<Install>, PostgresError> {
    let by_id = session.of(BY_ID).bind(id.as_uuid());
    session.find_one(by_id, rows::install).await
}

#[tracing::instrument(level = "debug", name = "db.installs.list", skip_all)]
pub(super) async fn list(
    session: &mut Session<'_>,
    filter: &InstallFilter,
    page: PageRequest<InstallId>,
) -> Result<Page<Install, InstallId>, PostgresError> {
    let mut sql = page_sql(filter, page);
    let listing = session.built(&mut sql);
    let found = session.find_all(listing, rows::install).await?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |install: &Install| install.id,
    ))
}

/// Makes an install in a transaction that the caller commits.
pub(super) async fn create(
    session: &mut Session<'_>,
    new: &NewInstall,
    change: Change<'_>,
) -> Result<Install, PostgresError> {
    let version = versions::kept(session, new.version_id).await?;
    let extension = extensions::find(session, &ExtensionKey::Id(version.extension_id))
        .await?
        .ok_or_else(|| rows::dangling_extension(&version))?;
    if !switches::kept(session).await?.allows(&extension.name) {
        return Err(RegistryError::ExtensionNotAllowed.into());
    }
    let install = Install::create(new, extension, version, change.now);
    insert(session, &install).await?;
    audit::record(session, &AuditEntry::install_created(&install), change).await?;
    Ok(install)
}

/// Edits an install in a transaction that the caller commits.
pub(super) async fn edit(
    session: &mut Session<'_>,
    id: InstallId,
    edit: &InstallEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, PostgresError> {
    let before = locked(session, id).await?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    update(session, &after).await?;
    if after.state == InstallState::Uninstalled {
        // The caller removes the rest.
        answers::remove_of(session, &after).await?;
    }
    let entry = AuditEntry::install_edited(edit, &before, &after);
    audit::record(session, &entry, change).await?;
    Ok(after)
}

/// Upgrades an install in a transaction that the caller commits.
pub(super) async fn upgrade(
    session: &mut Session<'_>,
    id: InstallId,
    version_id: Uuid,
    grants: Grants,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, PostgresError> {
    let before = locked(session, id).await?;
    let version = versions::kept(session, version_id).await?;
    let after = before.upgraded(version, grants, expected_generation, change.now)?;
    change_version(session, AuditAction::InstallUpgrade, before, after, change).await
}

/// Brings an install back to its former version in a transaction that the caller commits.
pub(super) async fn roll_back(
    session: &mut Session<'_>,
    id: InstallId,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, PostgresError> {
    let before = locked(session, id).await?;
    let after = before.rolled_back(expected_generation, change.now)?;
    change_version(session, AuditAction::InstallRollback, before, after, change).await
}

async fn change_version(
    session: &mut Session<'_>,
    action: AuditAction,
    before: Install,
    after: Option<Install>,
    change: Change<'_>,
) -> Result<Install, PostgresError> {
    let Some(after) = after else {
        return Ok(before);
    };
    update(session, &after).await?;
    let entry = AuditEntry::version_changed(action, &before, &after);
    audit::record(session, &entry, change).await?;
    Ok(after)
}

/// An install that nobody else changes before the transaction ends.
#[tracing::instrument(level = "debug", name = "db.installs.lock", skip_all, fields(install.id = %id))]
async fn locked(session: &mut Session<'_>, id: InstallId) -> Result<Install, PostgresError> {
    // Two statements, as one that locks and joins would look for the new version of an install it has
    // waited for among the versions it has joined already.
    let lock = session.of(LOCK).bind(id.as_uuid());
    session.execute(lock).await?;
    let found = find(session, id).await?.ok_or(RegistryError::NotFound {
        what: Resource::Install,
    })?;
    Ok(found)
}

/// Some of the installs that have a version or would go back to it.
#[tracing::instrument(level = "debug", name = "db.installs.that_need", skip_all)]
pub(super) async fn that_need(
    session: &mut Session<'_>,
    version: &Version,
) -> Result<Vec<InstallId>, PostgresError> {
    let of_version = session
        .of(OF_VERSION)
        .bind(version.extension_id)
        .bind(version.id)
        .bind(i64::from(MAX_PAGE_ITEMS));
    session.find_all(of_version, rows::install_id).await
}

#[tracing::instrument(level = "debug", name = "db.installs.create", skip_all, fields(install.id = %install.id))]
async fn insert(session: &mut Session<'_>, install: &Install) -> Result<(), PostgresError> {
    let insert = session
        .of(INSERT)
        .bind(install.id.as_uuid())
        .bind(install.tenant.as_uuid())
        .bind(install.extension_id)
        .bind(install.version_id)
        .bind(install.state.as_str())
        .bind(install.allow_envelope_config)
        .bind(json::text(install.config.as_map())?)
        .bind(json::text(&install.grants)?)
        .bind(install.limits.as_ref().map(json::text).transpose()?)
        .bind(bigint(install.generation))
        .bind(Time(install.created_at))
        .bind(Time(install.updated_at));
    session.execute(insert).await?;
    changed::tell(session, Changed::Install(install.id)).await
}

#[tracing::instrument(level = "debug", name = "db.installs.update", skip_all, fields(install.id = %install.id))]
async fn update(session: &mut Session<'_>, install: &Install) -> Result<(), PostgresError> {
    let former = install.former.as_ref();
    let update = session
        .of(UPDATE)
        .bind(install.id.as_uuid())
        .bind(install.state.as_str())
        .bind(install.allow_envelope_config)
        .bind(json::text(install.config.as_map())?)
        .bind(json::text(&install.grants)?)
        .bind(install.limits.as_ref().map(json::text).transpose()?)
        .bind(bigint(install.generation))
        .bind(Time(install.updated_at))
        .bind(install.version_id)
        .bind(former.map(|former| former.version_id))
        .bind(
            former
                .map(|former| json::text(&former.grants))
                .transpose()?,
        )
        .bind(install.concurrency.map(i64::from));
    session.execute(update).await?;
    changed::tell(session, Changed::Install(install.id)).await
}

/// A page of installs. Only the conditions that are asked for are in the statement, so that each
/// combination gets the index made for it.
fn page_sql(filter: &InstallFilter, page: PageRequest<InstallId>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(AFTER_ID);
    sql.push_bind(page.after.map_or(Uuid::nil(), |id| *id.as_uuid()));
    if let Some(tenant) = &filter.tenant {
        sql.push(" AND i.tenant_id = ").push_bind(*tenant.as_uuid());
    }
    match &filter.extension {
        Some(ExtensionKey::Id(id)) => {
            sql.push(" AND i.extension_id = ").push_bind(*id);
        }
        Some(ExtensionKey::Name(name)) => {
            sql.push(" AND i.extension_id = (SELECT id FROM registry_extensions WHERE name = ")
                .push_bind(name.as_str().to_owned())
                .push(")");
        }
        None => {}
    }
    if let Some(tenants) = &filter.tenants {
        let tenants: Vec<_> = tenants.iter().map(TenantId::as_uuid).copied().collect();
        sql.push(" AND i.tenant_id = ANY (")
            .push_bind(tenants)
            .push(")");
    }
    if let Some(installs) = &filter.installs {
        let installs: Vec<_> = installs.iter().map(InstallId::as_uuid).copied().collect();
        sql.push(" AND i.id = ANY (").push_bind(installs).push(")");
    }
    if !filter.include_uninstalled {
        sql.push(" AND i.state <> 'uninstalled'");
    }
    sql.push(" ORDER BY i.id LIMIT ")
        .push_bind(page.lookahead());
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    /// Each of 10 extensions for each of 100 tenants, twice.
    const MANY: &str = "
        INSERT INTO registry_extensions (id, name, publisher, created_at)
            SELECT gen_random_uuid(), 'com.example.n' || n, 'Example Inc.', now()
            FROM generate_series(1, 10) AS n;
        INSERT INTO registry_versions (id, extension_id, version, content_hash, size, created_at, manifest)
            SELECT gen_random_uuid(), id, '1.0.0', sha256(name::bytea), 1, now(), '{}'
            FROM registry_extensions;
        INSERT INTO registry_installs (id, tenant_id, extension_id, version_id, state,
                allow_envelope_config, generation, created_at, updated_at, grants, config)
            SELECT gen_random_uuid(), md5(n::text)::uuid, v.extension_id, v.id, 'enabled',
                false, 1, now(), now(), '{}', '{}'
            FROM generate_series(1, 100) AS n, registry_versions AS v, generate_series(1, 2)";

    fn page_of(filter: &InstallFilter) -> String {
        page_sql(filter, PageRequest::first(10)).into_string()
    }

    #[tokio::test]
    async fn no_statement_scans() {
        let plans = Plans::new().await;
        for sql in [BY_ID, LOCK, UPDATE, OF_VERSION] {
            plans.assert_searches(sql).await;
        }
        plans
            .assert_uses(OF_VERSION, "registry_installs_of_former_version")
            .await;
    }

    #[tokio::test]
    async fn each_filter_has_its_index() {
        let tenant = Some(TenantId::generate());
        let by_id = Some(ExtensionKey::Id(Uuid::nil()));
        let by_name = Some(ExtensionKey::Name("com.example.notes".parse().unwrap()));
        let cases = [
            (None, None, "registry_installs_pkey"),
            (tenant, None, "registry_installs_of_tenant"),
            (None, by_id.clone(), "registry_installs_of_extension"),
            (None, by_name.clone(), "registry_installs_of_extension"),
            (tenant, by_id, "registry_installs_of_tenant_extension"),
            (tenant, by_name, "registry_installs_of_tenant_extension"),
        ];
        let plans = Plans::new().await.filled_by(MANY).await;
        for (tenant, extension, index) in cases {
            for include_uninstalled in [false, true] {
                let filter = InstallFilter {
                    tenant,
                    extension: extension.clone(),
                    include_uninstalled,
                    ..InstallFilter::default()
                };
                plans.assert_uses(&page_of(&filter), index).await;
            }
        }
    }

    #[tokio::test]
    async fn of_some_installs_no_others_are_read() {
        let filter = InstallFilter {
            installs: Some([InstallId::generate()].into()),
            ..InstallFilter::default()
        };
        let plan = Plans::new().await.of(&page_of(&filter)).await;
        assert!(plan.contains("(id = ANY ("), "{plan}");
    }
}
