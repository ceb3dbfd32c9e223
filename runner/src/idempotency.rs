//! Requests with a key are answered once, however often they are repeated.
//!
//! A request is looked up first, which writes nothing. One that nobody has answered is admitted as
//! any call is, and only then claims its key in the registry, runs, and has its answer kept there.
//! So a call that is refused leaves nothing behind, and nobody has a claim without a permit. Within
//! this process those with the same key stand in one line, of whom the first asks the registry;
//! other processes are waited for by asking again. A claim ends with its lease, so that a crash
//! blocks no key for long.

mod answer;
mod claim;
mod digest;
mod lines;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_host_api::Response;
use alga_model::{Clock, ErrorChain, InstallId};
use alga_registry::{
    AnswerQuotas, Claim, Claimed, IdempotencyKey, KeptAnswer, KeyedRequest, Known, Registry,
    RegistryError,
};
use tokio::sync::watch;

use self::answer::{decode, worth_keeping};
use self::claim::Held;
use self::digest::digest;
use self::lines::{Lines, Place};
use crate::admission::{Admission, Caps, Limits, Permit, Reason, Refusal, Who};
use crate::execute::{Call, ExecuteError};
use crate::installs::Installs;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// How long it may take to keep an answer, once it is there.
const KEEPING: Duration = Duration::from_secs(10);
/// How long to wait until another process is asked for again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// How many requests are looked up at once. Each may bring an answer of a MiB, of which there are a
/// few copies until it is on its way.
const LOOK_UPS: usize = 16;

/// What becomes of a request with a key, as it is counted.
pub(crate) const OUTCOMES: [&str; 8] = [
    "kept",
    "kept_as_mark",
    "not_kept",
    "replayed",
    "not_replayed",
    "conflict",
    "in_progress",
    "late",
];

/// Answers requests with a key once.
#[derive(Debug)]
pub struct Idempotency {
    registry: Arc<dyn Registry>,
    installs: Arc<Installs>,
    clock: Arc<dyn Clock>,
    lease: Duration,
    quotas: AnswerQuotas,
    lines: Arc<Lines>,
    look_ups: Admission,
    repeats: Admission,
    stopping: watch::Sender<bool>,
}

/// What bounds requests with a key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyLimits {
    /// No invocation takes longer.
    pub longest_call: Duration,
    /// What bounds calls. As many as may wait there may wait for the answer to another request, and
    /// to be looked up.
    pub calls: Limits,
    /// How long a request may wait to be looked up.
    pub longest_wait: Duration,
    /// How much is kept.
    pub quotas: AnswerQuotas,
}

/// What there is to do about a request with a key.
#[derive(Debug)]
pub enum Turn {
    /// Nothing: this is the answer.
    Replay(Answer),
    /// It is to be answered, and by nobody else of this process as long as this lives.
    Run(Front),
}

/// The front place among the requests of this process that have the same key.
#[derive(Debug)]
#[must_use = "the next one has its turn when this is dropped"]
pub struct Front {
    request: KeyedRequest,
    _place: Place,
}

/// An answer, and where it comes from.
#[derive(Debug)]
pub struct Answer {
    /// Whether it was given to an earlier request.
    pub is_replay: bool,
    response: Response,
    /// Of a replay, which is a copy in memory until it is written.
    _look_up: Option<Permit>,
}

/// Why a request with a key was not answered.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The key belongs to something else.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// Somebody else is answering it, and takes longer than this one may wait.
    #[error("the request is being answered")]
    InProgress,
    /// It was answered, and only that is known.
    #[error(
        "the request was carried out with status {status}; its answer of {bytes} bytes is not kept"
    )]
    NotKept {
        /// The status of the answer.
        status: u16,
        /// How large status, headers and body were together.
        bytes: u64,
    },
    /// The install was uninstalled.
    #[error("the install is uninstalled")]
    Uninstalled,
    /// It is not known whether the request was answered before.
    #[error("cannot tell whether the request was answered before")]
    Registry(#[from] RegistryError),
    /// Too many others are ahead of it.
    #[error("{}", .0.told(.1.reason))]
    Crowded(Crowd, Refusal),
    /// The extension was not run, or gave no answer.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// What requests with a key are in before they are admitted as any call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Those whose answers are looked up.
    LookUps,
    /// Those that wait for the answer to the same request.
    Repeats,
}

