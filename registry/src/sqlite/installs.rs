//! Statements about installs.

use alga_model::{InstallId, TenantId};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::{BEFORE_EVERY_ID, answers, audit, extensions, find_all, find_one, switches, versions};
use crate::audit::{AuditAction, AuditEntry};
use crate::change::Change;
use crate::error::{RegistryError, Resource};
use crate::extension::ExtensionKey;
use crate::grant::Grants;
use crate::install::{Install, InstallEdit, InstallFilter, InstallState, NewInstall};
use crate::json;
use crate::page::{MAX_PAGE_ITEMS, Page, PageRequest};
use crate::rows;
use crate::version::{Version, VersionKey};

/// Selects installs as `rows::install` reads them, followed by a literal condition.
macro_rules! select_installs {
    ($condition:literal) => {
        // CROSS JOIN keeps SQLite from beginning with another table than the installs.
        concat!(
            "SELECT i.id, i.tenant_id, i.extension_id, e.name, i.version_id, v.version, v.content_hash,
                i.state, i.allow_envelope_config, i.config, i.grants, i.limits, i.generation,
                i.created_at, i.updated_at, i.former_version_id, f.version AS former_version,
                f.content_hash AS former_content_hash, i.former_grants, i.concurrency
            FROM registry_installs i
                CROSS JOIN registry_extensions e ON e.id = i.extension_id
                CROSS JOIN registry_versions v ON v.id = i.version_id
                LEFT JOIN registry_versions f ON f.id = i.former_version_id
            ",
            $condition
        )
    };
}

const BY_ID: &str = select_installs!("WHERE i.id = ?1");
const AFTER_ID: &str = select_installs!("WHERE i.id > ?1");
const INSERT: &str = "INSERT INTO registry_installs
    (id, tenant_id, extension_id, version_id, state, allow_envelope_config, config, grants, limits,
        generation, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const UPDATE: &str = "UPDATE registry_installs
    SET state = ?2, allow_envelope_config = ?3, config = ?4, grants = ?5, limits = ?6, generation = ?7,
        updated_at = ?8, version_id = ?9, former_version_id = ?10, former_grants = ?11,
        concurrency = ?12
    WHERE id = ?1";
const OF_VERSION: &str = "SELECT id FROM registry_installs
    WHERE extension_id = ?1 AND version_id = ?2 LIMIT ?3";
const OF_FORMER_VERSION: &str =
    "SELECT id FROM registry_installs WHERE former_version_id = ?1 LIMIT ?2";

#[tracing::instrument(level = "debug", name = "db.installs.find", skip_all, fields(install.id = %id))]
pub(super) fn find(connection: &Connection, id: InstallId) -> Result<Option<Install>, SqliteError> {
    find_one(connection, BY_ID, [id.as_bytes()], rows::install)
}

#[tracing::instrument(level = "debug", name = "db.installs.list", skip_all)]
pub(super) fn list(
    connection: &Connection,
    filter: &InstallFilter,
    page: PageRequest<InstallId>,
) -> Result<Page<Install, InstallId>, SqliteError> {
    let after = page.after.as_ref();
    let extension = filter.extension.as_ref().map(|key| match key {
        ExtensionKey::Id(id) => ToSqlOutput::from(id.as_bytes().as_slice()),
        ExtensionKey::Name(name) => ToSqlOutput::from(name.as_str()),
    });
    let params = params![
        after.map_or(BEFORE_EVERY_ID, |id| id.as_bytes()),
        filter.tenant.as_ref().map(TenantId::as_bytes),
        extension,
        filter.tenants.as_ref().map(json::text).transpose()?,
        filter.installs.as_ref().map(json::text).transpose()?,
        page.lookahead(),
    ];
    let found = find_all(connection, &page_sql(filter), params, rows::install)?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |install: &Install| install.id,
    ))
}

/// Makes an install in a transaction that the caller commits.
pub(super) fn create(
    tx: &Transaction<'_>,
    new: &NewInstall,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let version =
        versions::find(tx, &VersionKey::Id(new.version_id))?.ok_or(RegistryError::NotFound {
            what: Resource::Version,
        })?;
    let extension = extensions::find(tx, &ExtensionKey::Id(version.extension_id))?
        .ok_or_else(|| rows::dangling_extension(&version))?;
    if !switches::find(tx)?.allows(&extension.name) {
        return Err(RegistryError::ExtensionNotAllowed.into());
    }
    let install = Install::create(new, extension, version, change.now);
    insert(tx, &install)?;
    audit::record(tx, &AuditEntry::install_created(&install), change)?;
    Ok(install)
}

/// Edits an install in a transaction that the caller commits.
pub(super) fn edit(
    tx: &Transaction<'_>,
    id: InstallId,
    edit: &InstallEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let before = existing(tx, id)?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    update(tx, &after)?;
    if after.state == InstallState::Uninstalled {
        // The caller removes the rest.
        answers::remove_of(tx, id)?;
    }
    let entry = AuditEntry::install_edited(edit, &before, &after);
    audit::record(tx, &entry, change)?;
    Ok(after)
}

/// Upgrades an install in a transaction that the caller commits.
pub(super) fn upgrade(
    tx: &Transaction<'_>,
    id: InstallId,
    version_id: Uuid,
    grants: Grants,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let before = existing(tx, id)?;
    let version =
        versions::find(tx, &VersionKey::Id(version_id))?.ok_or(RegistryError::NotFound {
            what: Resource::Version,
        })?;
    let after = before.upgraded(version, grants, expected_generation, change.now)?;
    change_version(tx, AuditAction::InstallUpgrade, before, after, change)
}

