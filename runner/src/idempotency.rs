//! Requests with a key are answered once, however often they are repeated.
//!
//! Whoever comes first claims the key in the registry, runs the extension and keeps the answer
//! there; whoever repeats the request gets that. Within this process those with the same key stand
//! in one line, so that only the first of them asks the registry; other processes are waited for by
//! asking again. A claim ends with its lease, so that a crash blocks no key for long.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alga_host_api::{Header, Response};
use alga_model::{Clock, ContentHash, ContentHasher, ErrorChain, InstallId};
use alga_registry::{
    Claim, Claimed, IdempotencyKey, InstallState, KeyedRequest, MAX_ANSWER_BYTES, Registry,
    RegistryError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::engine::RunError;
use crate::execute::{Call, ExecuteError};
use crate::headers;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// How long it may take to keep an answer, once it is there.
const KEEPING: Duration = Duration::from_secs(10);
/// How long to wait until another process is asked for again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Answers requests with a key once.
#[derive(Debug)]
pub struct Idempotency {
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    lease: Duration,
    lines: Arc<Lines>,
}

/// The front place among the requests of this process that have the same key.
#[derive(Debug)]
pub struct Turn {
    request: KeyedRequest,
    deadline: Instant,
    _place: Place,
}

/// An answer, and where it comes from.
#[derive(Debug)]
pub struct Answer {
    /// The extension's answer.
    pub response: Response,
    /// Whether it was given to an earlier request.
    pub is_replay: bool,
}

/// Why a request with a key was not answered.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The key belongs to something else.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// It is not known whether the request was answered before.
    #[error("cannot tell whether the request was answered before")]
    Registry(#[from] RegistryError),
    /// The extension was not run, or gave no answer.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

impl Idempotency {
    /// Keeps answers in `registry`. No invocation takes longer than `longest`.
    pub fn new(registry: Arc<dyn Registry>, clock: Arc<dyn Clock>, longest: Duration) -> Self {
        Self {
            registry,
            clock,
            lease: longest + KEEPING,
            lines: Arc::default(),
        }
    }

    /// Waits until no other request of this process with the same key is before this one.
    pub async fn turn(
        &self,
        call: &Call,
        key: IdempotencyKey,
        deadline: Instant,
    ) -> Result<Turn, OnceError> {
        let install = &call.install.install;
        if install.state != InstallState::Enabled {
            return Err(ExecuteError::Disabled.into());
        }
        let request = KeyedRequest {
            install: install.id,
            digest: digest(call),
            key,
        };
        let id = (request.install, request.key.clone());
        let place = tokio::time::timeout_at(deadline.into(), self.lines.enter(id));
        Ok(Turn {
            _place: place.await.map_err(|_| timeout())?,
            request,
            deadline,
        })
    }

    /// Gives the answer that was kept; or has `run` answer within the time that is left, and keeps
    /// that. Begun, it should not be dropped: what a guest did half-way would be done again.
    pub async fn answer<F>(
        &self,
        turn: Turn,
        run: impl FnOnce(Duration) -> F,
    ) -> Result<Answer, OnceError>
    where
        F: Future<Output = Result<Response, ExecuteError>>,
    {
        let claim = match self.claim(&turn).await? {
            Ok(claim) => claim,
            Err(response) => {
                count("replayed");
                tracing::info!(
                    install.id = %turn.request.install,
                    "the answer to an earlier request was given again"
                );
                return Ok(Answer {
                    response,
                    is_replay: true,
                });
            }
        };
        let left = turn.deadline.saturating_duration_since(Instant::now());
        let answer = run(left).await;
        let to_keep = answer.as_ref().ok().and_then(worth_keeping);
        let finished = if let Some(answer) = to_keep {
            self.keep(&claim, &answer).await
        } else {
            count("not_kept");
            self.registry.give_up_request(&claim).await
        };
        if let Err(error) = finished {
            // The caller has an answer, which is what it came for.
            tracing::warn!(
                install.id = %turn.request.install,
                error = %ErrorChain(&error),
                error.blame = "host",
                "an answer can't be kept for those who repeat the request"
            );
        }
        Ok(Answer {
            response: answer?,
            is_replay: false,
        })
    }

    /// Claims the request, or finds its answer. Waits for other processes that are answering it.
    async fn claim(&self, turn: &Turn) -> Result<Result<Claim, Response>, OnceError> {
        let (mut pause, longest_pause) = PAUSES;
        loop {
            let now = self.clock.now();
            let claimed = self
                .registry
                .claim_request(&turn.request, now, now.plus(self.lease));
            match claimed.await? {
                Claimed::Ours(claim) => return Ok(Ok(claim)),
                Claimed::Answered(answer) => return Ok(Err(decode(&answer)?)),
                Claimed::OtherRequest => {
                    count("conflict");
                    return Err(OnceError::OtherRequest);
                }
                Claimed::Theirs => {}
            }
            if Instant::now() + pause >= turn.deadline {
                return Err(timeout());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest_pause);
        }
    }

    async fn keep(&self, claim: &Claim, answer: &[u8]) -> Result<(), RegistryError> {
        let until = self.clock.now().plus(KEPT);
        let kept = self.registry.keep_answer(claim, answer, until).await?;
        count(if kept { "kept" } else { "late" });
        Ok(())
    }
}

fn timeout() -> OnceError {
    ExecuteError::Run(RunError::Timeout).into()
}

fn count(outcome: &'static str) {
    metrics::counter!("alga_idempotency_requests_total", "outcome" => outcome).increment(1);
}

/// What makes two calls the same: the install, and all that its guest gets to see of the request.
fn digest(call: &Call) -> ContentHash {
    let mut hasher = ContentHasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    let request = &call.request;
    add(call.install.install.id.as_bytes());
    add(request.method.as_bytes());
    add(request.path.as_bytes());
    // None and empty are different: each is a list of one part or of none.
    add(&[u8::from(request.query.is_some())]);
    add(request.query.as_deref().unwrap_or_default().as_bytes());
    add(&[u8::from(request.body.is_some())]);
    add(request.body.as_deref().unwrap_or_default());
    for header in headers::to_guest(request.headers.clone()) {
        add(header.name.as_bytes());
        add(header.value.as_bytes());
    }
    hasher.finish()
}

/// The answer as it is kept, if it is. What failed, or came too early, is worth another try.
fn worth_keeping(response: &Response) -> Option<Vec<u8>> {
    let is_final = response.status != 429 && response.status < 500;
    is_final
        .then(|| encode(response))
        .filter(|answer| answer.len() <= MAX_ANSWER_BYTES)
}

/// A kept answer is this in one line of JSON, and then the body as it is.
#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    has_body: bool,
}

fn encode(response: &Response) -> Vec<u8> {
    let pair = |header: &Header| (header.name.clone(), header.value.clone());
    let head = Head {
        status: response.status,
        headers: response.headers.iter().map(pair).collect(),
        has_body: response.body.is_some(),
    };
    let mut answer = serde_json::to_vec(&head).expect("texts and numbers can be written as JSON");
    answer.push(b'\n');
    answer.extend(response.body.as_deref().unwrap_or_default());
    answer
}

fn decode(answer: &[u8]) -> Result<Response, RegistryError> {
    let damaged =
        |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Internal { source };
    let end = answer.iter().position(|byte| *byte == b'\n');
    let (head, body) = answer.split_at(end.unwrap_or(answer.len()));
    let head: Head = serde_json::from_slice(head).map_err(|error| damaged(error.into()))?;
    let headers = head.headers.into_iter();
    Ok(Response {
        status: head.status,
        headers: headers
            .map(|(name, value)| Header { name, value })
            .collect(),
        body: head
            .has_body
            .then(|| body.get(1..).unwrap_or_default().to_vec()),
    })
}

type LineId = (InstallId, IdempotencyKey);

/// For each key that somebody uses now, those who do.
#[derive(Default)]
struct Lines(Mutex<HashMap<LineId, Arc<AsyncMutex<()>>>>);

/// A place in a line, the front one once it has the guard. Left when it is dropped.
struct Place {
    lines: Arc<Lines>,
    id: LineId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Lines {
    async fn enter(self: &Arc<Self>, id: LineId) -> Place {
        let line = Arc::clone(self.lock().entry(id.clone()).or_default());
        let mut place = Place {
            lines: Arc::clone(self),
            id,
            guard: None,
        };
        place.guard = Some(line.lock_owned().await);
        place
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LineId, Arc<AsyncMutex<()>>>> {
        // Poisoning would need a panic below, which moves plain values only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        drop(self.guard.take());
        // One is that of the map itself; whoever comes needs the lock that is held here.
        if lines
            .get(&self.id)
            .is_some_and(|line| Arc::strong_count(line) == 1)
        {
            lines.remove(&self.id);
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
