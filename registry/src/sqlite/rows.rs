//! From rows to types. Whatever a row holds that the registry would not have written is an
//! inconsistency, with the table, column and row it was found in.

use std::collections::BTreeMap;
use std::str::FromStr;

use alga_model::{ContentHash, ExtensionName, InstallId, TenantId, Timestamp};
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::SqliteError;
use crate::audit::AuditRecord;
use crate::config::Config;
use crate::error::RegistryError;
use crate::extension::Extension;
use crate::idempotency::{KeptAnswer, UsedKey};
use crate::install::{FormerVersion, Install, InstallState};
use crate::switches::Switches;
use crate::tenant::TenantSettings;
use crate::version::{Version, VersionSummary};

const EXTENSIONS: &str = "registry_extensions";
const VERSIONS: &str = "registry_versions";
const REMOVED_VERSIONS: &str = "registry_removed_versions";
const INSTALLS: &str = "registry_installs";
const SWITCHES: &str = "registry_switches";
const TENANTS: &str = "registry_tenants";
const AUDIT: &str = "registry_audit";
const ANSWERS: &str = "registry_answers";

/// Sorts before every id.
pub(super) const BEFORE_EVERY_ID: &[u8] = &[];

/// A row's columns `id`, `name`, `publisher`, `created_at`.
pub(super) fn extension(row: &Row<'_>) -> Result<Extension, SqliteError> {
    let (columns, id) = Columns::keyed_by(row, EXTENSIONS, "id")?;
    Ok(Extension {
        id,
        name: columns.parsed("name")?,
        publisher: columns.get("publisher")?,
        created_at: columns.time("created_at")?,
    })
}

/// A row's columns `id`, `extension_id`, `version`, `content_hash`, `manifest`, `size`, `created_at`.
pub(super) fn version(row: &Row<'_>) -> Result<Version, SqliteError> {
    let (columns, id) = Columns::keyed_by(row, VERSIONS, "id")?;
    Ok(Version {
        id,
        extension_id: columns.uuid("extension_id")?,
        version: columns.get("version")?,
        content_hash: columns.content_hash("content_hash")?,
        manifest: columns.get("manifest")?,
        size: columns.get("size")?,
        created_at: columns.time("created_at")?,
    })
}

/// A version's row without its column `manifest`.
pub(super) fn version_summary(row: &Row<'_>) -> Result<VersionSummary, SqliteError> {
    let (columns, id) = Columns::keyed_by(row, VERSIONS, "id")?;
    Ok(VersionSummary {
        id,
        extension_id: columns.uuid("extension_id")?,
        version: columns.get("version")?,
        content_hash: columns.content_hash("content_hash")?,
        size: columns.get("size")?,
        created_at: columns.time("created_at")?,
    })
}

/// What a version that was removed consisted of.
pub(super) fn removed_content(row: &Row<'_>) -> Result<ContentHash, SqliteError> {
    let (columns, _) = Columns::keyed_by(row, REMOVED_VERSIONS, "extension_id")?;
    columns.content_hash("content_hash")
}

