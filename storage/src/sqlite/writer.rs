//! The one task that writes.
//!
//! SQLite has one write lock, and making a commit durable costs more than everything else in it. So
//! writes queue here, and whatever has come while a transaction was under way goes into the next
//! one together: each is judged in its turn, and all of them are durable before the first is
//! answered.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use alga_model::{Clock, Timestamp};
use alga_sqlite::Database;
use futures_util::FutureExt as _;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::error::SqliteError;
use super::rows;
use super::state::{
    Change, InstallTotals, NamespaceCounters, NamespaceState, Place, State, TenantTotals,
};
use crate::contract::{DeleteRequest, Key, Record, Written};
use crate::error::{BulkError, Error};
use crate::service::{Put, Scope};

/// Writes of one transaction. Enough that the cost of a commit vanishes, few enough that the first
/// of them does not wait long for the last.
const GROUP: usize = 64;
/// Writes that may wait; more make their callers wait.
const QUEUE: usize = 1_024;

/// A handle to the writing task, which ends with its last handle.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Put(Scope, Put, oneshot::Sender<Result<Vec<Written>, BulkError>>),
    Delete(Scope, DeleteRequest, oneshot::Sender<Result<bool, Error>>),
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(write_groups(database, clock, jobs));
        Self { queue }
    }

    pub(super) async fn put(&self, scope: Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        self.run(|answer| Job::Put(scope, put, answer)).await
    }

    pub(super) async fn delete(&self, scope: Scope, request: DeleteRequest) -> Result<bool, Error> {
        self.run(|answer| Job::Delete(scope, request, answer)).await
    }

    async fn run<T, E: From<Error>>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job,
    ) -> Result<T, E> {
        let stopped = || Error::Unavailable("the writing task has stopped".into());
        let (answer, answered) = oneshot::channel();
        self.queue.send(job(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Job {
    fn place(&self) -> Place {
        match self {
            Self::Put(scope, put, _) => Place::of(scope, &put.namespace),
            Self::Delete(scope, request, _) => Place::of(scope, &request.namespace),
        }
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        let (items, key) = match self {
            Self::Put(_, put, _) => (put.items.as_slice(), None),
            Self::Delete(_, request, _) => (&[][..], Some(&request.key)),
        };
        items.iter().map(|item| &item.key).chain(key)
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Put(_, _, answer) => answer.is_closed(),
            Self::Delete(_, _, answer) => answer.is_closed(),
        }
    }

    fn refuse(self, error: Error) {
        // A caller that went away needs no answer.
        match self {
            Self::Put(_, _, answer) => drop(answer.send(Err(error.into()))),
            Self::Delete(_, _, answer) => drop(answer.send(Err(error))),
        }
    }
}

async fn write_groups(
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    mut jobs: mpsc::Receiver<Job>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.recv_many(&mut group, GROUP).await > 0 {
        // Nobody waits for these any more: while the database was stuck, the queue filled up with them.
        group.retain(|job| !job.is_abandoned());
        // A panic is a defect, and would be one for every write to come if it ended this task.
        let decided = AssertUnwindSafe(write_group(&database, &*clock, &group)).catch_unwind();
        match decided.await {
            Ok(Ok(outcomes)) => answer(group.drain(..).zip(outcomes)),
            Ok(Err(error)) => {
                let error = Arc::new(error);
                for job in group.drain(..) {
                    job.refuse(SqliteError::shared(&error));
                }
            }
            Err(_) => {
                for job in group.drain(..) {
                    job.refuse(Error::Internal("the writing task panicked".into()));
                }
            }
        }
    }
}

fn answer(decided: impl Iterator<Item = (Job, Outcome)>) {
    for decided in decided {
        match decided {
            (Job::Put(_, _, answer), Outcome::Put(outcome)) => drop(answer.send(outcome)),
            (Job::Delete(_, _, answer), Outcome::Delete(outcome)) => drop(answer.send(outcome)),
            (job, _) => job.refuse(Error::Internal(
                "a write was answered as another one".into(),
            )),
        }
    }
}

enum Outcome {
    Put(Result<Vec<Written>, BulkError>),
    Delete(Result<bool, Error>),
}

/// Decides a group in the order of its arrival and commits it; the answers may go out then.
async fn write_group(
    database: &Database,
    clock: &dyn Clock,
    group: &[Job],
) -> Result<Vec<Outcome>, SqliteError> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = database.begin().await?;
    let mut state = load(&mut transaction, group).await?;
    let now = clock.now();
    let mut audit = Vec::new();
    let mut outcomes = Vec::with_capacity(group.len());
    for job in group {
        outcomes.push(match job {
            Job::Put(scope, put, _) => {
                Outcome::Put(state.put(scope, put, now).map(|(written, changes)| {
                    audit.extend(
                        changes
                            .into_iter()
                            .map(|change| (scope, &put.namespace, change)),
                    );
                    written
                }))
            }
            Job::Delete(scope, request, _) => {
                Outcome::Delete(state.delete(scope, request, now).map(|change| {
                    let deleted = change.is_some();
                    audit.extend(change.map(|change| (scope, &request.namespace, change)));
                    deleted
                }))
            }
        });
    }
    if !audit.is_empty() {
        store(&mut transaction, &state).await?;
        for (scope, namespace, change) in &audit {
            store_audit(&mut transaction, scope, namespace.as_str(), change, now).await?;
        }
    }
    transaction.commit().await?;
    Ok(outcomes)
}

/// Reads every counter and record that the group concerns.
async fn load(
    transaction: &mut Transaction<'_, Sqlite>,
    group: &[Job],
) -> Result<State, SqliteError> {
    let mut concerned: HashMap<Place, HashSet<&Key>> = HashMap::new();
    for job in group {
        concerned.entry(job.place()).or_default().extend(job.keys());
    }
    let mut state = State::default();
    for (place, keys) in concerned {
        let counters = load_counters(transaction, &place, &mut state).await?;
        let records = load_records(transaction, &place, &keys).await?;
        state
            .namespaces
            .insert(place, NamespaceState::loaded(counters, records));
    }
    Ok(state)
}

async fn load_counters(
    connection: &mut SqliteConnection,
    place: &Place,
    state: &mut State,
) -> Result<NamespaceCounters, SqliteError> {
    const USAGE: &str = "
        SELECT install_id, namespace, keys, bytes, namespaces, revision_floor, change_seq
        FROM ext_storage_usage
        WHERE tenant_id = ?1
          AND (install_id, namespace) IN (VALUES (?2, ?3), (?2, ''), (x'', ''))";
    let usage = sqlx::query(USAGE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .fetch_all(connection)
        .await?;
    let mut namespace = NamespaceCounters::default();
    for row in usage {
        let row = rows::usage(&row)?;
        match (row.of_install, row.namespace.as_str()) {
            (false, _) => {
                state.tenants.insert(
                    place.tenant,
                    TenantTotals {
                        keys: row.keys,
                        bytes: row.bytes,
                    },
                );
            }
            (true, "") => {
                let totals = InstallTotals {
                    keys: row.keys,
                    bytes: row.bytes,
                    namespaces: row.namespaces,
                };
                state.installs.insert((place.tenant, place.install), totals);
            }
            (true, _) => {
                namespace = NamespaceCounters {
                    keys: row.keys,
                    bytes: row.bytes,
                    revision_floor: row.revision_floor,
                    change_seq: row.change_seq,
                };
            }
        }
    }
    Ok(namespace)
}

async fn load_records(
    connection: &mut SqliteConnection,
    place: &Place,
    keys: &HashSet<&Key>,
) -> Result<Vec<Record>, SqliteError> {
    const RECORDS: &str = "
        SELECT key, revision, value, metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key IN (SELECT value FROM json_each(?))";
    sqlx::query(RECORDS)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(rows::json_array(keys.iter().copied()))
        .fetch_all(connection)
        .await?
        .iter()
        .map(rows::record)
        .collect()
}

/// Stores every record and counter of `state` that changed.
async fn store(connection: &mut SqliteConnection, state: &State) -> Result<(), SqliteError> {
    let changed = state
        .namespaces
        .iter()
        .filter(|(_, namespace)| namespace.changed);
    let mut installs = HashSet::new();
    for (place, namespace) in changed {
        for (key, record) in namespace.changed_records() {
            match record {
                Some(record) => store_record(connection, place, record).await?,
                None => remove_record(connection, place, key).await?,
            }
        }
        store_usage(connection, place, namespace.counters).await?;
        installs.insert((place.tenant, place.install));
    }
    for (tenant, install) in &installs {
        let totals = state
            .installs
            .get(&(*tenant, *install))
            .copied()
            .unwrap_or_default();
        store_totals(connection, tenant.as_bytes(), install.as_bytes(), totals).await?;
    }
    let tenants: HashSet<_> = installs.iter().map(|(tenant, _)| *tenant).collect();
    for tenant in tenants {
        let TenantTotals { keys, bytes } = state.tenants.get(&tenant).copied().unwrap_or_default();
        let totals = InstallTotals {
            keys,
            bytes,
            namespaces: 0,
        };
        store_totals(connection, tenant.as_bytes(), &[], totals).await?;
    }
    Ok(())
}

async fn store_record(
    connection: &mut SqliteConnection,
    place: &Place,
    record: &Record,
) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            metadata = excluded.metadata, value = excluded.value";
    sqlx::query(UPSERT)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(record.key.as_str())
        .bind(rows::integer(record.revision.get()))
        .bind(rows::integer(record.size()))
        .bind(record.expires_at.map(Timestamp::as_millis))
        .bind(record.created_at.as_millis())
        .bind(record.updated_at.as_millis())
        .bind(record.metadata.as_str())
        .bind(record.value.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn remove_record(
    connection: &mut SqliteConnection,
    place: &Place,
    key: &Key,
) -> Result<(), SqliteError> {
    const DELETE: &str = "DELETE FROM ext_storage_records WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    sqlx::query(DELETE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(key.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn store_usage(
    connection: &mut SqliteConnection,
    place: &Place,
    counters: NamespaceCounters,
) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, revision_floor, change_seq)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes,
            revision_floor = excluded.revision_floor, change_seq = excluded.change_seq";
    sqlx::query(UPSERT)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(rows::integer(counters.keys))
        .bind(rows::integer(counters.bytes))
        .bind(rows::integer(counters.revision_floor))
        .bind(rows::integer(counters.change_seq))
        .execute(connection)
        .await?;
    Ok(())
}

async fn store_totals(
    connection: &mut SqliteConnection,
    tenant: &[u8],
    install: &[u8],
    totals: InstallTotals,
) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, namespaces)
        VALUES (?, ?, '', ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces";
    sqlx::query(UPSERT)
        .bind(tenant)
        .bind(install)
        .bind(rows::integer(totals.keys))
        .bind(rows::integer(totals.bytes))
        .bind(rows::integer(totals.namespaces))
        .execute(connection)
        .await?;
    Ok(())
}

async fn store_audit(
    connection: &mut SqliteConnection,
    scope: &Scope,
    namespace: &str,
    change: &Change,
    now: Timestamp,
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, key, operation,
             revision_before, revision_after, bytes, actor, request_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(INSERT)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(Uuid::now_v7().as_bytes().as_slice())
        .bind(now.as_millis())
        .bind(scope.install.as_bytes().as_slice())
        .bind(scope.extension.as_str())
        .bind(namespace)
        .bind(change.key.as_str())
        .bind(change.operation)
        .bind(change.before.map(|revision| rows::integer(revision.get())))
        .bind(change.after.map(|revision| rows::integer(revision.get())))
        .bind(rows::integer(change.bytes))
        .bind(scope.actor.to_string())
        .bind(scope.request_id.as_ref())
        .execute(connection)
        .await?;
    Ok(())
}
