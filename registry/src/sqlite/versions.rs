//! Statements about versions.

use sqlx::{SqliteConnection, SqliteExecutor};
use uuid::Uuid;

use super::error::SqliteError;
use super::{audit, extensions, lookahead, rows, signed};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::page::{Page, PageRequest};
use crate::version::{NewVersion, Registered, Version, VersionKey};

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
const PAGE: &str =
    select_versions!("WHERE extension_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3");
const INSERT: &str = "INSERT INTO registry_versions
    (id, extension_id, version, content_hash, size, created_at, manifest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Sorts after every id.
const AFTER_EVERY_ID: &[u8] = &[0xff; 17];

#[tracing::instrument(level = "debug", name = "db.versions.find", skip_all)]
pub(super) async fn find(
    executor: impl SqliteExecutor<'_>,
    key: &VersionKey,
) -> Result<Option<Version>, SqliteError> {
    let query = match key {
        VersionKey::Id(id) => sqlx::query(BY_ID).bind(id.as_bytes().as_slice()),
        VersionKey::Content(hash) => sqlx::query(BY_CONTENT).bind(hash.as_bytes().as_slice()),
        VersionKey::Named { name, version } => sqlx::query(BY_NAME)
            .bind(name.as_str())
            .bind(version.as_str()),
    };
    query
        .fetch_optional(executor)
        .await?
        .as_ref()
        .map(rows::version)
        .transpose()
}

#[tracing::instrument(level = "debug", name = "db.versions.list", skip_all)]
pub(super) async fn list(
    executor: impl SqliteExecutor<'_>,
    extension_id: Uuid,
    page: PageRequest<Uuid>,
) -> Result<Page<Version, Uuid>, SqliteError> {
    let before = page
        .after
        .as_ref()
        .map_or(AFTER_EVERY_ID, |id| id.as_bytes().as_slice());
    let rows = sqlx::query(PAGE)
        .bind(extension_id.as_bytes().as_slice())
        .bind(before)
        .bind(lookahead(page.limit))
        .fetch_all(executor)
        .await?;
    let found = rows.iter().map(rows::version).collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |version: &Version| version.id,
    ))
}

/// Registers `new` in a transaction that the caller commits.
pub(super) async fn register(
    tx: &mut SqliteConnection,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Registered, SqliteError> {
    let owner = extensions::find(&mut *tx, &ExtensionKey::Name(new.name.clone())).await?;
    if let Some(extension) = &owner {
        new.ensure_publisher_of(extension)?;
        let key = VersionKey::Named {
            name: new.name.clone(),
            version: new.version.clone(),
        };
        if let Some(version) = find(&mut *tx, &key).await? {
            version.ensure_same_as(new)?;
            return Ok(Registered {
                extension: extension.clone(),
                version,
                created: false,
            });
        }
    }
    if find(&mut *tx, &VersionKey::Content(new.content_hash))
        .await?
        .is_some()
    {
        return Err(RegistryError::ManifestConflict.into());
    }
    let extension = match owner {
        Some(extension) => extension,
        None => extensions::create(&mut *tx, &new.name, &new.publisher, change.now).await?,
    };
    let version = create(&mut *tx, &extension, new, change).await?;
    let registered = Registered {
        extension,
        version,
        created: true,
    };
    audit::record(
        tx,
        &AuditEntry::version_registered(new, &registered),
        change,
    )
    .await?;
    Ok(registered)
}

#[tracing::instrument(level = "debug", name = "db.versions.create", skip_all)]
async fn create(
    tx: &mut SqliteConnection,
    extension: &Extension,
    new: &NewVersion,
    change: Change<'_>,
) -> Result<Version, SqliteError> {
    let id = Uuid::now_v7();
    sqlx::query(INSERT)
        .bind(id.as_bytes().as_slice())
        .bind(extension.id.as_bytes().as_slice())
        .bind(new.version.as_str())
        .bind(new.content_hash.as_bytes().as_slice())
        .bind(signed(new.size)?)
        .bind(change.now.as_millis())
        .bind(new.manifest.as_str())
        .execute(tx)
        .await?;
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
        for sql in [BY_ID, BY_CONTENT, BY_NAME, PAGE] {
            assert_searches(sql).await;
        }
    }
}
