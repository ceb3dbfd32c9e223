//! One transaction for a group of writes.

use std::collections::HashSet;
use std::sync::Arc;

use alga_model::{Clock, Timestamp};
use alga_sqlite::DriverError;
use rusqlite::{Connection, Transaction};

use super::answers::Answers;
use super::audit::{self, AuditEntry, AuditIds};
use super::counters::Counted;
use super::error::SqliteError;
use super::expiry::{self, Batch, Removals};
use super::state::{Judged, State};
use super::writer::{Job, Write};
use super::{load, store};
use crate::contract::{QuotaName, Written};
use crate::error::{BulkError, Error};
use crate::service::Scope;
use crate::told::Alert;

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
    removals: Removals,
    now: Timestamp,
}

impl Committed<'_> {
    /// Says in log and metrics what happened.
    pub(super) fn tell(&self) {
        self.told.tell(self.now);
        self.removals.tell("write", self.now);
    }
}

/// What expired records were removed before a group was judged.
#[derive(Debug, Default)]
struct Clearing {
    removals: Removals,
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
    pub(super) fn write<'g>(
        &self,
        connection: &mut Connection,
        group: &'g [Job],
    ) -> Result<Committed<'g>, SqliteError> {
        let mut transaction = alga_sqlite::begin(connection)?;
        let mut state: State<'g> = load::state(&transaction, group)?;
        // Under the lock, so that no transaction goes by an earlier time than the one before it.
        let now = self.clock.now();
        let clearing = self.clear_away(&mut transaction, &state, group, now)?;
        if clearing.looked {
            // Counters have changed, and also where nothing was found the bounds of expiry may have.
            state = load::state(&transaction, group)?;
        }
        let mut answers = Answers::load(&transaction, group)?;
        let mut told = Told::default();
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            if let Some(repeated) = answers.repeated(job) {
                outcomes.push(repeated);
                continue;
            }
            let outcome = judge(&mut state, &clearing, job, now, &mut told);
            answers.remember(job, &outcome)?;
            outcomes.push(outcome);
        }
        if !told.entries.is_empty() {
            store::state(&transaction, &state)?;
            audit::insert(&transaction, &self.audit_ids, &told.entries, now)?;
            answers.store(&transaction, now)?;
        }
        transaction.commit().map_err(DriverError::Commit)?;
        Ok(Committed {
            outcomes,
            told,
            removals: clearing.removals,
            now,
        })
    }

    fn clear_away(
        &self,
        transaction: &mut Transaction<'_>,
        state: &State<'_>,
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
            let Some(removals) = self.remove(transaction, &place, now, batch)? else {
                // Nor will it be removable for whoever waits for its room.
                clearing.exhausted.insert(place);
                continue;
            };
            left = left.saturating_sub(removals.total.records);
            if !removals.total.more {
                clearing.exhausted.insert(place);
            }
            clearing.removals.extend(removals);
        }
        Ok(clearing)
    }

    /// Removes what is expired, or nothing where the database holds what it shouldn't.
    fn remove(
        &self,
        transaction: &mut Transaction<'_>,
        of: &Counted,
        now: Timestamp,
        batch: Batch,
    ) -> Result<Option<Removals>, SqliteError> {
        // Undone when it is dropped.
        let savepoint = transaction.savepoint()?;
        match expiry::remove(&savepoint, &self.audit_ids, of, now, batch) {
            Ok(removals) => {
                savepoint.commit()?;
                Ok(Some(removals))
            }
            Err(error) if error.is_passing() => Err(error),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(tenant.id = %of.tenant(), error, "expired records can't be removed");
                Ok(None)
            }
        }
    }
}

fn judge<'g>(
    state: &mut State<'g>,
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
    fn may_make_room(
        &self,
        state: &State<'_>,
        job: &Job,
        quota: QuotaName,
        now: Timestamp,
    ) -> bool {
        job.alone(quota) <= job.scope.limits.quotas.limit(quota)
            && state.is_due(&Counted::Tenant(job.scope.tenant), now)
            && !self.exhausted.contains(&Counted::by(quota, job.place()))
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