/// A row as the statements of the installs select it.
pub(super) fn install(row: &Row<'_>) -> Result<Install, SqliteError> {
    let (columns, id) = Columns::keyed_by(row, INSTALLS, "id")?;
    let extension_id = columns.uuid("extension_id")?;
    let version_id = columns.uuid("version_id")?;
    let extension = Columns {
        row,
        table: EXTENSIONS,
        key: extension_id.to_string(),
    };
    let version = Columns {
        row,
        table: VERSIONS,
        key: version_id.to_string(),
    };
    Ok(Install {
        id: InstallId::new(id),
        tenant: TenantId::new(columns.uuid("tenant_id")?),
        extension_id,
        extension_name: extension.parsed("name")?,
        version_id,
        version: version.get("version")?,
        content_hash: version.content_hash("content_hash")?,
        state: columns.state("state")?,
        allow_envelope_config: columns.get("allow_envelope_config")?,
        config: Config::from(columns.json::<BTreeMap<_, _>>("config")?),
        grants: columns.json("grants")?,
        limits: columns.optional_json("limits")?,
        concurrency: columns.get("concurrency")?,
        former: former(&columns)?,
        generation: columns.get("generation")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

/// The former version of an install, if it has one.
fn former(columns: &Columns<'_>) -> Result<Option<FormerVersion>, SqliteError> {
    let Some(version_id) = columns.optional_uuid("former_version_id")? else {
        return Ok(None);
    };
    Ok(Some(FormerVersion {
        version_id,
        version: columns.get("former_version")?,
        content_hash: columns.content_hash("former_content_hash")?,
        grants: columns.json("former_grants")?,
    }))
}

/// The row of the switches.
pub(super) fn switches(row: &Row<'_>) -> Result<Switches, SqliteError> {
    let columns = Columns {
        row,
        table: SWITCHES,
        key: "1".to_owned(),
    };
    Ok(Switches {
        storage: columns.get("storage")?,
        allowed_extensions: columns.optional_json("allowed_extensions")?,
        generation: columns.get("generation")?,
        updated_at: Some(columns.time("updated_at")?),
    })
}

/// A row's columns `tenant_id`, `storage`, `limits`, `generation`, `updated_at`.
pub(super) fn tenant_settings(row: &Row<'_>) -> Result<TenantSettings, SqliteError> {
    let (columns, tenant) = Columns::keyed_by(row, TENANTS, "tenant_id")?;
    Ok(TenantSettings {
        tenant: TenantId::new(tenant),
        storage: columns.get("storage")?,
        limits: columns.optional_json("limits")?,
        generation: columns.get("generation")?,
        updated_at: Some(columns.time("updated_at")?),
    })
}

/// A whole row of the audit.
pub(super) fn audit_record(row: &Row<'_>) -> Result<AuditRecord, SqliteError> {
    let seq: i64 = row.get("seq")?;
    let columns = Columns {
        row,
        table: AUDIT,
        key: seq.to_string(),
    };
    Ok(AuditRecord {
        seq: columns.get("seq")?,
        at: columns.time("at")?,
        actor: columns.get("actor")?,
        request_id: columns.get("request_id")?,
        action: columns.get("action")?,
        tenant: columns.optional_uuid("tenant_id")?.map(TenantId::new),
        install: columns.optional_uuid("install_id")?.map(InstallId::new),
        extension: columns.optional_name("extension")?,
        details: columns.json("details")?,
    })
}

/// A row's columns `rowid`, `request`, `expires_at`, `status`, `bytes`, `answer`. The key is the
/// caller's own, and appears in no error.
pub(super) fn used_key(row: &Row<'_>) -> Result<UsedKey, SqliteError> {
    let rowid: i64 = row.get("rowid")?;
    let columns = Columns {
        row,
        table: ANSWERS,
        key: rowid.to_string(),
    };
    Ok(UsedKey {
        digest: columns.content_hash("request")?,
        expires_at: columns.time("expires_at")?,
        answer: kept_answer(&columns)?,
    })
}

/// The answer of a row, if it has one.
fn kept_answer(columns: &Columns<'_>) -> Result<Option<KeptAnswer>, SqliteError> {
    let Some(status) = columns.get("status")? else {
        return Ok(None);
    };
    Ok(Some(KeptAnswer {
        status,
        bytes: columns.get("bytes")?,
        content: columns.get("answer")?,
    }))
}

/// What it means that a version's extension is missing.
pub(super) fn dangling_extension(version: &Version) -> RegistryError {
    let key = version.id.to_string();
    RegistryError::Inconsistency {
        table: VERSIONS,
        column: "extension_id",
        key,
    }
}

/// The columns of one row of one table.
struct Columns<'r> {
    row: &'r Row<'r>,
    table: &'static str,
    key: String,
}

impl<'r> Columns<'r> {
    fn keyed_by(
        row: &'r Row<'r>,
        table: &'static str,
        column: &'static str,
    ) -> Result<(Self, Uuid), SqliteError> {
        let unkeyed = Self {
            row,
            table,
            key: "without a valid id".to_owned(),
        };
        let id = unkeyed.uuid(column)?;
        let key = id.to_string();
        Ok((Self { key, ..unkeyed }, id))
    }

    fn get<T: FromSql>(&self, column: &'static str) -> Result<T, SqliteError> {
        let value = self.row.get(column);
        value.map_err(|_| self.inconsistency(column))
    }

    fn uuid(&self, column: &'static str) -> Result<Uuid, SqliteError> {
        self.get(column).map(Uuid::from_bytes)
    }

    fn optional_uuid(&self, column: &'static str) -> Result<Option<Uuid>, SqliteError> {
        Ok(self.get::<Option<_>>(column)?.map(Uuid::from_bytes))
    }

    fn content_hash(&self, column: &'static str) -> Result<ContentHash, SqliteError> {
        self.get(column).map(ContentHash::from_digest)
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, SqliteError> {
        self.get(column).map(Timestamp::from_millis)
    }

    fn state(&self, column: &'static str) -> Result<InstallState, SqliteError> {
        self.text(column, InstallState::from_name)
    }

    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, SqliteError> {
        self.text(column, |text| text.parse().ok())
    }

    fn optional_name(&self, column: &'static str) -> Result<Option<ExtensionName>, SqliteError> {
        self.optional_text(column, |text| text.parse().ok())
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, SqliteError> {
        self.text(column, |text| serde_json::from_str(text).ok())
    }

    fn optional_json<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, SqliteError> {
        self.optional_text(column, |text| serde_json::from_str(text).ok())
    }

    fn text<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, SqliteError> {
        self.optional_text(column, parse)?
            .ok_or_else(|| self.inconsistency(column))
    }

    /// The text of a column that may be NULL, read by `parse`.
    fn optional_text<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SqliteError> {
        let value = self.row.get_ref(column)?;
        match value.as_str_or_null() {
            Ok(None) => Ok(None),
            Ok(Some(text)) => parse(text)
                .map(Some)
                .ok_or_else(|| self.inconsistency(column)),
            Err(_) => Err(self.inconsistency(column)),
        }
    }

    fn inconsistency(&self, column: &'static str) -> SqliteError {
        RegistryError::Inconsistency {
            table: self.table,
            column,
            key: self.key.clone(),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use alga_model::Timestamp;
    use alga_sqlite::Options;

    use super::*;
    use crate::audit::AuditFilter;
    use crate::change::Change;
    use crate::install::NewInstall;
    use crate::page::PageRequest;
    use crate::registry::Registry;
    use crate::sqlite::SqliteRegistry;
    use crate::switches::SwitchesEdit;
    use crate::tenant::TenantEdit;
    use crate::version::{NewVersion, VersionKey};

    const NOTES: &str = "com.example.notes";

    fn change() -> Change<'static> {
        Change {
            actor: "admin",
            request_id: None,
            now: Timestamp::from_millis(0),
        }
    }

    /// A registry with one install.
    async fn registry() -> (SqliteRegistry, Install) {
        let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
        let new = NewVersion {
            name: NOTES.parse().unwrap(),
            publisher: "Example Inc.".to_owned(),
            version: "1.0.0".to_owned(),
            content_hash: ContentHash::of(b"notes"),
            manifest: "{}".to_owned(),
            size: 5,
        };
        let version = registry
            .register_version(&new, change())
            .await
            .unwrap()
            .version;
        let install = NewInstall::new(TenantId::generate(), version.id);
        let install = registry.create_install(&install, change()).await.unwrap();
        (registry, install)
    }

    async fn tamper(registry: &SqliteRegistry, sql: &'static str) {
        let tampered = registry
            .database
            .write(|tx| Ok::<_, SqliteError>(tx.execute(sql, ())?));
        assert_ne!(tampered.await.unwrap(), 0);
    }

    fn assert_inconsistent<T>(
        result: Result<T, RegistryError>,
        table: &str,
        column: &str,
        key: &str,
    ) {
        match result {
            Err(RegistryError::Inconsistency {
                table: t,
                column: c,
                key: k,
            }) => {
                assert_eq!((t, c, k.as_str()), (table, column, key));
            }
            Err(other) => panic!("expected an inconsistency of {table}.{column}, got {other:?}"),
            Ok(_) => panic!("expected an inconsistency of {table}.{column}"),
        }
    }

    #[tokio::test]
    async fn a_damaged_install_is_named() {
        for (sql, column) in [
            ("UPDATE registry_installs SET grants = '[]'", "grants"),
            (
                "UPDATE registry_installs SET config = '{\"a\":1}'",
                "config",
            ),
            ("UPDATE registry_installs SET limits = '{'", "limits"),
        ] {
            let (registry, install) = registry().await;
            tamper(&registry, sql).await;
            let found = registry.install(install.id).await;
            assert_inconsistent(found, INSTALLS, column, &install.id.to_string());
        }
    }

    #[tokio::test]
    async fn damaged_switches_are_named() {
        for (sql, column) in [
            (
                "UPDATE registry_switches SET allowed_extensions = '[\"notes\"]'",
                "allowed_extensions",
            ),
            (
                "UPDATE registry_switches SET allowed_extensions = '{}'",
                "allowed_extensions",
            ),
        ] {
            let (registry, _) = registry().await;
            let edit = SwitchesEdit::Storage(false);
            registry.edit_switches(edit, None, change()).await.unwrap();
            tamper(&registry, sql).await;
            assert_inconsistent(registry.switches().await, SWITCHES, column, "1");
            let edit = SwitchesEdit::Storage(true);
            let edited = registry.edit_switches(edit, None, change()).await;
            assert_inconsistent(edited, SWITCHES, column, "1");
        }
    }

    #[tokio::test]
    async fn damaged_settings_of_a_tenant_are_named() {
        let (registry, install) = registry().await;
        let edit = TenantEdit::Storage(false);
        let edited = registry
            .edit_tenant(install.tenant, edit, None, change())
            .await;
        let key = edited.unwrap().tenant.to_string();
        tamper(&registry, "UPDATE registry_tenants SET limits = '{'").await;
        let found = registry.tenant_settings(install.tenant).await;
        assert_inconsistent(found, TENANTS, "limits", &key);
        let listed = registry.tenants_with_settings(PageRequest::first(1)).await;
        assert_inconsistent(listed, TENANTS, "limits", &key);
    }

    #[tokio::test]
    async fn an_install_names_the_extension_that_is_damaged() {
        let (registry, install) = registry().await;
        tamper(&registry, "UPDATE registry_extensions SET name = 'notes'").await;
        let found = registry.install(install.id).await;
        assert_inconsistent(found, EXTENSIONS, "name", &install.extension_id.to_string());
    }

    #[tokio::test]
    async fn a_text_that_is_not_utf_8_is_an_inconsistency() {
        let (registry, install) = registry().await;
        tamper(
            &registry,
            "UPDATE registry_versions SET manifest = CAST(x'ff' AS TEXT)",
        )
        .await;
        let found = registry.version(&VersionKey::Id(install.version_id)).await;
        assert_inconsistent(found, VERSIONS, "manifest", &install.version_id.to_string());
    }

    #[tokio::test]
    async fn a_damaged_audit_record_is_named() {
        for (sql, column) in [
            (
                "UPDATE registry_audit SET details = '' WHERE seq = 1",
                "details",
            ),
            (
                "UPDATE registry_audit SET extension = '' WHERE seq = 1",
                "extension",
            ),
        ] {
            let (registry, _) = registry().await;
            tamper(&registry, sql).await;
            let found = registry
                .audit(&AuditFilter::default(), PageRequest::first(10))
                .await;
            assert_inconsistent(found, AUDIT, column, "1");
        }
    }

    #[tokio::test]
    async fn an_action_of_a_later_release_is_read() {
        let (registry, _) = registry().await;
        tamper(
            &registry,
            "UPDATE registry_audit SET action = 'install.purge' WHERE seq = 1",
        )
        .await;
        let page = registry
            .audit(&AuditFilter::default(), PageRequest::first(1))
            .await
            .unwrap();
        assert_eq!(page.items[0].action, "install.purge");
    }
}
