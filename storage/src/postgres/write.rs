//! The two functions that write. One call is one transaction and, but near a quota, all it takes.

use alga_model::Timestamp;
use alga_postgres::{Sent, Statements, Time};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::error::PostgresError;
use super::rows::RECORDS;
use crate::contract::{
    DeleteRequest, Guard, JsonText, Key, Namespace, OperationId, QuotaName, Quotas, Record,
    Revision, Written,
};
use crate::error::{BulkError, Error, FailedItem, Quota};
use crate::maintenance::Removed;
use crate::service::{CheckedItem, Put, Scope};
use crate::told::{self, Alert, Change};

/// What came of a call.
#[derive(Debug)]
pub(super) enum Called<T> {
    /// It is done, or refused.
    Decided(T),
    /// Call again, taking locks in order from the start: it needs more than its namespace had reserved,
    /// or has only removed what is expired so far.
    Again,
}

/// What a function tells now and then.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    /// The record that was replaced, or that a guard found, where it was asked for.
    seen: Option<Seen>,
    /// Keys of the namespace, and, where the write had to ask for room, namespaces and bytes of the
    /// install and bytes of the tenant: each before and after.
    counted: Option<Vec<u64>>,
    /// Records and bytes that were removed on the way.
    removed: Option<(u64, u64)>,
    quota: Option<String>,
    limit: u64,
    used: u64,
    attempted: u64,
}

/// A record; times are milliseconds since 1970.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    revision: u64,
    value: Box<RawValue>,
    metadata: Box<RawValue>,
    expires_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

/// Writes all items or none.
pub(super) async fn put(
    connection: &mut PgConnection,
    statements: Statements,
    (scope, put): (&Scope, &Put),
    ordered: bool,
    now: Option<Time>,
) -> Result<Called<Result<Vec<Written>, BulkError>>, PostgresError> {
    // Nothing but the function may be in a statement that Citus passes on to where the tenant is; a
    // written record was there before if it was made earlier.
    const PUT_ONE: &str = "
        SELECT code, item, revision, expires_at, created_at, updated_at, created_at < updated_at AS replaced,
               detail::text AS detail
        FROM ext_storage_put_one_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                                   $19, p_ordered => $20, p_now => $21, p_operation => $22, p_digest => $23)";
    const PUT: &str = "
        SELECT code, item, revision, expires_at, created_at, updated_at, created_at < updated_at AS replaced,
               detail::text AS detail
        FROM ext_storage_put_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                               $19, p_ordered => $20, p_now => $21, p_operation => $22, p_digest => $23)";
    let quotas = &scope.limits.quotas;
    let rows = if let [item] = put.items.as_slice() {
        let statement = in_place(statements.of(PUT_ONE), scope, &put.namespace);
        statement
            .bind(item.key.as_str())
            .bind(item.value.as_str())
            .bind(item.metadata.as_str())
            .bind(signed(item.size()))
            .bind(ttl(item))
            .bind(guard(item.guard))
            .bind(schema_version(item))
    } else {
        let items = &put.items;
        let statement = in_place(statements.of(PUT), scope, &put.namespace);
        statement
            .bind(column(items, |item| item.key.as_str()))
            .bind(column(items, |item| item.value.as_str()))
            .bind(column(items, |item| item.metadata.as_str()))
            .bind(column(items, |item| signed(item.size())))
            .bind(column(items, ttl))
            .bind(column(items, |item| guard(item.guard)))
            .bind(column(items, schema_version))
    }
    .bind(signed(quotas.namespaces))
    .bind(signed(quotas.keys_per_namespace))
    .bind(signed(quotas.bytes_per_install))
    .bind(signed(quotas.bytes_per_tenant))
    .bind(put.return_previous)
    .bind(put.return_current)
    .bind(scope.extension.as_str())
    .bind(scope.actor.to_string())
    .bind(&*scope.request_id)
    .bind(ordered)
    .bind(now)
    .bind(operation_id(scope))
    .bind(scope.operation_id.map(|_| put.digest()))
    .fetch_all(connection)
    .await?;
    let first = rows.first().ok_or_else(|| nonsense("nothing"))?;
    let detail = Detail::of(first)?;
    detail.tell_removed();
    let error = match RECORDS.get::<&str>(first, "code")? {
        "written" => return Ok(Called::Decided(Ok(written(scope, put, &rows)?))),
        "taken" => OperationId::taken(),
        "repeated" => return Ok(Called::Decided(Ok(answers(put, &rows)?))),
        "again" => return Ok(Called::Again),
        "conflict" => {
            let current = detail.seen.map(|seen| seen.record(failed_key(put, first)?));
            let revision = RECORDS.optional_revision(first, "revision")?;
            Error::conflict(revision, current.transpose()?)
        }
        "quota" => Error::QuotaExceeded(detail.quota()?),
        code => return Err(nonsense(code)),
    };
    let item = FailedItem {
        index: failed_index(first)?,
        key: failed_key(put, first)?.as_str().to_owned(),
    };
    let item = Some(item);
    Ok(Called::Decided(Err(BulkError { item, error })))
}

