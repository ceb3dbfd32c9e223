//! From rows to types. Whatever a row holds that this crate would not have written is an
//! inconsistency, with the table and column it was found in.

use alga_model::{InstallId, TenantId, Timestamp};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use uuid::Uuid;

use super::error::SqliteError;
use super::state::{Content, Counted, Counters, Stored};
use super::verify::Counts;
use crate::contract::{
    JsonText, Key, Listed, Namespace, NamespaceUsage, Quotas, Record, Revision, Usage,
};
use crate::maintenance::{AuditRecord, Holding};

const RECORDS: Columns = Columns("ext_storage_records");
const USAGE: Columns = Columns("ext_storage_usage");
const AUDIT: Columns = Columns("ext_storage_audit");

impl Counted {
    /// Tenant, install and namespace of the row: totals have empty ones.
    pub(super) fn row_key(&self) -> (&[u8], &[u8], &str) {
        match self {
            Self::Namespace(place) => (
                place.tenant.as_bytes(),
                place.install.as_bytes(),
                place.namespace.as_str(),
            ),
            Self::Install(tenant, install) => (tenant.as_bytes(), install.as_bytes(), ""),
            Self::Tenant(tenant) => (tenant.as_bytes(), &[], ""),
        }
    }
}

pub(super) fn record(row: &SqliteRow) -> Result<Record, SqliteError> {
    Ok(Record {
        key: key(row)?,
        value: JsonText::from_stored(RECORDS.get(row, "value")?),
        metadata: JsonText::from_stored(RECORDS.get(row, "metadata")?),
        revision: revision(row)?,
        expires_at: expires_at(row)?,
        created_at: RECORDS.time(row, "created_at")?,
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

pub(super) fn listed(row: &SqliteRow) -> Result<Listed, SqliteError> {
    let json = |column| RECORDS.get::<Option<String>>(row, column);
    Ok(Listed {
        key: key(row)?,
        revision: revision(row)?,
        value: json("value")?.map(JsonText::from_stored),
        metadata: json("metadata")?.map(JsonText::from_stored),
        expires_at: expires_at(row)?,
        created_at: RECORDS.time(row, "created_at")?,
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

/// A record as judging needs it; with its content where that was asked for.
pub(super) fn stored(row: &SqliteRow) -> Result<(Key, Stored), SqliteError> {
    let content = match RECORDS.get::<Option<String>>(row, "value")? {
        None => None,
        Some(value) => Some(Content {
            value: JsonText::from_stored(value),
            metadata: JsonText::from_stored(RECORDS.get(row, "metadata")?),
            updated_at: RECORDS.time(row, "updated_at")?,
        }),
    };
    let stored = Stored {
        revision: revision(row)?,
        bytes: RECORDS.count(row, "bytes")?,
        expires_at: expires_at(row)?,
        created_at: RECORDS.time(row, "created_at")?,
        content,
    };
    Ok((key(row)?, stored))
}

/// Revision and size of a record that was removed.
pub(super) fn removed(row: &SqliteRow) -> Result<(u64, u64), SqliteError> {
    Ok((
        RECORDS.count(row, "revision")?,
        RECORDS.count(row, "bytes")?,
    ))
}

/// Which of the things that a statement asked for, in its column `place`, a row belongs to.
pub(super) fn wanted<'w, T>(row: &SqliteRow, wanted: &'w [T]) -> Result<&'w T, SqliteError> {
    let index: i64 = USAGE.get(row, "place")?;
    usize::try_from(index)
        .ok()
        .and_then(|index| wanted.get(index))
        .ok_or_else(|| USAGE.inconsistency("place"))
}

pub(super) fn counters(row: &SqliteRow) -> Result<Counters, SqliteError> {
    Ok(Counters {
        keys: USAGE.count(row, "keys")?,
        bytes: USAGE.count(row, "bytes")?,
        namespaces: USAGE.count(row, "namespaces")?,
        revision_floor: USAGE.count(row, "revision_floor")?,
        change_seq: USAGE.count(row, "change_seq")?,
        next_expiry: USAGE.optional_time(row, "next_expiry")?,
    })
}

/// Keys that are left in a namespace, and when the next of them expires.
pub(super) fn keys_left(row: &SqliteRow) -> Result<(u64, Option<Timestamp>), SqliteError> {
    Ok((
        USAGE.count(row, "keys")?,
        USAGE.optional_time(row, "next_expiry")?,
    ))
}

pub(super) fn tenant_id(row: &SqliteRow) -> Result<TenantId, SqliteError> {
    USAGE.id(row, "tenant_id").map(TenantId::new)
}

/// The install and the namespace of a row of counters.
pub(super) fn place(row: &SqliteRow) -> Result<(InstallId, Namespace), SqliteError> {
    let namespace = Namespace::parse(USAGE.get::<&str>(row, "namespace")?)
        .map_err(|_| USAGE.inconsistency("namespace"))?;
    Ok((InstallId::new(USAGE.id(row, "install_id")?), namespace))
}

/// Whose counts they are, and the counts as they are, right or wrong.
pub(super) fn counts(
    row: &SqliteRow,
) -> Result<((Option<InstallId>, String), Counts), SqliteError> {
    let install = match USAGE.get::<&[u8]>(row, "install_id")? {
        [] => None,
        _ => Some(InstallId::new(USAGE.id(row, "install_id")?)),
    };
    let counts = Counts {
        keys: USAGE.get(row, "keys")?,
        bytes: USAGE.get(row, "bytes")?,
        namespaces: USAGE.get(row, "namespaces")?,
        next_expiry: USAGE.get(row, "next_expiry")?,
    };
    Ok(((install, USAGE.get(row, "namespace")?), counts))
}

pub(super) fn holding(row: &SqliteRow) -> Result<Holding, SqliteError> {
    Ok(Holding {
        install: InstallId::new(USAGE.id(row, "install_id")?),
        bytes: USAGE.count(row, "bytes")?,
        keys_of_fullest: USAGE.count(row, "keys")?,
        namespaces: USAGE.count(row, "namespaces")?,
    })
}

pub(super) fn audit_record(row: &SqliteRow) -> Result<AuditRecord, SqliteError> {
    let optional = |column| -> Result<Option<u64>, SqliteError> {
        let number: Option<i64> = AUDIT.get(row, column)?;
        Ok(number.map(i64::unsigned_abs))
    };
    Ok(AuditRecord {
        id: AUDIT.id(row, "audit_id")?,
        time: AUDIT.time(row, "at")?,
        tenant_id: TenantId::new(AUDIT.id(row, "tenant_id")?),
        install_id: InstallId::new(AUDIT.id(row, "install_id")?),
        extension: AUDIT.get(row, "extension")?,
        namespace: AUDIT.get(row, "namespace")?,
        key: AUDIT.get(row, "key")?,
        operation: AUDIT.get(row, "operation")?,
        revision_before: optional("revision_before")?,
        revision_after: optional("revision_after")?,
        schema_version: AUDIT.get(row, "schema_version")?,
        records: AUDIT.count(row, "records")?,
        bytes: AUDIT.count(row, "bytes")?,
        actor: AUDIT.get(row, "actor")?,
        request_id: AUDIT.get(row, "request_id")?,
    })
}

/// Namespaces by name, the install's totals under the empty name, the expired without one.
pub(super) fn install_usage(rows: &[SqliteRow], quotas: Quotas) -> Result<Usage, SqliteError> {
    let mut usage = Usage {
        bytes: 0,
        keys: 0,
        expired_bytes: 0,
        expired_keys: 0,
        quotas,
        per_namespace: Vec::with_capacity(rows.len()),
    };
    for row in rows {
        let (keys, bytes) = (USAGE.count(row, "keys")?, USAGE.count(row, "bytes")?);
        match USAGE.get::<Option<&str>>(row, "namespace")? {
            None => (usage.expired_keys, usage.expired_bytes) = (keys, bytes),
            Some("") => (usage.keys, usage.bytes) = (keys, bytes),
            Some(name) => {
                let namespace =
                    Namespace::parse(name).map_err(|_| USAGE.inconsistency("namespace"))?;
                usage.per_namespace.push(NamespaceUsage {
                    namespace,
                    keys,
                    bytes,
                });
            }
        }
    }
    Ok(usage)
}

/// A count as SQLite holds it. The contract's counts are far below 2^63.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A number of rows.
pub(super) fn length(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Keys as one parameter, for `json_each`.
pub(super) fn json_array<'k>(keys: impl IntoIterator<Item = &'k Key>) -> String {
    json(keys.into_iter().map(Key::as_str))
}

/// Any rows as one parameter, for `json_each`.
pub(super) fn json(rows: impl Iterator<Item = impl Serialize>) -> String {
    let rows: Vec<_> = rows.collect();
    serde_json::to_string(&rows).expect("strings, numbers and lists of them are always JSON")
}

/// Bytes as `unhex` reads them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

fn key(row: &SqliteRow) -> Result<Key, SqliteError> {
    RECORDS.get(row, "key").map(Key::from_stored)
}

fn revision(row: &SqliteRow) -> Result<Revision, SqliteError> {
    let number = RECORDS.count(row, "revision")?;
    Revision::parse(number).map_err(|_| RECORDS.inconsistency("revision"))
}

fn expires_at(row: &SqliteRow) -> Result<Option<Timestamp>, SqliteError> {
    RECORDS.optional_time(row, "expires_at")
}

/// The columns of a table, by its name.
struct Columns(&'static str);

impl Columns {
    fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
        &self,
        row: &'r SqliteRow,
        column: &'static str,
    ) -> Result<T, SqliteError> {
        row.try_get(column).map_err(|_| self.inconsistency(column))
    }

    fn count(&self, row: &SqliteRow, column: &'static str) -> Result<u64, SqliteError> {
        u64::try_from(self.get::<i64>(row, column)?).map_err(|_| self.inconsistency(column))
    }

    fn id(&self, row: &SqliteRow, column: &'static str) -> Result<Uuid, SqliteError> {
        Uuid::from_slice(self.get(row, column)?).map_err(|_| self.inconsistency(column))
    }

    fn optional_time(
        &self,
        row: &SqliteRow,
        column: &'static str,
    ) -> Result<Option<Timestamp>, SqliteError> {
        let millis: Option<i64> = self.get(row, column)?;
        Ok(millis.map(Timestamp::from_millis))
    }

    fn time(&self, row: &SqliteRow, column: &'static str) -> Result<Timestamp, SqliteError> {
        self.get(row, column).map(Timestamp::from_millis)
    }

    fn inconsistency(&self, column: &'static str) -> SqliteError {
        SqliteError::Inconsistency {
            table: self.0,
            column,
        }
    }
}
