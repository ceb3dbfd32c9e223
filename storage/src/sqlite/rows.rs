//! From rows to types. Whatever a row holds that this crate would not have written is an
//! inconsistency, with the table and column it was found in.

use std::borrow::Cow;

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::answers::Answer;
use super::counters::Counters;
use super::error::SqliteError;
use super::state::{Content, Stored};
use super::verify::Counts;
use crate::contract::{JsonText, Key, Listed, Namespace, NamespaceUsage, Record, Revision, Usage};
use crate::distribution::TenantShare;
use crate::maintenance::{AuditRecord, Holding};

const RECORDS: Columns = Columns("ext_storage_records");
const USAGE: Columns = Columns("ext_storage_usage");
const AUDIT: Columns = Columns("ext_storage_audit");
const ANSWERS: Columns = Columns("ext_storage_idempotency");

pub(super) fn record(row: &Row<'_>) -> Result<Record, SqliteError> {
    Ok(Record {
        key: Key::from_stored(RECORDS.get(row, "key")?),
        value: JsonText::from_stored(RECORDS.get(row, "value")?),
        metadata: JsonText::from_stored(RECORDS.get(row, "metadata")?),
        revision: to_revision(RECORDS.get(row, "revision")?)?,
        expires_at: RECORDS.optional_time(row, "expires_at")?,
        created_at: RECORDS.time(row, "created_at")?,
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

/// A row of a listing. By position: looking a column up by its name is a good part of the cost of
/// a row, and a page has up to a thousand.
pub(super) fn listed(row: &Row<'_>) -> Result<Listed, SqliteError> {
    let time = Timestamp::from_millis;
    Ok(Listed {
        key: Key::from_stored(RECORDS.at(row, 0, "key")?),
        revision: to_revision(RECORDS.at(row, 1, "revision")?)?,
        expires_at: RECORDS.at::<Option<i64>>(row, 2, "expires_at")?.map(time),
        created_at: time(RECORDS.at(row, 3, "created_at")?),
        updated_at: time(RECORDS.at(row, 4, "updated_at")?),
        value: RECORDS
            .at::<Option<String>>(row, 5, "value")?
            .map(JsonText::from_stored),
        metadata: RECORDS
            .at::<Option<String>>(row, 6, "metadata")?
            .map(JsonText::from_stored),
    })
}

/// Counters, by position.
pub(super) fn counters(row: &Row<'_>) -> Result<Counters, SqliteError> {
    let next_expiry: Option<i64> = USAGE.at(row, 5, "next_expiry")?;
    Ok(Counters {
        keys: USAGE.at(row, 0, "keys")?,
        bytes: USAGE.at(row, 1, "bytes")?,
        namespaces: USAGE.at(row, 2, "namespaces")?,
        revision_floor: USAGE.at(row, 3, "revision_floor")?,
        change_seq: USAGE.at(row, 4, "change_seq")?,
        next_expiry: next_expiry.map(Timestamp::from_millis),
    })
}

/// A record as judging needs it, by position.
pub(super) fn stored(row: &Row<'_>) -> Result<Stored<'static>, SqliteError> {
    let time = Timestamp::from_millis;
    Ok(Stored {
        revision: to_revision(RECORDS.at(row, 0, "revision")?)?,
        bytes: RECORDS.at(row, 1, "bytes")?,
        expires_at: RECORDS.at::<Option<i64>>(row, 2, "expires_at")?.map(time),
        created_at: time(RECORDS.at(row, 3, "created_at")?),
        content: None,
    })
}

/// The key of a record, behind what judging needs of it.
pub(super) fn key<'r>(row: &'r Row<'_>) -> Result<&'r str, SqliteError> {
    let key = row.get_ref(4).ok().and_then(|key| key.as_str().ok());
    key.ok_or_else(|| RECORDS.inconsistency("key"))
}

/// What a record says.
pub(super) fn content(row: &Row<'_>) -> Result<Content<'static>, SqliteError> {
    Ok(Content {
        value: Cow::Owned(JsonText::from_stored(RECORDS.get(row, "value")?)),
        metadata: Cow::Owned(JsonText::from_stored(RECORDS.get(row, "metadata")?)),
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

/// Revision and size of a record that was removed.
pub(super) fn removed(row: &Row<'_>) -> Result<(u64, u64), SqliteError> {
    Ok((RECORDS.get(row, "revision")?, RECORDS.get(row, "bytes")?))
}

/// Keys that are left in a namespace, and when the next of them expires.
pub(super) fn keys_left(row: &Row<'_>) -> Result<(u64, Option<Timestamp>), SqliteError> {
    Ok((
        USAGE.get(row, "keys")?,
        USAGE.optional_time(row, "next_expiry")?,
    ))
}

pub(super) fn tenant_id(row: &Row<'_>) -> Result<TenantId, SqliteError> {
    USAGE.id(row, "tenant_id").map(TenantId::new)
}

pub(super) fn tenant_share(row: &Row<'_>) -> Result<TenantShare, SqliteError> {
    Ok(TenantShare {
        tenant_id: tenant_id(row)?,
        records: USAGE.get(row, "keys")?,
        bytes: USAGE.get(row, "bytes")?,
        shard: None,
    })
}

/// The install and the namespace of a row of counters.
pub(super) fn place(row: &Row<'_>) -> Result<(InstallId, Namespace), SqliteError> {
    let namespace = Namespace::parse(USAGE.get::<String>(row, "namespace")?)
        .map_err(|_| USAGE.inconsistency("namespace"))?;
    Ok((InstallId::new(USAGE.id(row, "install_id")?), namespace))
}

/// Whose counts they are, and the counts as they are, right or wrong.
pub(super) fn counts(row: &Row<'_>) -> Result<((Option<InstallId>, String), Counts), SqliteError> {
    let install = match USAGE.get::<Vec<u8>>(row, "install_id")?.as_slice() {
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

pub(super) fn holding(row: &Row<'_>) -> Result<Holding, SqliteError> {
    Ok(Holding {
        install: InstallId::new(USAGE.id(row, "install_id")?),
        bytes: USAGE.get(row, "bytes")?,
        keys_of_fullest: USAGE.get(row, "keys")?,
        namespaces: USAGE.get(row, "namespaces")?,
    })
}

/// The records of one row: one for each record that was changed, or one for all that expired.
pub(super) fn audit_records(row: &Row<'_>) -> Result<Vec<AuditRecord>, SqliteError> {
    type Change = (String, Option<u64>, Option<u64>, u64, Option<u32>);
    type ChangeOfRequest = (
        String,
        Option<u64>,
        Option<u64>,
        u64,
        Option<u32>,
        String,
        String,
        String,
    );
    let summary = AuditRecord {
        id: AUDIT.id(row, "audit_id")?,
        item: 0,
        time: AUDIT.time(row, "at")?,
        tenant_id: TenantId::new(AUDIT.id(row, "tenant_id")?),
        install_id: InstallId::new(AUDIT.id(row, "install_id")?),
        extension: AUDIT.get(row, "extension")?,
        namespace: AUDIT.get(row, "namespace")?,
        key: None,
        operation: AUDIT
            .get::<Option<_>>(row, "operation")?
            .unwrap_or_default(),
        revision_before: None,
        revision_after: None,
        schema_version: None,
        records: AUDIT.get(row, "records")?,
        bytes: AUDIT.get(row, "bytes")?,
        actor: AUDIT.get::<Option<_>>(row, "actor")?.unwrap_or_default(),
        request_id: AUDIT.get(row, "request_id")?,
    };
    let of_change = |item, (key, before, after, bytes, schema_version): Change| AuditRecord {
        item,
        key: Some(key),
        revision_before: before,
        revision_after: after,
        schema_version,
        records: 1,
        bytes,
        ..summary.clone()
    };
    if AUDIT.get::<Option<String>>(row, "changes")?.is_none() {
        return Ok(vec![summary]);
    }
    if !summary.operation.is_empty() {
        let changes: Vec<Change> = AUDIT.json(row, "changes")?;
        let records = (0..).zip(changes);
        return Ok(records
            .map(|(item, change)| of_change(item, change))
            .collect());
    }
    let changes: Vec<ChangeOfRequest> = AUDIT.json(row, "changes")?;
    let records = (0..).zip(changes).map(|(item, change)| {
        let (key, before, after, bytes, schema_version, operation, actor, request_id) = change;
        AuditRecord {
            operation,
            actor,
            request_id: Some(request_id),
            ..of_change(item, (key, before, after, bytes, schema_version))
        }
    });
    Ok(records.collect())
}

pub(super) fn answer(row: &Row<'_>) -> Result<Answer, SqliteError> {
    Ok(Answer::stored(
        ANSWERS.get(row, "digest")?,
        ANSWERS.json(row, "result")?,
    ))
}

/// Namespaces by name, the install's totals under the empty name, the expired without one.
pub(super) fn add_usage(usage: &mut Usage, row: &Row<'_>) -> Result<(), SqliteError> {
    let (keys, bytes) = (USAGE.get(row, "keys")?, USAGE.get(row, "bytes")?);
    match USAGE.get::<Option<String>>(row, "namespace")?.as_deref() {
        None => (usage.expired_keys, usage.expired_bytes) = (keys, bytes),
        Some("") => (usage.keys, usage.bytes) = (keys, bytes),
        Some(name) => {
            let namespace = Namespace::parse(name).map_err(|_| USAGE.inconsistency("namespace"))?;
            usage.per_namespace.push(NamespaceUsage {
                namespace,
                keys,
                bytes,
            });
        }
    }
    Ok(())
}

/// A number of rows.
pub(super) fn length(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Any rows as JSON.
pub(super) fn json(rows: impl Iterator<Item = impl Serialize>) -> String {
    let rows: Vec<_> = rows.collect();
    serde_json::to_string(&rows).expect("strings, numbers and lists of them are always JSON")
}

fn to_revision(number: u64) -> Result<Revision, SqliteError> {
    Revision::parse(number).map_err(|_| RECORDS.inconsistency("revision"))
}

/// The columns of a table, by its name.
struct Columns(&'static str);

impl Columns {
    fn get<T: FromSql>(&self, row: &Row<'_>, column: &'static str) -> Result<T, SqliteError> {
        row.get(column).map_err(|_| self.inconsistency(column))
    }

    fn at<T: FromSql>(
        &self,
        row: &Row<'_>,
        index: usize,
        column: &'static str,
    ) -> Result<T, SqliteError> {
        row.get(index).map_err(|_| self.inconsistency(column))
    }

    fn json<T: DeserializeOwned>(
        &self,
        row: &Row<'_>,
        column: &'static str,
    ) -> Result<T, SqliteError> {
        let text = row
            .get_ref(column)
            .ok()
            .and_then(|value| value.as_str().ok());
        text.and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| self.inconsistency(column))
    }

    fn id(&self, row: &Row<'_>, column: &'static str) -> Result<Uuid, SqliteError> {
        self.get(row, column).map(Uuid::from_bytes)
    }

    fn optional_time(
        &self,
        row: &Row<'_>,
        column: &'static str,
    ) -> Result<Option<Timestamp>, SqliteError> {
        let millis: Option<i64> = self.get(row, column)?;
        Ok(millis.map(Timestamp::from_millis))
    }

    fn time(&self, row: &Row<'_>, column: &'static str) -> Result<Timestamp, SqliteError> {
        self.get(row, column).map(Timestamp::from_millis)
    }

    fn inconsistency(&self, column: &'static str) -> SqliteError {
        SqliteError::Inconsistency {
            table: self.0,
            column,
        }
    }
}