impl Crowd {
    /// What is in the way of one more.
    pub const fn told(self, reason: Reason) -> &'static str {
        match (self, reason) {
            (Self::LookUps, Reason::Install) => {
                "too many requests of the install with an idempotency key are being looked up"
            }
            (Self::LookUps, Reason::Tenant) => {
                "too many requests of the tenant with an idempotency key are being looked up"
            }
            (Self::LookUps, Reason::Process) => {
                "too many requests with an idempotency key are being looked up"
            }
            (Self::Repeats, Reason::Install) => {
                "too many requests of the install wait for the answer to one with the same idempotency key"
            }
            (Self::Repeats, Reason::Tenant) => {
                "too many requests of the tenant wait for the answer to one with the same idempotency key"
            }
            (Self::Repeats, Reason::Process) => {
                "too many requests wait for the answer to one with the same idempotency key"
            }
            (_, Reason::Closed) => "the runner is stopping",
        }
    }
}

impl Answer {
    /// The answer, written by `write`. A replay has its place among those looked up until then.
    pub fn written<T>(self, write: impl FnOnce(Response) -> T) -> T {
        write(self.response)
    }
}

impl Idempotency {
    /// Keeps answers in `registry`.
    pub fn new(
        registry: Arc<dyn Registry>,
        installs: Arc<Installs>,
        clock: Arc<dyn Clock>,
        limits: IdempotencyLimits,
    ) -> Self {
        let (calls, longest_wait) = (limits.calls, limits.longest_wait);
        Self {
            registry,
            installs,
            clock,
            lease: limits.longest_call + KEEPING,
            quotas: limits.quotas,
            lines: Arc::default(),
            look_ups: Admission::to_something_else(of_look_ups(calls), longest_wait),
            repeats: Admission::to_something_else(of_repeats(calls), Duration::ZERO),
            stopping: watch::Sender::default(),
        }
    }

    /// Refuses requests from now on, those too that wait for the answer to another one.
    pub fn close(&self) {
        self.look_ups.close();
        self.repeats.close();
        self.stopping.send_replace(true);
    }

    /// Waits until nobody answers the same request, at most until `deadline`, and gives the answer
    /// there is by then. Writes nothing.
    pub async fn turn(
        &self,
        call: &Call,
        key: IdempotencyKey,
        deadline: Instant,
    ) -> Result<Turn, OnceError> {
        call.ensure_enabled()?;
        let who = call.who();
        let request = KeyedRequest {
            install: who.install,
            digest: digest(call),
            key,
        };
        let mut waits = None;
        let place = self.front(&request, who, deadline, &mut waits).await?;
        let (mut pause, longest_pause) = PAUSES;
        loop {
            if waits.is_some() {
                self.ensure_still_enabled(who.install).await?;
            }
            let look_up = self
                .look_ups
                .admit(who, None, Instant::now(), deadline)
                .await;
            let look_up = look_up.map_err(|refusal| OnceError::Crowded(Crowd::LookUps, refusal))?;
            let known = self.registry.known_request(&request, self.clock.now());
            match known.await? {
                None => break,
                Some(Known::Theirs) => {}
                Some(known) => return Ok(Turn::Replay(replay(known, &request, Some(look_up))?)),
            }
            drop(look_up);
            self.wait(who, &mut waits).await?;
            if Instant::now() + pause >= deadline {
                return Err(in_progress());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                refusal = self.stopped() => return Err(refusal),
            }
            pause = (pause * 2).min(longest_pause);
        }
        Ok(Turn::Run(Front {
            request,
            _place: place,
        }))
    }

    /// Claims the request, has `run` answer it, and keeps the answer. Once begun it should not be
    /// dropped: what a guest did half-way would be done again.
    pub async fn answer(
        &self,
        front: Front,
        run: impl Future<Output = Result<Response, ExecuteError>>,
    ) -> Result<Answer, OnceError> {
        let now = self.clock.now();
        let claimed = self
            .registry
            .claim_request(&front.request, now, now.plus(self.lease));
        let claim = match claimed.await {
            Ok(Claimed::Ours(claim)) => Held::new(Arc::clone(&self.registry), claim),
            Ok(Claimed::Known(known)) => return replay(known, &front.request, None),
            Err(RegistryError::NotFound { .. }) => return Err(OnceError::Uninstalled),
            Err(error) => return Err(error.into()),
        };
        let answer = run.await;
        if let Some(answer) = answer.as_ref().ok().and_then(worth_keeping) {
            self.keep(claim.answered(), &answer).await;
        } else {
            count("not_kept");
            claim.give_up().await;
        }
        Ok(Answer {
            response: answer?,
            is_replay: false,
            _look_up: None,
        })
    }

