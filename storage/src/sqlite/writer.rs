//! The queue of those who write.
//!
//! SQLite has one write lock, and making a commit durable costs more than everything else in it. So
//! writes queue here, and whatever has come while a transaction was under way goes into the next
//! one together: each is judged in its turn, and all of them are durable before the first is
//! answered.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use alga_sqlite::{Database, DriverError};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::SqliteError;
use super::group::{Groups, Outcome};
use super::state::Place;
use crate::contract::{DeleteRequest, Key, Namespace, QuotaName, Written};
use crate::error::{BulkError, Error};
use crate::service::{CheckedItem, Put, Scope};

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

/// A write that somebody waits for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) scope: Scope,
    pub(super) write: Write,
    /// The quota that would refuse it, were there not expired records in the way.
    pub(super) needs_room: Option<QuotaName>,
    answer: Answer,
}

#[derive(Debug)]
pub(super) enum Write {
    Put(Put),
    Delete(DeleteRequest),
}

#[derive(Debug)]
enum Answer {
    Put(oneshot::Sender<Result<Vec<Written>, BulkError>>),
    Delete(oneshot::Sender<Result<bool, Error>>),
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(database: Arc<Database>, groups: Groups) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(run(database, groups, jobs));
        Self { queue }
    }

    pub(super) async fn put(&self, scope: Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        self.queue(scope, Write::Put(put), Answer::Put).await
    }

    pub(super) async fn delete(&self, scope: Scope, request: DeleteRequest) -> Result<bool, Error> {
        self.queue(scope, Write::Delete(request), Answer::Delete)
            .await
    }

    async fn queue<T, E: From<Error>>(
        &self,
        scope: Scope,
        write: Write,
        answer: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Answer,
    ) -> Result<T, E> {
        let dropped = || Error::Unavailable("the database can't be written to".into());
        let (sender, answered) = oneshot::channel();
        let job = Job {
            scope,
            write,
            needs_room: None,
            answer: answer(sender),
        };
        self.queue.send(job).await.map_err(|_| dropped())?;
        answered.await.map_err(|_| dropped())?
    }
}

impl Job {
    pub(super) fn namespace(&self) -> &Namespace {
        match &self.write {
            Write::Put(put) => &put.namespace,
            Write::Delete(request) => &request.namespace,
        }
    }

    /// What the audit calls it.
    pub(super) const fn operation(&self) -> &'static str {
        match &self.write {
            Write::Put(_) => "put",
            Write::Delete(_) => "delete",
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::of(&self.scope, self.namespace())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        let (items, key) = match &self.write {
            Write::Put(put) => (put.items.as_slice(), None),
            Write::Delete(request) => (&[][..], Some(&request.key)),
        };
        items.iter().map(|item| &item.key).chain(key)
    }

    /// Whether it may have to answer with a record.
    pub(super) fn wants_content(&self) -> bool {
        match &self.write {
            Write::Put(put) => put.return_previous || put.return_current,
            Write::Delete(_) => false,
        }
    }

    /// What it would count to a quota if nothing else did.
    pub(super) fn alone(&self, quota: QuotaName) -> u64 {
        let Write::Put(put) = &self.write else {
            return 0;
        };
        match quota {
            QuotaName::Namespaces => 1,
            QuotaName::KeysPerNamespace => put.items.len() as u64,
            QuotaName::BytesPerInstall | QuotaName::BytesPerTenant => {
                put.items.iter().map(CheckedItem::size).sum()
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.answer {
            Answer::Put(answer) => answer.is_closed(),
            Answer::Delete(answer) => answer.is_closed(),
        }
    }

    // A caller that went away needs no answer.
    fn refuse(self, error: Error) {
        match self.answer {
            Answer::Put(answer) => drop(answer.send(Err(error.into()))),
            Answer::Delete(answer) => drop(answer.send(Err(error))),
        }
    }

    /// Answers, or gives the write back where it has to be judged again.
    fn settle(mut self, outcome: Outcome) -> Option<Self> {
        match (self.answer, outcome) {
            (answer, Outcome::NeedsRoom(quota)) => {
                self.answer = answer;
                self.needs_room = Some(quota);
                return Some(self);
            }
            (Answer::Put(answer), Outcome::Put(outcome)) => drop(answer.send(outcome)),
            (Answer::Delete(answer), Outcome::Delete(outcome)) => drop(answer.send(outcome)),
            (answer, Outcome::Put(_) | Outcome::Delete(_)) => {
                self.answer = answer;
                self.refuse(Error::Internal(
                    "a write was answered as another one".into(),
                ));
            }
        }
        None
    }
}

async fn run(database: Arc<Database>, groups: Groups, mut jobs: mpsc::Receiver<Job>) {
    let groups = Arc::new(groups);
    // Writes that need room, which expired records hold.
    let mut waiting = VecDeque::new();
    loop {
        // They go first, before whoever came later can take the room, but leave others their half.
        let mut group: Vec<Job> = waiting.drain(..waiting.len().min(GROUP / 2)).collect();
        if group.is_empty() {
            if jobs.recv_many(&mut group, GROUP).await == 0 {
                return;
            }
        } else if waiting.len() < QUEUE {
            let newcomers = std::iter::from_fn(|| jobs.try_recv().ok());
            group.extend(newcomers.take(GROUP / 2));
        }
        // Nobody waits for these any more: while the database was stuck, the queue filled up with them.
        group.retain(|job| !job.is_abandoned());
        if group.is_empty() {
            continue;
        }
        let were_several = group.len() > 1;
        let groups = Arc::clone(&groups);
        let writing = database
            .with_writer::<_, DriverError>(move |connection| Ok(write(&groups, connection, group)));
        match writing.await {
            Ok(again) => waiting.extend(again),
            // The group is dropped, and with it who waits is told that nothing was written.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the storage database can't be written to");
            }
        }
        if were_several {
            gather(&jobs).await;
        }
    }
}

/// Lets those who were just answered go on: who has more to write gets into the next group, not into
/// the one after.
async fn gather(jobs: &mpsc::Receiver<Job>) {
    const TURNS: usize = 4;
    for _ in 0..TURNS {
        let waiting = jobs.len();
        tokio::task::yield_now().await;
        if jobs.len() == waiting || jobs.len() >= GROUP {
            return;
        }
    }
}

/// Writes a group and answers it; gives back what has to be judged again.
fn write(groups: &Groups, connection: &mut Connection, group: Vec<Job>) -> Vec<Job> {
    // A panic is a defect, and would be one for every write of the group if it ended here.
    let writing = AssertUnwindSafe(|| groups.write(connection, &group));
    let failure = match std::panic::catch_unwind(writing) {
        Ok(Ok(committed)) => {
            // It is durable, whatever becomes of the telling.
            let telling = AssertUnwindSafe(|| committed.tell());
            let _panicked = std::panic::catch_unwind(telling).is_err();
            let outcomes = committed.outcomes;
            return group
                .into_iter()
                .zip(outcomes)
                .filter_map(|(job, outcome)| job.settle(outcome))
                .collect();
        }
        Ok(Err(error)) => error,
        Err(_) => SqliteError::Panic,
    };
    if group.len() > 1 && !failure.is_passing() {
        // One of them met a defect or a damaged row: that is nothing to its neighbours.
        return group
            .into_iter()
            .flat_map(|job| write(groups, connection, vec![job]))
            .collect();
    }
    let failure = Arc::new(failure);
    for job in group {
        job.refuse(SqliteError::shared(&failure));
    }
    Vec::new()
}
