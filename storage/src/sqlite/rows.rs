//! From rows to types. Whatever a row holds that this crate would not have written is an
//! inconsistency, with the table and column it was found in.

use alga_model::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use super::error::SqliteError;
use crate::contract::{
    JsonText, Key, Listed, Namespace, NamespaceUsage, Quotas, Record, Revision, Usage,
};

const RECORDS: Columns = Columns("ext_storage_records");
const USAGE: Columns = Columns("ext_storage_usage");

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

/// A row of counters.
pub(super) struct UsageRow {
    /// False for the totals of a tenant.
    pub(super) of_install: bool,
    /// Empty for totals.
    pub(super) namespace: String,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) namespaces: u64,
    pub(super) revision_floor: u64,
    pub(super) change_seq: u64,
}

pub(super) fn usage(row: &SqliteRow) -> Result<UsageRow, SqliteError> {
    Ok(UsageRow {
        of_install: !USAGE.get::<&[u8]>(row, "install_id")?.is_empty(),
        namespace: USAGE.get(row, "namespace")?,
        keys: USAGE.count(row, "keys")?,
        bytes: USAGE.count(row, "bytes")?,
        namespaces: USAGE.count(row, "namespaces")?,
        revision_floor: USAGE.count(row, "revision_floor")?,
        change_seq: USAGE.count(row, "change_seq")?,
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

/// Keys as one parameter, for `json_each`.
pub(super) fn json_array<'k>(keys: impl IntoIterator<Item = &'k Key>) -> String {
    let keys: Vec<&str> = keys.into_iter().map(Key::as_str).collect();
    serde_json::to_string(&keys).expect("strings are always JSON")
}

fn key(row: &SqliteRow) -> Result<Key, SqliteError> {
    RECORDS.get(row, "key").map(Key::from_stored)
}

fn revision(row: &SqliteRow) -> Result<Revision, SqliteError> {
    let number = RECORDS.count(row, "revision")?;
    Revision::parse(number).map_err(|_| RECORDS.inconsistency("revision"))
}

fn expires_at(row: &SqliteRow) -> Result<Option<Timestamp>, SqliteError> {
    Ok(RECORDS
        .get::<Option<i64>>(row, "expires_at")?
        .map(Timestamp::from_millis))
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