/// Removes a record; true where a live one was there.
pub(super) async fn delete(
    connection: &mut PgConnection,
    statements: Statements,
    (scope, request): (&Scope, &DeleteRequest),
    now: Option<Time>,
) -> Result<Result<bool, Error>, PostgresError> {
    const DELETE: &str = "
        SELECT code, revision, bytes, deleted_at, removed_records, removed_bytes
        FROM ext_storage_delete_1($1, $2, $3, $4, $5, $6, $7, $8, p_now => $9, p_operation => $10, p_digest => $11)";
    let row = statements
        .of(DELETE)
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(request.namespace.as_str())
        .bind(request.key.as_str())
        .bind(guard(request.guard))
        .bind(scope.extension.as_str())
        .bind(scope.actor.to_string())
        .bind(&*scope.request_id)
        .bind(now)
        .bind(operation_id(scope))
        .bind(scope.operation_id.map(|_| request.digest()))
        .fetch_one(connection)
        .await?;
    let removed = Removed {
        records: RECORDS.count(&row, "removed_records")?,
        bytes: RECORDS.count(&row, "removed_bytes")?,
        more: false,
    };
    told::removed("write", removed);
    match RECORDS.get::<&str>(&row, "code")? {
        "deleted" => {
            // Not where it was deleted by an earlier call of the same operation, which told of it.
            if let Some(at) = RECORDS.optional_time(&row, "deleted_at")? {
                let change = Change {
                    key: request.key.clone(),
                    before: RECORDS.optional_revision(&row, "revision")?,
                    after: None,
                    bytes: RECORDS.count(&row, "bytes")?,
                };
                change.tell(scope, &request.namespace, "delete", at);
            }
            Ok(Ok(true))
        }
        "absent" => Ok(Ok(false)),
        "taken" => Ok(Err(OperationId::taken())),
        "conflict" => {
            let revision = RECORDS.optional_revision(&row, "revision")?;
            Ok(Err(Error::conflict(revision, None)))
        }
        code => Err(nonsense(code)),
    }
}

/// What was written, which is told.
fn written(scope: &Scope, put: &Put, rows: &[PgRow]) -> Result<Vec<Written>, PostgresError> {
    let answers = answers(put, rows)?;
    for ((item, row), written) in put.items.iter().zip(rows).zip(&answers) {
        let detail = Detail::of(row)?;
        let revision = written.revision;
        let replaced: bool = RECORDS.get(row, "replaced")?;
        let before = replaced.then(|| Revision::parse(revision.get() - 1).ok());
        let change = Change {
            key: item.key.clone(),
            before: before.flatten(),
            after: Some(revision),
            bytes: item.size(),
        };
        change.tell(scope, &put.namespace, "put", written.updated_at);
        for alert in alerts(&scope.limits.quotas, &detail.counted.unwrap_or_default()) {
            alert.tell(scope);
        }
    }
    Ok(answers)
}

/// A row an item.
fn answers(put: &Put, rows: &[PgRow]) -> Result<Vec<Written>, PostgresError> {
    if rows.len() != put.items.len() {
        return Err(nonsense("for more or fewer items"));
    }
    let rows = put.items.iter().zip(rows);
    let answers = rows.map(|(item, row)| {
        let seen = Detail::of(row)?.seen;
        Ok(Written {
            key: item.key.clone(),
            revision: RECORDS.revision(row, "revision")?,
            expires_at: RECORDS.optional_time(row, "expires_at")?,
            created_at: RECORDS.time(row, "created_at")?,
            updated_at: RECORDS.time(row, "updated_at")?,
            previous: seen.map(|seen| seen.record(&item.key)).transpose()?,
        })
    });
    answers.collect()
}

