//! Statements about versions.

use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::{audit, extensions, find_all, find_one, installs};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::error::{RegistryError, Resource};
use crate::extension::{Extension, ExtensionKey};
use crate::page::{Page, PageRequest};
use crate::rows;
use crate::version::{NewVersion, Registered, Version, VersionKey, VersionSummary};

/// Selects versions as `rows::version` reads them, followed by a literal condition.
macro_rules! select_versions {
    ($condition:literal) => {
        concat!(
            "SELECT id, extension_id, version, content_hash, size, created_at, manifest FROM registry_versions ",
            $condition
        )
    };
}

const BY_ID: &str = select_versions!("WHERE id = ?1");
const BY_CONTENT: &str = select_versions!("WHERE content_hash = ?1");
const BY_NAME: &str = select_versions!(
    "WHERE extension_id = (SELECT id FROM registry_extensions WHERE name = ?1) AND version = ?2"
);
// Without the manifest: a page of them would be read for nothing.
const PAGE: &str =
    "SELECT id, extension_id, version, content_hash, size, created_at FROM registry_versions
    WHERE extension_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
const INSERT: &str = "INSERT INTO registry_versions
    (id, extension_id, version, content_hash, size, created_at, manifest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const REMOVE: &str = "DELETE FROM registry_versions WHERE id = ?1";
const REMEMBER: &str = "INSERT INTO registry_removed_versions
    (extension_id, version, content_hash, removed_at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (extension_id, version) DO UPDATE SET removed_at = excluded.removed_at";
const REMOVED: &str = "SELECT extension_id, version, content_hash FROM registry_removed_versions
    WHERE extension_id = ?1 AND version = ?2";

/// Sorts after every id.
const AFTER_EVERY_ID: &[u8] = &[0xff; 17];

#[tracing::instrument(level = "debug", name = "db.versions.find", skip_all)]
pub(super) fn find(
    connection: &Connection,
    key: &VersionKey,
) -> Result<Option<Version>, SqliteError> {
    match key {
        VersionKey::Id(id) => find_one(connection, BY_ID, [id.as_bytes()], rows::version),
        VersionKey::Content(hash) => {
            find_one(connection, BY_CONTENT, [hash.as_bytes()], rows::version)
        }
        VersionKey::Named { name, version } => {
            let params = [name.as_str(), version.as_str()];
            find_one(connection, BY_NAME, params, rows::version)
        }
    }
}

#[tracing::instrument(level = "debug", name = "db.versions.list", skip_all)]
pub(super) fn list(
    connection: &Connection,
    extension_id: Uuid,
    page: PageRequest<Uuid>,
) -> Result<Page<VersionSummary, Uuid>, SqliteError> {
    let before = page.after.as_ref();
    let before = before.map_or(AFTER_EVERY_ID, |id| id.as_bytes());
    let params = params![extension_id.as_bytes(), before, page.lookahead()];
    let found = find_all(connection, PAGE, params, rows::version_summary)?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |version: &VersionSummary| version.id,
    ))
}

/// Registers `new` in a transaction that the caller commits.
pub(super) fn register(
    tx: &Transaction<'_>,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Registered, SqliteError> {
    let owner = extensions::find(tx, &ExtensionKey::Name(new.name.clone()))?;
    if let Some(extension) = &owner {
        new.ensure_publisher_of(extension)?;
        let key = VersionKey::Named {
            name: new.name.clone(),
            version: new.version.clone(),
        };
        if let Some(version) = find(tx, &key)? {
            version.ensure_same_as(new)?;
            return Ok(Registered {
                extension: extension.clone(),
                version,
                created: false,
            });
        }
        ensure_as_removed(tx, extension, new)?;
    }
    if find(tx, &VersionKey::Content(new.content_hash))?.is_some() {
        return Err(RegistryError::ManifestConflict.into());
    }
    let extension = match owner {
        Some(extension) => extension,
        None => extensions::create(tx, &new.name, &new.publisher, change.now)?,
    };
    let version = create(tx, &extension, new, change)?;
    let registered = Registered {
        extension,
        version,
        created: true,
    };
    let entry = AuditEntry::version_registered(new, &registered);
    audit::record(tx, &entry, change)?;
    Ok(registered)
}

/// Removes a version in a transaction that the caller commits.
pub(super) fn remove(
    tx: &Transaction<'_>,
    id: Uuid,
    change: Change<'_>,
) -> Result<(), SqliteError> {
    let version = find(tx, &VersionKey::Id(id))?.ok_or(RegistryError::NotFound {
        what: Resource::Version,
    })?;
    let installs = installs::that_need(tx, &version)?;
    if !installs.is_empty() {
        return Err(RegistryError::VersionInUse { installs }.into());
    }
    let extension = extensions::find(tx, &ExtensionKey::Id(version.extension_id))?
        .ok_or_else(|| rows::dangling_extension(&version))?;
    tx.prepare_cached(REMOVE)?.execute([id.as_bytes()])?;
    tx.prepare_cached(REMEMBER)?.execute(params![
        version.extension_id.as_bytes(),
        version.version,
        version.content_hash.as_bytes(),
        change.now.as_millis(),
    ])?;
    let entry = AuditEntry::version_removed(&extension, &version);
    audit::record(tx, &entry, change)
}

/// Ensures that `new`, where it was removed once, is what was removed.
fn ensure_as_removed(
    tx: &Transaction<'_>,
    extension: &Extension,
    new: &NewVersion,
) -> Result<(), SqliteError> {
    let params = params![extension.id.as_bytes(), new.version];
    match find_one(tx, REMOVED, params, rows::removed_content)? {
        Some(registered) if registered != new.content_hash => {
            Err(RegistryError::DuplicateVersion { registered }.into())
        }
        Some(_) | None => Ok(()),
    }
}

#[tracing::instrument(level = "debug", name = "db.versions.create", skip_all)]
fn create(
    tx: &Transaction<'_>,
    extension: &Extension,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Version, SqliteError> {
    let id = Uuid::now_v7();
    tx.prepare_cached(INSERT)?.execute(params![
        id.as_bytes(),
        extension.id.as_bytes(),
        new.version,
        new.content_hash.as_bytes(),
        new.size,
        change.now.as_millis(),
        new.manifest,
    ])?;
    Ok(Version {
        id,
        extension_id: extension.id,
        version: new.version.clone(),
        content_hash: new.content_hash,
        manifest: new.manifest.clone(),
        size: new.size,
        created_at: change.now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::assert_searches;

    #[tokio::test]
    async fn no_statement_scans() {
        for sql in [BY_ID, BY_CONTENT, BY_NAME, PAGE, REMOVED] {
            assert_searches(sql).await;
        }
    }

    #[test]
    fn a_list_reads_no_manifests() {
        assert!(BY_ID.contains("manifest") && !PAGE.contains("manifest"));
    }
}
