//! From rows to types, for every backend. Whatever a row holds that the registry would not have written is an
//! inconsistency, with the table, column and row it was found in.

use std::collections::BTreeMap;
use std::str::FromStr;

use alga_model::{ContentHash, ExtensionName, InstallId, TenantId, Timestamp};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::audit::AuditRecord;
use crate::config::Config;
use crate::error::RegistryError;
use crate::extension::Extension;
use crate::idempotency::{AnswerQuota, KeptAnswer, UsedKey};
use crate::install::{FormerVersion, Install, InstallState};
use crate::switches::Switches;
use crate::tenant::TenantSettings;
use crate::upload::{BundleUpload, UploadState};
use crate::version::{Version, VersionSummary};

pub(crate) const EXTENSIONS: &str = "registry_extensions";
pub(crate) const VERSIONS: &str = "registry_versions";
pub(crate) const REMOVED_VERSIONS: &str = "registry_removed_versions";
pub(crate) const INSTALLS: &str = "registry_installs";
pub(crate) const SWITCHES: &str = "registry_switches";
pub(crate) const TENANTS: &str = "registry_tenants";
pub(crate) const AUDIT: &str = "registry_audit";
pub(crate) const ANSWERS: &str = "registry_answers";
pub(crate) const ANSWER_COUNTS: &str = "registry_answer_counts";
pub(crate) const IDENTITY: &str = "registry_identity";
pub(crate) const BUNDLE_UPLOADS: &str = "registry_bundle_uploads";

