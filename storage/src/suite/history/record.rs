//! Many clients at once, and a record of what each did when.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{Either, select};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::task::{JoinSet, yield_now};

use super::check::Call;
use super::register::{Action, Answer, Guard, Version};
use crate::suite::Stage;
use crate::suite::stage::{item, key_of, notes, revision_of};
use crate::{Caller, Conflict, DeleteRequest, Error, Gate, GetRequest, PutRequest, Record};

const CLIENTS: usize = 64;
const STEPS: usize = 24;
/// Few, so that every call meets others.
const KEYS: usize = 4;

/// The calls on each key.
pub(super) type History = Vec<Vec<Call>>;

/// Whether clients wait for every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Endless,
    /// Now and then a call is dropped while it is under way.
    Limited,
}

/// Lets the clients do their plans in a new install, all at once.
pub(super) async fn record(stage: &Stage, patience: Patience) -> History {
    let install = stage.install();
    let shared = Arc::new(Shared::default());
    let mut clients = JoinSet::new();
    for steps in plans(patience) {
        let client = Client {
            gate: install.gate().clone(),
            caller: install.caller.clone(),
            shared: Arc::clone(&shared),
            latest: [1; KEYS],
        };
        clients.spawn(client.run(steps));
    }
    let mut history: History = vec![Vec::new(); KEYS];
    for (key, call) in clients.join_all().await.into_iter().flatten() {
        history[key].push(call);
    }
    history
}

/// What one client does at one time.
#[derive(Debug, Clone)]
struct Step {
    key: usize,
    intent: Intent,
    /// How many turns of the scheduler the client waits before it walks away.
    turns: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Intent {
    Get,
    Put(Aim),
    Delete(Aim),
}

/// A guard before it is known which revision the client saw last.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Any,
    Absent,
    Exists,
    Latest,
}

fn plans(patience: Patience) -> Vec<Vec<Step>> {
    vec(vec(step(patience), STEPS), CLIENTS)
        .new_tree(&mut TestRunner::default())
        .unwrap()
        .current()
}

fn step(patience: Patience) -> impl Strategy<Value = Step> {
    let turns = match patience {
        Patience::Endless => Just(None).boxed(),
        // Each call whose outcome is unknown doubles the orders that a history may have.
        Patience::Limited => option::weighted(0.06, 0..8u32).boxed(),
    };
    (0..KEYS, intent(), turns).prop_map(|(key, intent, turns)| Step { key, intent, turns })
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        6 => Just(Intent::Get),
        2 => Just(Intent::Put(Aim::Any)),
        2 => Just(Intent::Put(Aim::Absent)),
        1 => Just(Intent::Put(Aim::Exists)),
        5 => Just(Intent::Put(Aim::Latest)),
        1 => Just(Intent::Delete(Aim::Any)),
        1 => Just(Intent::Delete(Aim::Exists)),
        2 => Just(Intent::Delete(Aim::Latest)),
    ]
}

/// What the clients of a recording have in common.
#[derive(Debug, Default)]
struct Shared {
    ticks: AtomicU64,
    values: AtomicU64,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }
}

struct Client {
    gate: Gate,
    caller: Caller,
    shared: Arc<Shared>,
    /// The revision of each key that this client saw last.
    latest: [u64; KEYS],
}

impl Client {
    async fn run(mut self, steps: Vec<Step>) -> Vec<(usize, Call)> {
        let mut calls = Vec::with_capacity(steps.len());
        for Step { key, intent, turns } in steps {
            let action = self.action(key, intent);
            let invoked = self.shared.tick();
            let answer = within(turns, self.answer(key, action))
                .await
                .unwrap_or(Answer::Unknown);
            let returned = self.shared.tick();
            self.latest[key] = answer.revision().unwrap_or(self.latest[key]);
            calls.push((
                key,
                Call {
                    action,
                    answer,
                    invoked,
                    returned,
                },
            ));
        }
        calls
    }

    fn action(&self, key: usize, intent: Intent) -> Action {
        let guard = |aim| match aim {
            Aim::Any => Guard::Any,
            Aim::Absent => Guard::Absent,
            Aim::Exists => Guard::Exists,
            Aim::Latest => Guard::Revision(self.latest[key]),
        };
        match intent {
            Intent::Get => Action::Get,
            Intent::Put(aim) => Action::Put {
                guard: guard(aim),
                value: self.shared.values.fetch_add(1, Ordering::Relaxed),
            },
            Intent::Delete(aim) => Action::Delete(guard(aim)),
        }
    }

    async fn answer(&self, key: usize, action: Action) -> Answer {
        let outcome = match action {
            Action::Get => self.get(key).await,
            Action::Put { guard, value } => self.put(key, guard, value).await,
            Action::Delete(guard) => self.delete(key, guard).await,
        };
        outcome.unwrap_or_else(Answer::of_error)
    }

    async fn get(&self, key: usize) -> Result<Answer, Error> {
        let request = GetRequest {
            namespace: notes(),
            key: key_of(&name(key)),
            if_revision: None,
        };
        match self.gate.get(&self.caller, request).await {
            Ok(record) => Ok(Answer::Read(Some(record.into()))),
            Err(Error::NotFound) => Ok(Answer::Read(None)),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, key: usize, guard: Guard, value: u64) -> Result<Answer, Error> {
        let request = PutRequest {
            namespace: notes(),
            item: item(&name(key), &value.to_string(), guard.into()),
            return_previous: true,
            return_current: true,
        };
        let written = self.gate.put(&self.caller, request).await?;
        Ok(Answer::Written {
            revision: written.revision.get(),
            previous: written.previous.map(Version::from),
        })
    }

    async fn delete(&self, key: usize, guard: Guard) -> Result<Answer, Error> {
        let request = DeleteRequest {
            namespace: notes(),
            key: key_of(&name(key)),
            guard: guard.into(),
        };
        self.gate
            .delete(&self.caller, request)
            .await
            .map(Answer::Deleted)
    }
}

/// What comes of the call within so many turns of the scheduler; else it is dropped as it is.
async fn within<T>(turns: Option<u32>, call: impl Future<Output = T>) -> Option<T> {
    let Some(turns) = turns else {
        return Some(call.await);
    };
    let patience = async {
        for _ in 0..turns {
            yield_now().await;
        }
    };
    match select(pin!(call), pin!(patience)).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}

fn name(key: usize) -> String {
    format!("k{key}")
}

impl Answer {
    fn of_error(error: Error) -> Self {
        match error {
            Error::RevisionMismatch(conflict) => {
                let Conflict {
                    current_revision,
                    current,
                } = *conflict;
                Self::Conflict {
                    revision: current_revision.map(crate::Revision::get),
                    value: current.map(|record| Version::from(record).value),
                }
            }
            Error::Unavailable(_) => Self::Unknown,
            other => panic!("the call should be within all limits: {other}"),
        }
    }
}

impl From<Record> for Version {
    fn from(record: Record) -> Self {
        Self {
            revision: record.revision.get(),
            value: record.value.as_str().parse().unwrap(),
        }
    }
}

impl From<Guard> for crate::Guard {
    fn from(guard: Guard) -> Self {
        match guard {
            Guard::Any => Self::Any,
            Guard::Absent => Self::Absent,
            Guard::Exists => Self::Exists,
            Guard::Revision(revision) => Self::Exactly(revision_of(revision)),
        }
    }
}
