//! From rows to types. Whatever a row holds that this crate would not have written is an
//! inconsistency, with the table and column it was found in.

use alga_model::{InstallId, TenantId, Timestamp};
use alga_postgres::Time;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};
use uuid::Uuid;

use super::error::PostgresError;
use crate::contract::{JsonText, Key, Listed, Namespace, Record, Revision};
use crate::maintenance::{AuditRecord, Holding};

pub(super) const RECORDS: Columns = Columns("ext_storage_records");
pub(super) const USAGE: Columns = Columns("ext_storage_usage");
pub(super) const AUDIT: Columns = Columns("ext_storage_audit");
pub(super) const ANSWERS: Columns = Columns("ext_storage_idempotency");

/// The columns of a table, by its name.
pub(super) struct Columns(pub(super) &'static str);

pub(super) fn record(row: &PgRow) -> Result<Record, PostgresError> {
    Ok(Record {
        key: RECORDS.key(row, "key")?,
        value: RECORDS.json_text(row, "value")?,
        metadata: RECORDS.json_text(row, "metadata")?,
        revision: RECORDS.revision(row, "revision")?,
        expires_at: RECORDS.optional_time(row, "expires_at")?,
        created_at: RECORDS.time(row, "created_at")?,
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

pub(super) fn listed(row: &PgRow) -> Result<Listed, PostgresError> {
    let json = |column| {
        let text: Option<String> = RECORDS.get(row, column)?;
        Ok::<_, PostgresError>(text.map(JsonText::from_stored))
    };
    Ok(Listed {
        key: RECORDS.key(row, "key")?,
        revision: RECORDS.revision(row, "revision")?,
        value: json("value")?,
        metadata: json("metadata")?,
        expires_at: RECORDS.optional_time(row, "expires_at")?,
        created_at: RECORDS.time(row, "created_at")?,
        updated_at: RECORDS.time(row, "updated_at")?,
    })
}

pub(super) fn holding(row: &PgRow) -> Result<Holding, PostgresError> {
    Ok(Holding {
        install: InstallId::new(USAGE.get(row, "install_id")?),
        bytes: USAGE.count(row, "bytes")?,
        keys_of_fullest: USAGE.count(row, "keys")?,
        namespaces: USAGE.count(row, "namespaces")?,
    })
}

/// The records of one row: one for each record that was changed, or one for all that expired.
pub(super) fn audit_records(row: &PgRow) -> Result<Vec<AuditRecord>, PostgresError> {
    type Change = (String, Option<u64>, Option<u64>, u64, Option<u32>);
    let summary = AuditRecord {
        id: AUDIT.get(row, "audit_id")?,
        item: 0,
        time: AUDIT.time(row, "at")?,
        tenant_id: TenantId::new(AUDIT.get(row, "tenant_id")?),
        install_id: InstallId::new(AUDIT.get(row, "install_id")?),
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
    let Some(changes) = AUDIT.get::<Option<String>>(row, "changes")? else {
        return Ok(vec![summary]);
    };
    let changes: Vec<Change> = AUDIT.parsed(&changes, "changes")?;
    let of_change = |(item, (key, before, after, bytes, schema_version))| AuditRecord {
        item,
        key: Some(key),
        revision_before: before,
        revision_after: after,
        schema_version,
        records: 1,
        bytes,
        ..summary.clone()
    };
    Ok((0..).zip(changes).map(of_change).collect())
}

impl Columns {
    pub(super) fn get<'r, T>(
        &self,
        row: &'r PgRow,
        column: &'static str,
    ) -> Result<T, PostgresError>
    where
        T: Decode<'r, Postgres> + Type<Postgres>,
    {
        row.try_get(column).map_err(|_| self.inconsistency(column))
    }

    pub(super) fn id(&self, row: &PgRow, column: &'static str) -> Result<Uuid, PostgresError> {
        self.get(row, column)
    }

    pub(super) fn count(&self, row: &PgRow, column: &'static str) -> Result<u64, PostgresError> {
        let count: i64 = self.get(row, column)?;
        count.try_into().map_err(|_| self.inconsistency(column))
    }

    pub(super) fn time(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<Timestamp, PostgresError> {
        self.get::<Time>(row, column).map(|time| time.0)
    }

    pub(super) fn optional_time(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<Option<Timestamp>, PostgresError> {
        let time: Option<Time> = self.get(row, column)?;
        Ok(time.map(|time| time.0))
    }

    pub(super) fn revision(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<Revision, PostgresError> {
        let revision = self.optional_revision(row, column)?;
        revision.ok_or_else(|| self.inconsistency(column))
    }

    pub(super) fn optional_revision(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<Option<Revision>, PostgresError> {
        let number: Option<i64> = self.get(row, column)?;
        let parsed = |number: i64| {
            let number = u64::try_from(number).ok();
            let revision = number.and_then(|number| Revision::parse(number).ok());
            revision.ok_or_else(|| self.inconsistency(column))
        };
        number.map(parsed).transpose()
    }

    pub(super) fn key(&self, row: &PgRow, column: &'static str) -> Result<Key, PostgresError> {
        let key: &str = self.get(row, column)?;
        Ok(Key::from_stored(key.into()))
    }

    pub(super) fn namespace(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<Namespace, PostgresError> {
        let name: String = self.get(row, column)?;
        Namespace::parse(name).map_err(|_| self.inconsistency(column))
    }

    pub(super) fn json_text(
        &self,
        row: &PgRow,
        column: &'static str,
    ) -> Result<JsonText, PostgresError> {
        self.get(row, column).map(JsonText::from_stored)
    }

    pub(super) fn parsed<T: DeserializeOwned>(
        &self,
        text: &str,
        column: &'static str,
    ) -> Result<T, PostgresError> {
        serde_json::from_str(text).map_err(|_| self.inconsistency(column))
    }

    pub(super) const fn inconsistency(&self, column: &'static str) -> PostgresError {
        PostgresError::Inconsistency {
            table: self.0,
            column,
        }
    }
}
