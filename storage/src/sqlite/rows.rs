//! From rows to types. Whatever a row holds that this crate would not have written is an
//! inconsistency, with the table and column it was found in.

use alga_model::{InstallId, TenantId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// A row of a listing. By position: looking a column up by its name is a good part of the cost of
/// a row, and a page has up to a thousand.
pub(super) fn listed(row: &SqliteRow) -> Result<Listed, SqliteError> {
    fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
        row: &'r SqliteRow,
        index: usize,
        column: &'static str,
    ) -> Result<T, SqliteError> {
        row.try_get(index)
            .map_err(|_| RECORDS.inconsistency(column))
    }
    let time = Timestamp::from_millis;
    let revision = u64::try_from(get::<i64>(row, 1, "revision")?)
        .ok()
        .and_then(|number| Revision::parse(number).ok())
        .ok_or_else(|| RECORDS.inconsistency("revision"))?;
    Ok(Listed {
        key: Key::from_stored(get(row, 0, "key")?),
        revision,
        expires_at: get::<Option<i64>>(row, 2, "expires_at")?.map(time),
        created_at: time(get(row, 3, "created_at")?),
        updated_at: time(get(row, 4, "updated_at")?),
        value: get::<Option<String>>(row, 5, "value")?.map(JsonText::from_stored),
        metadata: get::<Option<String>>(row, 6, "metadata")?.map(JsonText::from_stored),
    })
}

/// Counters by the number of what they count, read as one JSON text.
pub(super) fn loaded_counters(
    row: &SqliteRow,
) -> Result<impl Iterator<Item = (usize, Counters)>, SqliteError> {
    type Loaded = (usize, u64, u64, u64, u64, u64, Option<i64>);
    let loaded: Vec<Loaded> = USAGE.json(row, "counters")?;
    Ok(loaded.into_iter().map(
        |(number, keys, bytes, namespaces, revision_floor, change_seq, next_expiry)| {
            let counters = Counters {
                keys,
                bytes,
                namespaces,
                revision_floor,
                change_seq,
                next_expiry: next_expiry.map(Timestamp::from_millis),
            };
            (number, counters)
        },
    ))
}

/// Records by the number of their place, as judging needs them, read as one JSON text.
pub(super) fn loaded_records(row: &SqliteRow) -> Result<Vec<(usize, Key, Stored)>, SqliteError> {
    type Loaded = (usize, String, u64, u64, Option<i64>, i64);
    let loaded: Vec<Loaded> = RECORDS.json(row, "records")?;
    loaded
        .into_iter()
        .map(|(number, key, revision, bytes, expires_at, created_at)| {
            let stored = Stored {
                revision: Revision::parse(revision)
                    .map_err(|_| RECORDS.inconsistency("revision"))?,
                bytes,
                expires_at: expires_at.map(Timestamp::from_millis),
                created_at: Timestamp::from_millis(created_at),
                content: None,
            };
            Ok((number, Key::from_stored(key), stored))
        })
        .collect()
}

/// What a record says, by its key.
pub(super) fn content(row: &SqliteRow) -> Result<(Key, Content), SqliteError> {
    let content = Content {
        value: JsonText::from_stored(RECORDS.get(row, "value")?),
        metadata: JsonText::from_stored(RECORDS.get(row, "metadata")?),
        updated_at: RECORDS.time(row, "updated_at")?,
    };
    Ok((key(row)?, content))
}

/// Revision and size of a record that was removed.
pub(super) fn removed(row: &SqliteRow) -> Result<(u64, u64), SqliteError> {
    Ok((
        RECORDS.count(row, "revision")?,
        RECORDS.count(row, "bytes")?,
    ))
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

/// The records of one request: one for each record it changed, or one for all that expired.
pub(super) fn audit_records(row: &SqliteRow) -> Result<Vec<AuditRecord>, SqliteError> {
    type Change = (String, Option<u64>, Option<u64>, u64, Option<u32>);
    let summary = AuditRecord {
        id: AUDIT.id(row, "audit_id")?,
        item: 0,
        time: AUDIT.time(row, "at")?,
        tenant_id: TenantId::new(AUDIT.id(row, "tenant_id")?),
        install_id: InstallId::new(AUDIT.id(row, "install_id")?),
        extension: AUDIT.get(row, "extension")?,
        namespace: AUDIT.get(row, "namespace")?,
        key: None,
        operation: AUDIT.get(row, "operation")?,
        revision_before: None,
        revision_after: None,
        schema_version: None,
        records: AUDIT.count(row, "records")?,
        bytes: AUDIT.count(row, "bytes")?,
        actor: AUDIT.get(row, "actor")?,
        request_id: AUDIT.get(row, "request_id")?,
    };
    if AUDIT.get::<Option<&str>>(row, "changes")?.is_none() {
        return Ok(vec![summary]);
    }
    let changes: Vec<Change> = AUDIT.json(row, "changes")?;
    Ok(changes
        .into_iter()
        .zip(0..)
        .map(
            |((key, before, after, bytes, schema_version), item)| AuditRecord {
                item,
                key: Some(key),
                revision_before: before,
                revision_after: after,
                schema_version,
                records: 1,
                bytes,
                ..summary.clone()
            },
        )
        .collect())
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

/// A count, of which nobody asks for more than fit.
pub(super) fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
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
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
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

    fn json<T: DeserializeOwned>(
        &self,
        row: &SqliteRow,
        column: &'static str,
    ) -> Result<T, SqliteError> {
        serde_json::from_str(self.get(row, column)?).map_err(|_| self.inconsistency(column))
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
