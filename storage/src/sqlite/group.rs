//! One transaction for a group of writes.

use std::collections::HashSet;
use std::sync::Arc;

use alga_model::{Clock, Timestamp};
use alga_sqlite::Database;
use sqlx::{Connection as _, SqliteConnection};

use super::audit::{self, AuditEntry, AuditIds};
use super::error::SqliteError;
use super::expiry::{self, Batch};
use super::script::Script;
use super::state::{Alert, Counted, Judged, Place, State};
use super::writer::{Job, Write};
use super::{load, rows, store};
use crate::contract::{QuotaName, Written};
use crate::error::{BulkError, Error};
use crate::maintenance::Removed;
use crate::service::Scope;

/// What a group clears away on its way, of each of its tenants: expired records vanish where there
/// is traffic, and no request pays for a backlog.
const ON_THE_WAY: Batch = Batch {
    records: 64,
    namespaces: 4,
};
/// What is cleared away at once for a write that needs the room. Other writes go on in between.
const FOR_ROOM: Batch = Batch {
    records: 1_000,
    namespaces: 64,
};

/// Writes groups.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) database: Arc<Database>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) audit_ids: Arc<AuditIds>,
}

/// What came of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    Put(Result<Vec<Written>, BulkError>),
    Delete(Result<bool, Error>),
    /// This quota would refuse it, but some of what counts to the quota may be expired.
    NeedsRoom(QuotaName),
}

/// A group that is durable.
#[derive(Debug)]
pub(super) struct Committed<'g> {
    /// What came of its writes, in their order.
    pub(super) outcomes: Vec<Outcome>,
    told: Told<'g>,
    removed: Removed,
    now: Timestamp,
}

impl Committed<'_> {
    /// Says in log and metrics what happened.
    pub(super) fn tell(&self) {
        self.told.tell(self.now);
        self.removed.count("write");
    }
}

/// What expired records were removed before a group was judged.
#[derive(Debug, Default)]
struct Clearing {
    removed: Removed,
    /// Whether anything was looked at.
    looked: bool,
    /// Where nothing expired is left.
    exhausted: HashSet<Counted>,
}

/// What has to be told of a group once it is durable.
#[derive(Debug, Default)]
struct Told<'g> {
    entries: Vec<AuditEntry<'g>>,
    alerts: Vec<(&'g Scope, Alert)>,
}

impl Groups {
    /// Decides a group in the order of its arrival and commits it; the answers may go out then.
    pub(super) async fn write<'g>(&self, group: &'g [Job]) -> Result<Committed<'g>, SqliteError> {
        let mut transaction = self.database.begin().await?;
        let mut state = load::state(&mut transaction, group).await?;
        // Under the lock, so that no transaction goes by an earlier time than the one before it.
        let now = self.clock.now();
        let clearing = self
            .clear_away(&mut transaction, &state, group, now)
            .await?;
        if clearing.looked {
            // Counters have changed, and also where nothing was found the bounds of expiry may have.
            state = load::state(&mut transaction, group).await?;
        }
        let mut told = Told::default();
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            outcomes.push(judge(&mut state, &clearing, job, now, &mut told));
        }
        if !told.entries.is_empty() {
            let is_alone = group.len() == 1;
            let mut script = Script::new(is_alone);
            store::state(&mut script, &state);
            audit::insert(&mut script, &self.audit_ids, &told.entries, now);
            script.run(&mut transaction).await?;
        }
        transaction.commit().await.map_err(SqliteError::Commit)?;
        Ok(Committed {
            outcomes,
            told,
            removed: clearing.removed,
            now,
        })
    }

    async fn clear_away(
        &self,
        connection: &mut SqliteConnection,
        state: &State,
        group: &[Job],
        now: Timestamp,
    ) -> Result<Clearing, SqliteError> {
        let for_room = group.iter().filter_map(|job| {
            let quota = job.needs_room?;
            Some((Counted::by(quota, job.place()), FOR_ROOM))
        });
        let on_the_way = group
            .iter()
            .map(|job| (Counted::Tenant(job.scope.tenant), ON_THE_WAY))
            .filter(|(tenant, _)| state.is_due(tenant, now));
        let mut clearing = Clearing::default();
        let mut visited = HashSet::new();
        // One budget for the transaction: what is left waits for the next one.
        let mut left = FOR_ROOM.records;
        for (place, batch) in for_room.chain(on_the_way) {
            if left == 0 || !visited.insert(place.clone()) {
                continue;
            }
            let batch = Batch {
                records: batch.records.min(left),
                ..batch
            };
            clearing.looked = true;
            // Rubbish that can't be removed is no reason not to write.
            let Some(removed) = self.remove(connection, &place, now, batch).await? else {
                continue;
            };
            clearing.removed.records += removed.records;
            clearing.removed.bytes += removed.bytes;
            left = left.saturating_sub(rows::narrow(removed.records));
            if !removed.more {
                clearing.exhausted.insert(place);
            }
        }
        Ok(clearing)
    }
}

