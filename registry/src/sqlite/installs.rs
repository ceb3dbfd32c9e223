//! Statements about installs.

use alga_model::InstallId;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqliteExecutor};

use super::error::SqliteError;
use super::{audit, extensions, json_text, lookahead, rows, signed, versions};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::error::{RegistryError, Resource};
use crate::extension::ExtensionKey;
use crate::install::{Install, InstallEdit, InstallFilter, NewInstall};
use crate::page::{Page, PageRequest};
use crate::version::VersionKey;

/// Selects installs as `rows::install` reads them, followed by a literal condition.
macro_rules! select_installs {
    ($condition:literal) => {
        // CROSS JOIN keeps SQLite from beginning with another table than the installs.
        concat!(
            "SELECT i.id, i.tenant_id, i.extension_id, e.name, i.version_id, v.version, v.content_hash,
                i.state, i.allow_envelope_config, i.config, i.grants, i.limits, i.generation,
                i.created_at, i.updated_at
            FROM registry_installs i
                CROSS JOIN registry_extensions e ON e.id = i.extension_id
                CROSS JOIN registry_versions v ON v.id = i.version_id
            ",
            $condition
        )
    };
}

const BY_ID: &str = select_installs!("WHERE i.id = ?1");
const AFTER_ID: &str = select_installs!("WHERE i.id > ");
const INSERT: &str = "INSERT INTO registry_installs
    (id, tenant_id, extension_id, version_id, state, allow_envelope_config, config, grants, limits,
        generation, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const UPDATE: &str = "UPDATE registry_installs
    SET state = ?2, allow_envelope_config = ?3, config = ?4, grants = ?5, limits = ?6, generation = ?7,
        updated_at = ?8
    WHERE id = ?1";

/// Sorts before every id.
const BEFORE_EVERY_ID: &[u8] = &[];

#[tracing::instrument(level = "debug", name = "db.installs.find", skip_all, fields(install.id = %id))]
pub(super) async fn find(
    executor: impl SqliteExecutor<'_>,
    id: InstallId,
) -> Result<Option<Install>, SqliteError> {
    let row = sqlx::query(BY_ID)
        .bind(id.as_bytes().as_slice())
        .fetch_optional(executor)
        .await?;
    row.as_ref().map(rows::install).transpose()
}

#[tracing::instrument(level = "debug", name = "db.installs.list", skip_all)]
pub(super) async fn list(
    executor: impl SqliteExecutor<'_>,
    filter: &InstallFilter,
    page: PageRequest<InstallId>,
) -> Result<Page<Install, InstallId>, SqliteError> {
    let rows = page_query(filter, page).build().fetch_all(executor).await?;
    let found = rows.iter().map(rows::install).collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |install: &Install| install.id,
    ))
}

/// Makes an install in a transaction that the caller commits.
pub(super) async fn create(
    tx: &mut SqliteConnection,
    new: &NewInstall,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let version = versions::find(&mut *tx, &VersionKey::Id(new.version_id))
        .await?
        .ok_or(RegistryError::NotFound {
            what: Resource::Version,
        })?;
    let extension = extensions::find(&mut *tx, &ExtensionKey::Id(version.extension_id))
        .await?
        .ok_or_else(|| rows::dangling_extension(&version))?;
    let install = Install::create(new, extension, version, change.now);
    insert(&mut *tx, &install).await?;
    audit::record(tx, &AuditEntry::install_created(&install), change).await?;
    Ok(install)
}

/// Edits an install in a transaction that the caller commits.
pub(super) async fn edit(
    tx: &mut SqliteConnection,
    id: InstallId,
    edit: &InstallEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let before = find(&mut *tx, id).await?.ok_or(RegistryError::NotFound {
        what: Resource::Install,
    })?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    update(&mut *tx, &after).await?;
    audit::record(
        tx,
        &AuditEntry::install_edited(edit, &before, &after),
        change,
    )
    .await?;
    Ok(after)
}