/// What a write brought near to its quotas.
fn alerts(quotas: &Quotas, counted: &[u64]) -> Vec<Alert> {
    const ORDER: [QuotaName; 4] = [
        QuotaName::KeysPerNamespace,
        QuotaName::Namespaces,
        QuotaName::BytesPerInstall,
        QuotaName::BytesPerTenant,
    ];
    let (pairs, _) = counted.as_chunks();
    let alert = |(name, [used, attempted]): (QuotaName, &[u64; 2])| {
        let quota = Quota {
            name,
            limit: quotas.limit(name),
            used: *used,
            attempted: *attempted,
        };
        quota.alert(quotas.alert_percent)
    };
    ORDER.into_iter().zip(pairs).filter_map(alert).collect()
}

impl Detail {
    fn of(row: &PgRow) -> Result<Self, PostgresError> {
        let detail: Option<&str> = RECORDS.get(row, "detail")?;
        detail.map_or(Ok(Self::default()), |detail| {
            RECORDS.parsed(detail, "detail")
        })
    }

    fn tell_removed(&self) {
        let (records, bytes) = self.removed.unwrap_or_default();
        let removed = Removed {
            records,
            bytes,
            more: false,
        };
        told::removed("write", removed);
    }

    fn quota(self) -> Result<Quota, PostgresError> {
        let name = self.quota.unwrap_or_default();
        let known = QuotaName::ALL
            .into_iter()
            .find(|known| known.as_str() == name);
        Ok(Quota {
            name: known.ok_or(PostgresError::Nonsense(name))?,
            limit: self.limit,
            used: self.used,
            attempted: self.attempted,
        })
    }
}

impl Seen {
    fn record(self, key: &Key) -> Result<Record, PostgresError> {
        let json = |text: Box<RawValue>| JsonText::from_stored(Box::<str>::from(text).into());
        let revision = Revision::parse(self.revision);
        Ok(Record {
            key: key.clone(),
            value: json(self.value),
            metadata: json(self.metadata),
            revision: revision.map_err(|_| RECORDS.inconsistency("revision"))?,
            expires_at: self.expires_at.map(Timestamp::from_millis),
            created_at: Timestamp::from_millis(self.created_at),
            updated_at: Timestamp::from_millis(self.updated_at),
        })
    }
}

fn failed_key<'p>(put: &'p Put, row: &PgRow) -> Result<&'p Key, PostgresError> {
    let item = put.items.get(failed_index(row)?);
    item.map(|item| &item.key)
        .ok_or_else(|| nonsense("an item that is not there"))
}

fn failed_index(row: &PgRow) -> Result<usize, PostgresError> {
    let index: i32 = RECORDS.get(row, "item")?;
    usize::try_from(index).map_err(|_| nonsense("an item that is not there"))
}

fn nonsense(answer: &str) -> PostgresError {
    PostgresError::Nonsense(answer.to_owned())
}

/// Binds whose namespace it is.
fn in_place<'q>(statement: Sent<'q>, scope: &'q Scope, namespace: &'q Namespace) -> Sent<'q> {
    statement
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(namespace.as_str())
}

fn column<'p, T>(items: &'p [CheckedItem], of: impl Fn(&'p CheckedItem) -> T) -> Vec<T> {
    items.iter().map(of).collect()
}

fn operation_id(scope: &Scope) -> Option<&Uuid> {
    scope.operation_id.as_ref().map(OperationId::as_uuid)
}

fn ttl(item: &CheckedItem) -> Option<i64> {
    item.ttl.map(|ttl| signed(ttl.as_millis()))
}

fn schema_version(item: &CheckedItem) -> Option<i32> {
    let version = item.schema_version?;
    Some(version.try_into().unwrap_or(i32::MAX))
}

/// As a column; no limit is so large that it would not fit.
fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A guard as the functions know it.
fn guard(guard: Guard) -> Option<i64> {
    match guard {
        Guard::Any => None,
        Guard::Absent => Some(0),
        Guard::Exists => Some(-1),
        Guard::Exactly(revision) => Some(signed(revision.get())),
    }
}
