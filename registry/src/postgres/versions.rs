//! Statements about versions.

use alga_model::ContentHash;
use alga_postgres::Time;
use uuid::Uuid;

use super::error::PostgresError;
use super::session::{Session, bigint};
use super::{audit, extensions, installs};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::error::{RegistryError, Resource};
use crate::extension::Extension;
use crate::page::{Page, PageRequest};
use crate::rows;
use crate::version::{NewVersion, Registered, Version, VersionKey, VersionSummary};

/// Selects versions as `rows::version` reads them, followed by a literal condition.
macro_rules! select_versions {
    ($condition:literal) => {
        concat!(
            "SELECT id, extension_id, version, content_hash, size, created_at, manifest::text AS manifest
            FROM registry_versions ",
            $condition
        )
    };
}

const BY_ID: &str = select_versions!("WHERE id = $1");
const BY_CONTENT: &str = select_versions!("WHERE content_hash = $1");
const BY_NAME: &str = select_versions!(
    "WHERE extension_id = (SELECT id FROM registry_extensions WHERE name = $1) AND version = $2"
);
/// Waits for whoever removes it, and keeps others from that.
const KEEP: &str = select_versions!("WHERE id = $1 FOR KEY SHARE");
/// Waits for whoever is about to refer to it, and keeps others from that.
const LOCK: &str = "SELECT FROM registry_versions WHERE id = $1 FOR UPDATE";
// Without the manifest: a page of them would be read for nothing.
const PAGE: &str =
    "SELECT id, extension_id, version, content_hash, size, created_at FROM registry_versions
    WHERE extension_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const INSERT: &str = "INSERT INTO registry_versions
    (id, extension_id, version, content_hash, size, created_at, manifest)
    VALUES ($1, $2, $3, $4, $5, $6, $7::json) ON CONFLICT DO NOTHING";
const REMOVE: &str = "DELETE FROM registry_versions WHERE id = $1";
const REMEMBER: &str = "INSERT INTO registry_removed_versions
    (extension_id, version, content_hash, removed_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (extension_id, version) DO UPDATE SET removed_at = excluded.removed_at";
const REMOVED: &str = "SELECT extension_id, version, content_hash FROM registry_removed_versions
    WHERE extension_id = $1 AND version = $2";

#[tracing::instrument(level = "debug", name = "db.versions.find", skip_all)]
pub(super) async fn find(
    session: &mut Session<'_>,
    key: &VersionKey,
) -> Result<Option<Version>, PostgresError> {
    let by_key = match key {
        // No text of PostgreSQL holds a NUL, so it can't even be asked for.
        VersionKey::Named { version, .. } if version.contains('\0') => return Ok(None),
        VersionKey::Id(id) => session.of(BY_ID).bind(id),
        VersionKey::Content(hash) => session.of(BY_CONTENT).bind(hash.as_bytes()),
        VersionKey::Named { name, version } => {
            session.of(BY_NAME).bind(name.as_str()).bind(version)
        }
    };
    session.find_one(by_key, rows::version).await
}

#[tracing::instrument(level = "debug", name = "db.versions.list", skip_all)]
pub(super) async fn list(
    session: &mut Session<'_>,
    extension_id: Uuid,
    page: PageRequest<Uuid>,
) -> Result<Page<VersionSummary, Uuid>, PostgresError> {
    let listing = session
        .of(PAGE)
        .bind(extension_id)
        .bind(page.after.unwrap_or(Uuid::max()))
        .bind(page.lookahead());
    let found = session.find_all(listing, rows::version_summary).await?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |version: &VersionSummary| version.id,
    ))
}

/// The version with this id, which nobody removes before the transaction ends.
#[tracing::instrument(level = "debug", name = "db.versions.keep", skip_all)]
pub(super) async fn kept(session: &mut Session<'_>, id: Uuid) -> Result<Version, PostgresError> {
    let by_id = session.of(KEEP).bind(id);
    let found = session.find_one(by_id, rows::version).await?;
    Ok(found.ok_or(UNKNOWN)?)
}