/// Brings an install back to its former version in a transaction that the caller commits.
pub(super) fn roll_back(
    tx: &Transaction<'_>,
    id: InstallId,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let before = existing(tx, id)?;
    let after = before.rolled_back(expected_generation, change.now)?;
    change_version(tx, AuditAction::InstallRollback, before, after, change)
}

fn change_version(
    tx: &Transaction<'_>,
    action: AuditAction,
    before: Install,
    after: Option<Install>,
    change: Change<'_>,
) -> Result<Install, SqliteError> {
    let Some(after) = after else {
        return Ok(before);
    };
    update(tx, &after)?;
    let entry = AuditEntry::version_changed(action, &before, &after);
    audit::record(tx, &entry, change)?;
    Ok(after)
}

fn existing(tx: &Transaction<'_>, id: InstallId) -> Result<Install, SqliteError> {
    let found = find(tx, id)?.ok_or(RegistryError::NotFound {
        what: Resource::Install,
    })?;
    Ok(found)
}

/// Some of the installs that have a version or would go back to it.
pub(super) fn that_need(
    tx: &Transaction<'_>,
    version: &Version,
) -> Result<Vec<InstallId>, SqliteError> {
    let of_version = params![
        version.extension_id.as_bytes(),
        version.id.as_bytes(),
        MAX_PAGE_ITEMS
    ];
    let mut found = find_all(tx, OF_VERSION, of_version, rows::install_id)?;
    let of_former = params![version.id.as_bytes(), MAX_PAGE_ITEMS];
    found.extend(find_all(
        tx,
        OF_FORMER_VERSION,
        of_former,
        rows::install_id,
    )?);
    found.truncate(MAX_PAGE_ITEMS as usize);
    Ok(found)
}

#[tracing::instrument(level = "debug", name = "db.installs.create", skip_all, fields(install.id = %install.id))]
fn insert(tx: &Transaction<'_>, install: &Install) -> Result<(), SqliteError> {
    tx.prepare_cached(INSERT)?.execute(params![
        install.id.as_bytes(),
        install.tenant.as_bytes(),
        install.extension_id.as_bytes(),
        install.version_id.as_bytes(),
        install.state.as_str(),
        install.allow_envelope_config,
        json::text(install.config.as_map())?,
        json::text(&install.grants)?,
        install.limits.as_ref().map(json::text).transpose()?,
        install.generation,
        install.created_at.as_millis(),
        install.updated_at.as_millis(),
    ])?;
    Ok(())
}

#[tracing::instrument(level = "debug", name = "db.installs.update", skip_all, fields(install.id = %install.id))]
fn update(tx: &Transaction<'_>, install: &Install) -> Result<(), SqliteError> {
    let former = install.former.as_ref();
    tx.prepare_cached(UPDATE)?.execute(params![
        install.id.as_bytes(),
        install.state.as_str(),
        install.allow_envelope_config,
        json::text(install.config.as_map())?,
        json::text(&install.grants)?,
        install.limits.as_ref().map(json::text).transpose()?,
        install.generation,
        install.updated_at.as_millis(),
        install.version_id.as_bytes(),
        former.map(|former| former.version_id.as_bytes()),
        former
            .map(|former| json::text(&former.grants))
            .transpose()?,
        install.concurrency,
    ])?;
    Ok(())
}

/// A page of installs: those after `?1` of the tenant `?2` and the extension `?3`, of the tenants in
/// the JSON list `?4` and the installs in the list `?5`, at most `?6`.
///
/// Only the conditions that are there are in the statement, so that each combination gets the
/// index made for it. All six are bound nevertheless: SQLite takes a value for every number up to
/// the highest one.
fn page_sql(filter: &InstallFilter) -> String {
    let mut sql = AFTER_ID.to_owned();
    if filter.tenant.is_some() {
        sql += " AND i.tenant_id = ?2";
    }
    sql += match filter.extension {
        Some(ExtensionKey::Id(_)) => " AND i.extension_id = ?3",
        Some(ExtensionKey::Name(_)) => {
            " AND i.extension_id = (SELECT id FROM registry_extensions WHERE name = ?3)"
        }
        None => "",
    };
    if filter.tenants.is_some() {
        sql += " AND i.tenant_id IN (SELECT unhex(value, '-') FROM json_each(?4))";
    }
    if filter.installs.is_some() {
        sql += " AND i.id IN (SELECT unhex(value, '-') FROM json_each(?5))";
    }
    if !filter.include_uninstalled {
        sql += " AND i.state <> 'uninstalled'";
    }
    sql + " ORDER BY i.id LIMIT ?6"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::{assert_searches, assert_uses, plan_of};

    #[tokio::test]
    async fn no_statement_scans() {
        for sql in [BY_ID, UPDATE, OF_VERSION, OF_FORMER_VERSION] {
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
                    ..InstallFilter::default()
                };
                assert_uses(&page_sql(&filter), index).await;
            }
        }
    }

    #[tokio::test]
    async fn of_some_tenants_or_some_installs_no_others_are_read() {
        let tenants = InstallFilter {
            tenants: Some([TenantId::generate()].into()),
            ..InstallFilter::default()
        };
        let installs = InstallFilter {
            installs: Some([InstallId::generate()].into()),
            ..InstallFilter::default()
        };
        for (filter, found_by) in [
            (
                tenants,
                "registry_installs_of_tenant (tenant_id=? AND id>?)",
            ),
            (installs, "sqlite_autoindex_registry_installs_1 (id=?)"),
        ] {
            let plan = plan_of(&page_sql(&filter)).await;
            assert!(plan[0].ends_with(found_by), "{plan:#?}");
        }
    }
}