    /// Comes to the front of those with the same key.
    async fn front(
        &self,
        request: &KeyedRequest,
        who: Who,
        deadline: Instant,
        waits: &mut Option<Permit>,
    ) -> Result<Place, OnceError> {
        let id = (request.install, request.key.clone());
        let mut place = self.lines.stand(id);
        if !place.is_front() {
            self.wait(who, waits).await?;
            tokio::select! {
                biased;
                () = place.come_to_front() => {}
                refusal = self.stopped() => return Err(refusal),
                () = tokio::time::sleep_until(deadline.into()) => return Err(in_progress()),
            }
        }
        Ok(place)
    }

    /// Counts a request among those that wait, of whom there must not be too many.
    async fn wait(&self, who: Who, waits: &mut Option<Permit>) -> Result<(), OnceError> {
        if waits.is_none() {
            let now = Instant::now();
            let permit = self.repeats.admit(who, None, now, now).await;
            let permit = permit.map_err(|refusal| OnceError::Crowded(Crowd::Repeats, refusal));
            *waits = Some(permit?);
        }
        Ok(())
    }

    /// Resolves when nobody should wait any more.
    async fn stopped(&self) -> OnceError {
        // The sender is in `self`, so the channel is open.
        let _ = self.stopping.subscribe().wait_for(|stops| *stops).await;
        OnceError::Crowded(Crowd::Repeats, Refusal::because(Reason::Closed))
    }

    /// Who has waited knows the install as it was before.
    async fn ensure_still_enabled(&self, install: InstallId) -> Result<(), OnceError> {
        match self.installs.find(install).await? {
            None => Err(OnceError::Uninstalled),
            Some(install) if install.is_enabled() => Ok(()),
            Some(_) => Err(ExecuteError::Disabled.into()),
        }
    }

    /// Keeps an answer. Where that fails the claim stands until its lease is over: what was done must
    /// not be done again at once.
    async fn keep(&self, claim: Claim, answer: &KeptAnswer) {
        let until = self.clock.now().plus(KEPT);
        let kept = self
            .registry
            .keep_answer(&claim, answer, until, self.quotas);
        match kept.await {
            Ok(true) if answer.content.is_some() => count("kept"),
            Ok(true) => count("kept_as_mark"),
            Ok(false) => count("late"),
            // The caller has an answer, which is what it came for.
            Err(error) => tracing::warn!(
                error = %ErrorChain(&error),
                error.blame = "host",
                "an answer can't be kept for those who repeat the request"
            ),
        }
    }
}

/// What somebody gets who is not the one to answer.
fn replay(
    known: Known,
    request: &KeyedRequest,
    look_up: Option<Permit>,
) -> Result<Answer, OnceError> {
    let kept = match known {
        Known::Answered(kept) => kept,
        Known::Theirs => return Err(in_progress()),
        Known::OtherRequest => {
            count("conflict");
            return Err(OnceError::OtherRequest);
        }
    };
    let KeptAnswer { status, bytes, .. } = kept;
    let Some(content) = kept.content else {
        count("not_replayed");
        return Err(OnceError::NotKept { status, bytes });
    };
    let response = decode(status, &content)?;
    count("replayed");
    tracing::info!(
        install.id = %request.install,
        "the answer to an earlier request was given again"
    );
    Ok(Answer {
        response,
        is_replay: true,
        _look_up: look_up,
    })
}

fn in_progress() -> OnceError {
    count("in_progress");
    OnceError::InProgress
}

/// As few at once as there is memory for, shared as the places of calls are.
fn of_look_ups(calls: Limits) -> Limits {
    let at_once = |running, caps: Caps| Caps { running, ..caps };
    Limits {
        process: at_once(LOOK_UPS, calls.process),
        reserve: LOOK_UPS / 4,
        tenant: at_once(LOOK_UPS / 2, calls.tenant),
        install: at_once(LOOK_UPS / 4, calls.install),
    }
}

/// As many as calls may wait. Nobody waits to wait.
fn of_repeats(calls: Limits) -> Limits {
    let waiting = |caps: Caps| Caps {
        running: caps.waiting,
        ..caps
    };
    Limits {
        process: waiting(calls.process),
        reserve: calls.process.waiting / 4,
        tenant: waiting(calls.tenant),
        install: waiting(calls.install),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("alga_idempotency_requests_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