impl Groups {
    /// Removes what is expired, or nothing where the database holds what it shouldn't.
    async fn remove(
        &self,
        connection: &mut SqliteConnection,
        of: &Counted,
        now: Timestamp,
        batch: Batch,
    ) -> Result<Option<Removed>, SqliteError> {
        let mut savepoint = connection.begin().await?;
        match expiry::remove(&mut savepoint, &self.audit_ids, of, now, batch).await {
            Ok(removed) => {
                savepoint.commit().await?;
                Ok(Some(removed))
            }
            Err(error) if error.is_passing() => Err(error),
            Err(error) => {
                savepoint.rollback().await?;
                let error: &dyn std::error::Error = &error;
                tracing::error!(tenant.id = %of.tenant(), error, "expired records can't be removed");
                Ok(None)
            }
        }
    }
}

fn judge<'g>(
    state: &mut State,
    clearing: &Clearing,
    job: &'g Job,
    now: Timestamp,
    told: &mut Told<'g>,
) -> Outcome {
    match &job.write {
        Write::Put(put) => match state.put(&job.scope, put, now) {
            Ok(judged) => Outcome::Put(Ok(told.note(job, judged))),
            Err(BulkError {
                error: Error::QuotaExceeded(quota),
                ..
            }) if clearing.may_make_room(state, job, quota.name, now) => {
                Outcome::NeedsRoom(quota.name)
            }
            Err(refused) => Outcome::Put(Err(refused)),
        },
        Write::Delete(request) => {
            let judged = state.delete(&job.scope, request, now);
            Outcome::Delete(judged.map(|judged| told.note(job, judged)))
        }
    }
}

impl Clearing {
    /// Whether some of what counts to a quota may be expired still, and could make enough room.
    fn may_make_room(&self, state: &State, job: &Job, quota: QuotaName, now: Timestamp) -> bool {
        job.alone(quota) <= job.scope.limits.quotas.limit(quota)
            && state.is_due(&Counted::Tenant(job.scope.tenant), now)
            && !self.exhausted.contains(&Counted::by(quota, job.place()))
    }
}

impl Counted {
    /// What a quota of the namespace `place` counts.
    fn by(quota: QuotaName, place: Place) -> Self {
        match quota {
            QuotaName::KeysPerNamespace => Self::Namespace(place),
            QuotaName::Namespaces | QuotaName::BytesPerInstall => {
                Self::Install(place.tenant, place.install)
            }
            QuotaName::BytesPerTenant => Self::Tenant(place.tenant),
        }
    }
}

impl<'g> Told<'g> {
    /// Notes what a write did, and gives its answer.
    fn note<T>(&mut self, job: &'g Job, judged: Judged<T>) -> T {
        let scope = &job.scope;
        if !judged.changes.is_empty() {
            self.entries.push(AuditEntry {
                scope,
                namespace: job.namespace(),
                operation: job.operation(),
                changes: judged.changes,
            });
        }
        self.alerts
            .extend(judged.alerts.into_iter().map(|alert| (scope, alert)));
        judged.answer
    }

    fn tell(&self, now: Timestamp) {
        for entry in &self.entries {
            entry.tell(now);
        }
        for (scope, alert) in &self.alerts {
            alert.tell(scope);
        }
    }
}

impl Alert {
    fn tell(&self, scope: &Scope) {
        metrics::counter!("alga_storage_quota_alerts_total", "quota" => self.quota.as_str(), "percent" => self.percent.to_string())
            .increment(1);
        tracing::info!(
            tenant.id = %scope.tenant,
            install.id = %scope.install,
            quota = %self.quota,
            percent = self.percent,
            used = self.used,
            limit = self.limit,
            "a quota is nearly used up"
        );
    }
}