/// Registers `new` in a transaction that the caller commits.
pub(super) async fn register(
    session: &mut Session<'_>,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Registered, PostgresError> {
    let extension =
        extensions::locked_or_created(session, &new.name, &new.publisher, change.now).await?;
    new.ensure_publisher_of(&extension)?;
    let key = VersionKey::Named {
        name: new.name.clone(),
        version: new.version.clone(),
    };
    if let Some(version) = find(session, &key).await? {
        version.ensure_same_as(new)?;
        return Ok(Registered {
            extension,
            version,
            created: false,
        });
    }
    ensure_as_removed(session, &extension, new).await?;
    let version = create(session, &extension, new, change).await?;
    let registered = Registered {
        extension,
        version,
        created: true,
    };
    let entry = AuditEntry::version_registered(new, &registered);
    audit::record(session, &entry, change).await?;
    Ok(registered)
}

/// Removes a version in a transaction that the caller commits.
pub(super) async fn remove(
    session: &mut Session<'_>,
    id: Uuid,
    change: Change<'_>,
) -> Result<(), PostgresError> {
    let version = find(session, &VersionKey::Id(id)).await?.ok_or(UNKNOWN)?;
    let extension = extensions::locked(session, version.extension_id)
        .await?
        .ok_or_else(|| rows::dangling_extension(&version))?;
    lock(session, id).await?;
    let installs = installs::that_need(session, &version).await?;
    if !installs.is_empty() {
        return Err(RegistryError::VersionInUse { installs }.into());
    }
    let remove = session.of(REMOVE).bind(id);
    session.execute(remove).await?;
    let remember = session
        .of(REMEMBER)
        .bind(version.extension_id)
        .bind(&version.version)
        .bind(version.content_hash.as_bytes())
        .bind(Time(change.now));
    session.execute(remember).await?;
    let entry = AuditEntry::version_removed(&extension, &version);
    audit::record(session, &entry, change).await
}

const UNKNOWN: RegistryError = RegistryError::NotFound {
    what: Resource::Version,
};

/// Keeps others from referring to a version that is to be removed.
#[tracing::instrument(level = "debug", name = "db.versions.lock", skip_all)]
async fn lock(session: &mut Session<'_>, id: Uuid) -> Result<(), PostgresError> {
    let lock = session.of(LOCK).bind(id);
    if session.execute(lock).await? == 0 {
        return Err(UNKNOWN.into());
    }
    Ok(())
}

/// Ensures that `new`, where it was removed once, is what was removed.
async fn ensure_as_removed(
    session: &mut Session<'_>,
    extension: &Extension,
    new: &NewVersion,
) -> Result<(), PostgresError> {
    let removed = session.of(REMOVED).bind(extension.id).bind(&new.version);
    let removed: Option<ContentHash> = session.find_one(removed, rows::removed_content).await?;
    match removed {
        Some(registered) if registered != new.content_hash => {
            Err(RegistryError::DuplicateVersion { registered }.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes a version that the extension, which is locked, doesn't have.
#[tracing::instrument(level = "debug", name = "db.versions.create", skip_all)]
async fn create(
    session: &mut Session<'_>,
    extension: &Extension,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Version, PostgresError> {
    let id = Uuid::now_v7();
    let insert = session
        .of(INSERT)
        .bind(id)
        .bind(extension.id)
        .bind(&new.version)
        .bind(new.content_hash.as_bytes())
        .bind(bigint(new.size))
        .bind(Time(change.now))
        .bind(&new.manifest);
    if session.execute(insert).await? == 0 {
        // Then it is the content that is there already, perhaps under another extension, which nobody
        // has locked.
        return Err(RegistryError::ManifestConflict.into());
    }
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
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn no_statement_scans() {
        let plans = Plans::new().await;
        for sql in [
            BY_ID, BY_CONTENT, BY_NAME, KEEP, LOCK, PAGE, REMOVE, REMOVED,
        ] {
            plans.assert_searches(sql).await;
        }
    }

    #[test]
    fn a_list_reads_no_manifests() {
        assert!(BY_ID.contains("manifest") && !PAGE.contains("manifest"));
    }
}