#[tracing::instrument(level = "debug", name = "db.installs.create", skip_all, fields(install.id = %install.id))]
async fn insert(tx: &mut SqliteConnection, install: &Install) -> Result<(), SqliteError> {
    sqlx::query(INSERT)
        .bind(install.id.as_bytes().as_slice())
        .bind(install.tenant.as_bytes().as_slice())
        .bind(install.extension_id.as_bytes().as_slice())
        .bind(install.version_id.as_bytes().as_slice())
        .bind(install.state.as_str())
        .bind(install.allow_envelope_config)
        .bind(json_text(install.config.as_map())?)
        .bind(json_text(&install.grants)?)
        .bind(install.limits.as_ref().map(json_text).transpose()?)
        .bind(signed(install.generation)?)
        .bind(install.created_at.as_millis())
        .bind(install.updated_at.as_millis())
        .execute(tx)
        .await?;
    Ok(())
}

#[tracing::instrument(level = "debug", name = "db.installs.update", skip_all, fields(install.id = %install.id))]
async fn update(tx: &mut SqliteConnection, install: &Install) -> Result<(), SqliteError> {
    sqlx::query(UPDATE)
        .bind(install.id.as_bytes().as_slice())
        .bind(install.state.as_str())
        .bind(install.allow_envelope_config)
        .bind(json_text(install.config.as_map())?)
        .bind(json_text(&install.grants)?)
        .bind(install.limits.as_ref().map(json_text).transpose()?)
        .bind(signed(install.generation)?)
        .bind(install.updated_at.as_millis())
        .execute(tx)
        .await?;
    Ok(())
}

/// Only the conditions that are there are in the statement, so that each combination gets the
/// index made for it.
fn page_query(filter: &InstallFilter, page: PageRequest<InstallId>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(AFTER_ID);
    query.push_bind(
        page.after
            .as_ref()
            .map_or(BEFORE_EVERY_ID, |id| id.as_bytes().as_slice()),
    );
    if let Some(tenant) = &filter.tenant {
        query
            .push(" AND i.tenant_id = ")
            .push_bind(tenant.as_bytes().as_slice());
    }
    match &filter.extension {
        Some(ExtensionKey::Id(id)) => {
            query
                .push(" AND i.extension_id = ")
                .push_bind(id.as_bytes().as_slice());
        }
        Some(ExtensionKey::Name(name)) => {
            query
                .push(" AND i.extension_id = (SELECT id FROM registry_extensions WHERE name = ")
                .push_bind(name.as_str())
                .push(")");
        }
        None => {}
    }
    if !filter.include_uninstalled {
        query.push(" AND i.state <> 'uninstalled'");
    }
    query
        .push(" ORDER BY i.id LIMIT ")
        .push_bind(lookahead(page.limit));
    query
}

#[cfg(test)]
mod tests {
    use alga_model::TenantId;
    use uuid::Uuid;

    use super::*;
    use crate::sqlite::plan::{assert_searches, assert_uses};

    #[tokio::test]
    async fn no_statement_scans() {
        for sql in [BY_ID, UPDATE] {
            assert_searches(sql).await;
        }
    }

    #[tokio::test]
    async fn each_filter_has_its_index() {
        let tenant = Some(TenantId::generate());
        let by_id = Some(ExtensionKey::Id(Uuid::nil()));
        let by_name = Some(ExtensionKey::Name("com.example.notes".parse().unwrap()));
        let cases = [
            (None, None, "sqlite_autoindex_registry_installs_1"),
            (tenant, None, "registry_installs_of_tenant"),
            (None, by_id.clone(), "registry_installs_of_extension"),
            (None, by_name.clone(), "registry_installs_of_extension"),
            (tenant, by_id, "registry_installs_of_tenant_extension"),
            (tenant, by_name, "registry_installs_of_tenant_extension"),
        ];
        for (tenant, extension, index) in cases {
            for include_uninstalled in [false, true] {
                let filter = InstallFilter {
                    tenant,
                    extension: extension.clone(),
                    include_uninstalled,
                };
                assert_uses(
                    page_query(&filter, PageRequest::first(10)).sql().as_str(),
                    index,
                )
                .await;
            }
        }
    }
}