/// A row of whatever database: values by the names of their columns, which may be NULL.
pub(crate) trait Row {
    fn uuid(&self, column: &'static str) -> Result<Option<Uuid>, Unreadable>;
    fn number(&self, column: &'static str) -> Result<Option<i64>, Unreadable>;
    fn flag(&self, column: &'static str) -> Result<Option<bool>, Unreadable>;
    fn time(&self, column: &'static str) -> Result<Option<Timestamp>, Unreadable>;
    fn text(&self, column: &'static str) -> Result<Option<&str>, Unreadable>;
    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, Unreadable>;
}

/// There is no such column, or it holds something else.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// A row's columns `id`, `name`, `publisher`, `created_at`.
pub(crate) fn extension(row: &dyn Row) -> Result<Extension, RegistryError> {
    let (columns, id) = Columns::keyed_by(row, EXTENSIONS, "id")?;
    Ok(Extension {
        id,
        name: columns.parsed("name")?,
        publisher: columns.string("publisher")?,
        created_at: columns.time("created_at")?,
    })
}

/// A row's columns `id`, `extension_id`, `version`, `content_hash`, `manifest`, `size`, `created_at`.
pub(crate) fn version(row: &dyn Row) -> Result<Version, RegistryError> {
    let (columns, id) = Columns::keyed_by(row, VERSIONS, "id")?;
    Ok(Version {
        id,
        extension_id: columns.uuid("extension_id")?,
        version: columns.string("version")?,
        content_hash: columns.content_hash("content_hash")?,
        manifest: columns.string("manifest")?,
        size: columns.number("size")?,
        created_at: columns.time("created_at")?,
    })
}

/// A version's row without its column `manifest`.
pub(crate) fn version_summary(row: &dyn Row) -> Result<VersionSummary, RegistryError> {
    let (columns, id) = Columns::keyed_by(row, VERSIONS, "id")?;
    Ok(VersionSummary {
        id,
        extension_id: columns.uuid("extension_id")?,
        version: columns.string("version")?,
        content_hash: columns.content_hash("content_hash")?,
        size: columns.number("size")?,
        created_at: columns.time("created_at")?,
    })
}

/// What a version that was removed consisted of.
pub(crate) fn removed_content(row: &dyn Row) -> Result<ContentHash, RegistryError> {
    let (columns, _) = Columns::keyed_by(row, REMOVED_VERSIONS, "extension_id")?;
    columns.content_hash("content_hash")
}

/// A row as the statements of the installs select it.
pub(crate) fn install(row: &dyn Row) -> Result<Install, RegistryError> {
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
        version: version.string("version")?,
        content_hash: version.content_hash("content_hash")?,
        state: columns.state("state")?,
        allow_envelope_config: columns.flag("allow_envelope_config")?,
        config: Config::from(columns.json::<BTreeMap<_, _>>("config")?),
        grants: columns.json("grants")?,
        limits: columns.optional_json("limits")?,
        concurrency: columns.optional_number("concurrency")?,
        former: former(&columns)?,
        generation: columns.number("generation")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

/// The former version of an install, if it has one.
fn former(columns: &Columns<'_>) -> Result<Option<FormerVersion>, RegistryError> {
    let Some(version_id) = columns.optional_uuid("former_version_id")? else {
        return Ok(None);
    };
    Ok(Some(FormerVersion {
        version_id,
        version: columns.string("former_version")?,
        content_hash: columns.content_hash("former_content_hash")?,
        grants: columns.json("former_grants")?,
    }))
}

/// The row of the switches.
pub(crate) fn switches(row: &dyn Row) -> Result<Switches, RegistryError> {
    let columns = Columns {
        row,
        table: SWITCHES,
        key: "1".to_owned(),
    };
    Ok(Switches {
        storage: columns.flag("storage")?,
        allowed_extensions: columns.optional_json("allowed_extensions")?,
        generation: columns.number("generation")?,
        updated_at: columns.optional_time("updated_at")?,
    })
}

/// A row's column `id`.
pub(crate) fn identity(row: &dyn Row) -> Result<Uuid, RegistryError> {
    Columns::unkeyed(row, IDENTITY).uuid("id")
}

/// The row of the identity, which a migration wrote, is gone.
pub(crate) fn no_identity() -> RegistryError {
    RegistryError::Inconsistency {
        table: IDENTITY,
        column: "id",
        key: "1".to_owned(),
    }
}

/// A row's columns `tenant_id`, `storage`, `limits`, `generation`, `updated_at`.
pub(crate) fn tenant_settings(row: &dyn Row) -> Result<TenantSettings, RegistryError> {
    let (columns, tenant) = Columns::keyed_by(row, TENANTS, "tenant_id")?;
    Ok(TenantSettings {
        tenant: TenantId::new(tenant),
        storage: columns.flag("storage")?,
        limits: columns.optional_json("limits")?,
        generation: columns.number("generation")?,
        updated_at: Some(columns.time("updated_at")?),
    })
}

/// A whole row of the audit.
pub(crate) fn audit_record(row: &dyn Row) -> Result<AuditRecord, RegistryError> {
    let (columns, seq) = Columns::numbered_by(row, AUDIT, "seq")?;
    Ok(AuditRecord {
        seq,
        at: columns.time("at")?,
        actor: columns.string("actor")?,
        request_id: columns.optional_string("request_id")?,
        action: columns.string("action")?,
        tenant: columns.optional_uuid("tenant_id")?.map(TenantId::new),
        install: columns.optional_uuid("install_id")?.map(InstallId::new),
        extension: columns.optional_name("extension")?,
        details: columns.json("details")?,
    })
}

/// A row's columns `claim`, `request`, `expires_at`, `status`, `bytes`, `answer`. The key is the
/// caller's own, and appears in no error.
pub(crate) fn used_key(row: &dyn Row) -> Result<UsedKey, RegistryError> {
    let (columns, _) = Columns::keyed_by(row, ANSWERS, "claim")?;
    Ok(UsedKey {
        digest: columns.content_hash("request")?,
        expires_at: columns.time("expires_at")?,
        answer: kept_answer(&columns)?,
    })
}

/// The answer of a row, if it has one.
fn kept_answer(columns: &Columns<'_>) -> Result<Option<KeptAnswer>, RegistryError> {
    let Some(status) = columns.optional_number("status")? else {
        return Ok(None);
    };
    Ok(Some(KeptAnswer {
        status,
        bytes: columns.number("bytes")?,
        content: columns.optional_bytes("answer")?.map(<[u8]>::to_vec),
    }))
}

/// How much is kept: a row's columns `id`, `answers`, `bytes`.
pub(crate) fn kept_answers(row: &dyn Row) -> Result<AnswerQuota, RegistryError> {
    let (columns, _) = Columns::keyed_by(row, ANSWER_COUNTS, "id")?;
    Ok(AnswerQuota {
        answers: columns.number("answers")?,
        bytes: columns.number("bytes")?,
    })
}

/// A whole row of the uploads.
pub(crate) fn bundle_upload(row: &dyn Row) -> Result<BundleUpload, RegistryError> {
    let (columns, id) = Columns::keyed_by(row, BUNDLE_UPLOADS, "id")?;
    Ok(BundleUpload {
        id,
        actor: columns.string("actor")?,
        filename: columns.string("filename")?,
        content_type: columns.string("content_type")?,
        size: columns.number("size")?,
        declared_hash: columns.optional_content_hash("declared_hash")?,
        received: columns.number("received")?,
        state: columns.text("state", UploadState::from_name)?,
        code: columns.optional_string("code")?,
        hash: columns.optional_content_hash("sha256")?,
        etag: columns.optional_string("etag")?,
        store_upload: columns.optional_string("store_upload")?,
        parts: columns.json("parts")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

/// A row's column `id`, of an install.
pub(crate) fn install_id(row: &dyn Row) -> Result<InstallId, RegistryError> {
    let (_, id) = Columns::keyed_by(row, INSTALLS, "id")?;
    Ok(InstallId::new(id))
}

/// An install's column `tenant_id`.
pub(crate) fn tenant_id(row: &dyn Row) -> Result<TenantId, RegistryError> {
    let (_, id) = Columns::keyed_by(row, INSTALLS, "tenant_id")?;
    Ok(TenantId::new(id))
}

/// What it means that a version's extension is missing.
pub(crate) fn dangling_extension(version: &Version) -> RegistryError {
    let key = version.id.to_string();
    RegistryError::Inconsistency {
        table: VERSIONS,
        column: "extension_id",
        key,
    }
}

/// What it means that more answers are counted for `owner` than there are.
pub(crate) fn overcounted_answers(owner: Uuid) -> RegistryError {
    RegistryError::Inconsistency {
        table: ANSWER_COUNTS,
        column: "answers",
        key: owner.to_string(),
    }
}

/// The columns of one row of one table.
struct Columns<'r> {
    row: &'r dyn Row,
    table: &'static str,
    key: String,
}

impl<'r> Columns<'r> {
    fn keyed_by(
        row: &'r dyn Row,
        table: &'static str,
        column: &'static str,
    ) -> Result<(Self, Uuid), RegistryError> {
        let unkeyed = Self::unkeyed(row, table);
        let id = unkeyed.uuid(column)?;
        let key = id.to_string();
        Ok((Self { key, ..unkeyed }, id))
    }

    fn numbered_by(
        row: &'r dyn Row,
        table: &'static str,
        column: &'static str,
    ) -> Result<(Self, u64), RegistryError> {
        let unkeyed = Self::unkeyed(row, table);
        let number: u64 = unkeyed.number(column)?;
        let key = number.to_string();
        Ok((Self { key, ..unkeyed }, number))
    }

    fn unkeyed(row: &'r dyn Row, table: &'static str) -> Self {
        Self {
            row,
            table,
            key: "without a valid id".to_owned(),
        }
    }

    fn uuid(&self, column: &'static str) -> Result<Uuid, RegistryError> {
        self.present(column, Row::uuid)
    }

    fn optional_uuid(&self, column: &'static str) -> Result<Option<Uuid>, RegistryError> {
        self.optional(column, Row::uuid)
    }

    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, RegistryError> {
        self.optional_number(column)?
            .ok_or_else(|| self.inconsistency(column))
    }

    fn optional_number<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, RegistryError> {
        let number = self.optional(column, Row::number)?;
        let fitting = |number| T::try_from(number).map_err(|_| self.inconsistency(column));
        number.map(fitting).transpose()
    }

    fn flag(&self, column: &'static str) -> Result<bool, RegistryError> {
        self.present(column, Row::flag)
    }

    fn content_hash(&self, column: &'static str) -> Result<ContentHash, RegistryError> {
        self.optional_content_hash(column)?
            .ok_or_else(|| self.inconsistency(column))
    }

    fn optional_content_hash(
        &self,
        column: &'static str,
    ) -> Result<Option<ContentHash>, RegistryError> {
        let Some(bytes) = self.optional_bytes(column)? else {
            return Ok(None);
        };
        let digest = bytes.try_into().map_err(|_| self.inconsistency(column))?;
        Ok(Some(ContentHash::from_digest(digest)))
    }

    fn optional_bytes(&self, column: &'static str) -> Result<Option<&'r [u8]>, RegistryError> {
        self.optional(column, Row::bytes)
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, RegistryError> {
        self.present(column, Row::time)
    }

    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, RegistryError> {
        self.optional(column, Row::time)
    }

    fn string(&self, column: &'static str) -> Result<String, RegistryError> {
        self.present(column, Row::text).map(str::to_owned)
    }

    fn optional_string(&self, column: &'static str) -> Result<Option<String>, RegistryError> {
        Ok(self.optional(column, Row::text)?.map(str::to_owned))
    }

    fn state(&self, column: &'static str) -> Result<InstallState, RegistryError> {
        self.text(column, InstallState::from_name)
    }

    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, RegistryError> {
        self.text(column, |text| text.parse().ok())
    }

    fn optional_name(&self, column: &'static str) -> Result<Option<ExtensionName>, RegistryError> {
        self.optional_text(column, |text| text.parse().ok())
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, RegistryError> {
        self.text(column, |text| serde_json::from_str(text).ok())
    }

    fn optional_json<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, RegistryError> {
        self.optional_text(column, |text| serde_json::from_str(text).ok())
    }

    fn text<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, RegistryError> {
        self.optional_text(column, parse)?
            .ok_or_else(|| self.inconsistency(column))
    }

    /// The text of a column that may be NULL, read by `parse`.
    fn optional_text<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, RegistryError> {
        let text = self.optional(column, Row::text)?;
        let parsed = |text| parse(text).ok_or_else(|| self.inconsistency(column));
        text.map(parsed).transpose()
    }

    fn present<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(&'r dyn Row, &'static str) -> Result<Option<T>, Unreadable>,
    ) -> Result<T, RegistryError> {
        self.optional(column, read)?
            .ok_or_else(|| self.inconsistency(column))
    }

    fn optional<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(&'r dyn Row, &'static str) -> Result<Option<T>, Unreadable>,
    ) -> Result<Option<T>, RegistryError> {
        read(self.row, column).map_err(|Unreadable| self.inconsistency(column))
    }

    fn inconsistency(&self, column: &'static str) -> RegistryError {
        RegistryError::Inconsistency {
            table: self.table,
            column,
            key: self.key.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::change::Change;
    use crate::install::NewInstall;
    use crate::registry::Registry;
    use crate::version::NewVersion;

    const NOTES: &str = "com.example.notes";

    pub(crate) fn change() -> Change<'static> {
        Change {
            actor: "admin",
            request_id: None,
            now: Timestamp::from_millis(0),
        }
    }

    /// The first install of an empty registry.
    pub(crate) async fn an_install(registry: &dyn Registry) -> Install {
        let new = NewVersion {
            name: NOTES.parse().unwrap(),
            publisher: "Example Inc.".to_owned(),
            version: "1.0.0".to_owned(),
            content_hash: ContentHash::of(b"notes"),
            manifest: "{}".to_owned(),
            size: 5,
        };
        let registered = registry.register_version(&new, change()).await.unwrap();
        let install = NewInstall::new(TenantId::generate(), registered.version.id);
        registry.create_install(&install, change()).await.unwrap()
    }

    pub(crate) fn assert_inconsistent<T>(
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
}
