use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use alga_host_api::{Header, Request};
use alga_model::TenantId;
use alga_registry::{AnswerQuota, InstallEdit, InstallState, MAX_ANSWER_BYTES};
use alga_sqlite::DriverError;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::answer::encode;
use super::*;
use crate::engine::{RunError, RunLimits};
use crate::installs::KnownInstall;
use crate::stage::Stage;

const LONGEST: Duration = Duration::from_secs(10);

struct Play {
    stage: Stage,
    idempotency: Idempotency,
    install: Arc<KnownInstall>,
    runs: Cell<u16>,
}

impl Play {
    async fn new() -> Self {
        Self::with(limits(1_000)).await
    }

    async fn with(limits: IdempotencyLimits) -> Self {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let installs = stage.installs_with(alga_storage::Limits::default());
        Self {
            idempotency: another_process(&stage, limits),
            install: installs.find(install.id).await.unwrap().unwrap(),
            stage,
            runs: Cell::new(0),
        }
    }

    fn call(&self, path: &str) -> Call {
        Call {
            install: Arc::clone(&self.install),
            request: Request {
                method: "POST".to_owned(),
                path: path.to_owned(),
                query: None,
                headers: Vec::new(),
                body: None,
            },
            timeout: None,
            limits: RunLimits::default(),
            providers: None,
            config: None,
            request_id: "req-1".into(),
        }
    }

    async fn turn(&self, call: &Call, time: Duration) -> Result<Turn, OnceError> {
        let deadline = Instant::now() + time;
        self.idempotency.turn(call, key(), deadline).await
    }

    /// The turn of a call that nobody has answered.
    async fn front(&self, call: &Call, time: Duration) -> Front {
        match self.turn(call, time).await.unwrap() {
            Turn::Run(front) => front,
            Turn::Replay(answer) => panic!("answered: {answer:?}"),
        }
    }

    /// What is answered by a guest that counts, with this status and a body of so many bytes.
    async fn answered(&self, call: &Call, status: u16, bytes: usize) -> Result<Answer, OnceError> {
        let front = match self.turn(call, LONGEST).await? {
            Turn::Replay(answer) => return Ok(answer),
            Turn::Run(front) => front,
        };
        let run = async {
            self.runs.set(self.runs.get() + 1);
            Ok(response(status, self.runs.get(), bytes))
        };
        self.idempotency.answer(front, run).await
    }

    /// Which run of the guest the answer is of, and whether it is a replay.
    async fn run(&self, call: &Call, status: u16, bytes: usize) -> (u16, bool) {
        let answer = self.answered(call, status, bytes).await.unwrap();
        let run = answer.response.headers[0].value.parse().unwrap();
        assert_eq!(answer.response.status, status);
        let expected = encode(&response(status, run, bytes));
        assert_eq!(encode(&answer.response), expected);
        (run, answer.is_replay)
    }

    async fn set_state(&self, state: InstallState) {
        let change = self.stage.change();
        let id = self.install.install.id;
        let set = self.stage.registry.set_state(id, state, None, change);
        set.await.unwrap();
    }

    /// How many rows were ever written to the registry.
    async fn writes(&self) -> i64 {
        let count = self.stage.registry.database().read(|connection| {
            let count = connection.query_row("SELECT total_changes()", (), |row| row.get(0));
            count.map_err(DriverError::from)
        });
        count.await.unwrap()
    }
}

fn key() -> IdempotencyKey {
    "k".parse().unwrap()
}

/// Room for everything, but for `waiting` requests that wait.
fn limits(waiting: usize) -> IdempotencyLimits {
    let caps = Caps {
        running: 1_000,
        waiting,
    };
    let quota = AnswerQuota {
        answers: 1_000,
        bytes: 1 << 30,
    };
    IdempotencyLimits {
        longest_call: LONGEST,
        calls: Limits {
            process: caps,
            reserve: 0,
            tenant: caps,
            install: caps,
        },
        longest_wait: LONGEST,
        quotas: AnswerQuotas {
            install: quota,
            tenant: quota,
        },
    }
}

fn another_process(stage: &Stage, limits: IdempotencyLimits) -> Idempotency {
    let (registry, clock) = (Arc::clone(&stage.registry), Arc::clone(&stage.clock));
    let installs = stage.installs_with(alga_storage::Limits::default());
    Idempotency::new(registry, installs, clock, limits)
}

fn response(status: u16, run: u16, bytes: usize) -> Response {
    Response {
        status,
        headers: vec![Header {
            name: "x-run".to_owned(),
            value: run.to_string(),
        }],
        body: Some(vec![b'\n'; bytes]),
    }
}

/// What is said to be in the way.
fn in_the_way(answer: &Result<Turn, OnceError>) -> Option<(Crowd, Reason)> {
    match answer {
        Err(OnceError::Crowded(crowd, refusal)) => Some((*crowd, refusal.reason)),
        _ => None,
    }
}

fn is_refused_as_it_stops(answer: &Result<Turn, OnceError>) -> bool {
    in_the_way(answer).is_some_and(|(_, reason)| reason == Reason::Closed)
}

#[tokio::test]
async fn the_first_answer_is_given_again_for_a_day() {
    let play = Play::new().await;
    let call = play.call("/");
    assert_eq!(play.run(&call, 201, 3).await, (1, false));
    assert_eq!(play.run(&call, 201, 3).await, (1, true));
    let a_moment = Duration::from_millis(1);
    play.stage.clock.advance(KEPT.saturating_sub(a_moment));
    assert_eq!(play.run(&call, 201, 3).await, (1, true));
    play.stage.clock.advance(a_moment);
    assert_eq!(play.run(&call, 201, 3).await, (2, false));
}

#[tokio::test]
async fn what_is_worth_another_try_is_not_kept() {
    for (status, kept) in [
        (200, true),
        (499, true),
        (404, true),
        (429, false),
        (500, false),
        (599, false),
    ] {
        let play = Play::new().await;
        let call = play.call("/");
        assert_eq!(play.run(&call, status, 0).await, (1, false));
        let (run, is_replay) = play.run(&call, status, 0).await;
        assert_eq!((run == 1, is_replay), (kept, kept), "{status}");
    }
}

#[tokio::test]
async fn of_an_answer_that_is_too_large_it_is_known_that_it_was_given() {
    let head = encode(&response(200, 1, 0)).len();
    let play = Play::new().await;
    let call = play.call("/");
    let largest = MAX_ANSWER_BYTES - head;
    assert_eq!(play.run(&call, 200, largest).await, (1, false));
    assert_eq!(play.run(&call, 200, largest).await, (1, true));

    let play = Play::new().await;
    let call = play.call("/");
    assert_eq!(play.run(&call, 200, largest + 1).await, (1, false));
    let refused = play.answered(&call, 200, 0).await.unwrap_err();
    let size = MAX_ANSWER_BYTES as u64 + 1;
    assert!(
        matches!(refused, OnceError::NotKept { status: 200, bytes } if bytes == size),
        "{refused:?}"
    );
    assert_eq!(play.runs.get(), 1, "it was done again");
}

#[tokio::test]
async fn another_request_under_the_key_is_a_conflict() {
    let play = Play::new().await;
    play.run(&play.call("/"), 200, 0).await;
    let header = |name: &str| {
        vec![Header {
            name: name.to_owned(),
            value: "1".to_owned(),
        }]
    };
    let config = |name: &str| BTreeMap::from([(name.to_owned(), String::new())]);
    let changes: [fn(&mut Call); 9] = [
        |call| call.request.method = "PUT".to_owned(),
        |call| call.request.path = "/other".to_owned(),
        |call| call.request.query = Some(String::new()),
        |call| call.request.body = Some(Vec::new()),
        |call| call.request.body = Some(b"{}".to_vec()),
        |call| call.config = Some(BTreeMap::new()),
        |call| call.config = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        |call| call.providers = Some(Vec::new()),
        |call| call.providers = Some(vec!["alga.storage".to_owned()]),
    ];
    let mut calls = Vec::new();
    for change in changes {
        let mut call = play.call("/");
        change(&mut call);
        calls.push(call);
    }
    for name in ["x-seen", "content-type", "accept", "X-Request", "x-date"] {
        let mut call = play.call("/");
        call.request.headers = header(name);
        calls.push(call);
    }
    for call in &calls {
        let conflict = play.answered(call, 200, 0).await.unwrap_err();
        assert!(matches!(conflict, OnceError::OtherRequest), "{call:?}");
    }
    // No two of them are the same either.
    let mut digests: Vec<_> = calls.iter().map(digest).collect();
    let mut call = play.call("/");
    call.config = Some(config("a"));
    digests.push(digest(&call));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), calls.len() + 1);
}

#[tokio::test]
async fn what_an_honest_repeat_changes_makes_no_other_request() {
    let play = Play::new().await;
    let header = |name: &str, value: &str| Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut call = play.call("/");
    call.providers = Some(vec!["a".to_owned(), "b".to_owned()]);
    call.request.headers = vec![header("Traceparent", "1"), header("accept", "*/*")];
    play.run(&call, 200, 0).await;

    call.request.headers = vec![
        // The guest doesn't see this one.
        header("x-alga-actor", "somebody"),
        header("TRACEPARENT", "2"),
        header("tracestate", "2"),
        header("baggage", "2"),
        header("x-b3-traceid", "2"),
        header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        header("x-request-id", "2"),
        header("x-forwarded-for", "192.0.2.1"),
        header("via", "1.1 proxy"),
        header("Accept", "*/*"),
    ];
    call.providers = Some(["b", "a", "b"].map(str::to_owned).to_vec());
    call.request_id = "req-2".into();
    call.timeout = Some(Duration::from_secs(1));
    call.limits.fuel = Some(1);
    assert_eq!(play.run(&call, 200, 0).await, (1, true));
}

#[tokio::test]
async fn those_who_come_at_once_run_once() {
    let play = Play::new().await;
    let call = play.call("/");
    let calls = (0..20).map(|_| play.run(&call, 200, 0));
    let answers = join_all(calls).await;
    assert_eq!(play.runs.get(), 1);
    assert_eq!(
        answers.iter().filter(|(_, is_replay)| !is_replay).count(),
        1
    );
    assert_eq!(play.idempotency.lines.count(), 0);
}

#[tokio::test]
async fn another_process_is_waited_for() {
    let play = Play::new().await;
    let call = play.call("/");
    let other = another_process(&play.stage, limits(1_000));
    let Turn::Run(front) = other
        .turn(&call, key(), Instant::now() + LONGEST)
        .await
        .unwrap()
    else {
        panic!("nobody has answered")
    };
    let mut waiting = None;
    let run = async {
        // Asks, finds the request claimed, and goes on asking.
        let mut repeated = Box::pin(play.run(&call, 200, 0));
        tokio::select! {
            biased;
            answer = &mut repeated => panic!("answered: {answer:?}"),
            () = tokio::time::sleep(PAUSES.0 * 2) => {}
        }
        waiting = Some(repeated);
        Ok(response(200, 7, 0))
    };
    assert!(!other.answer(front, run).await.unwrap().is_replay);
    assert_eq!(waiting.unwrap().await, (7, true));
}

#[tokio::test]
async fn of_two_processes_that_found_nothing_one_answers() {
    let play = Play::new().await;
    let call = play.call("/");
    let other = another_process(&play.stage, limits(1_000));
    let theirs = other.turn(&call, key(), Instant::now() + LONGEST).await;
    let Turn::Run(theirs) = theirs.unwrap() else {
        panic!("nobody has answered")
    };
    let ours = play.front(&call, LONGEST).await;
    let run = async {
        let late = play.idempotency.answer(ours, async { unreachable!() });
        let late = late.await.unwrap_err();
        assert!(matches!(late, OnceError::InProgress), "{late:?}");
        Ok(response(200, 7, 0))
    };
    assert!(other.answer(theirs, run).await.is_ok());
    assert_eq!(play.run(&call, 200, 0).await, (7, true));
}

#[tokio::test]
async fn a_key_is_free_again_after_a_crash_once_its_lease_is_over() {
    let play = Play::new().await;
    let call = play.call("/");
    let request = KeyedRequest {
        install: call.who().install,
        key: key(),
        digest: digest(&call),
    };
    let now = play.stage.clock.now();
    let until = now.plus(play.idempotency.lease);
    let claimed = play.stage.registry.claim_request(&request, now, until);
    assert!(matches!(claimed.await, Ok(Claimed::Ours(_))));

    let waited = play.turn(&call, PAUSES.0 * 2).await.unwrap_err();
    assert!(matches!(waited, OnceError::InProgress), "{waited:?}");
    play.stage.clock.advance(LONGEST + KEEPING);
    assert_eq!(play.run(&call, 200, 0).await, (1, false));
}

#[tokio::test]
async fn a_panic_gives_the_claim_up() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let answer = play
        .idempotency
        .answer(front, async { panic!("of a call") });
    assert!(AssertUnwindSafe(answer).catch_unwind().await.is_err());
    // Long before the lease is over: the clock stands still.
    assert_eq!(play.run(&call, 200, 0).await, (1, false));
}

#[tokio::test]
async fn a_call_that_is_cut_off_gives_the_claim_up() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let (runs, running) = oneshot::channel();
    let answer = play.idempotency.answer(front, async {
        runs.send(()).unwrap();
        std::future::pending().await
    });
    tokio::select! {
        answer = answer => panic!("answered: {answer:?}"),
        running = running => running.unwrap(),
    }
    assert_eq!(play.run(&call, 200, 0).await, (1, false));
}

#[tokio::test]
async fn where_the_call_was_too_late_the_key_is_free() {
    let play = Play::new().await;
    let front = play.front(&play.call("/"), LONGEST).await;
    let answer = play
        .idempotency
        .answer(front, async { Err(RunError::Timeout.into()) });
    let late = answer.await.unwrap_err();
    assert!(
        matches!(
            late,
            OnceError::Execute(ExecuteError::Run(RunError::Timeout))
        ),
        "{late:?}"
    );
    assert_eq!(play.run(&play.call("/other"), 200, 0).await, (1, false));
}

#[tokio::test]
async fn until_a_call_may_run_nothing_is_written() {
    let play = Play::new().await;
    let before = play.writes().await;
    // As a call does that is refused then, or whose caller hangs up.
    drop(play.front(&play.call("/"), LONGEST).await);
    assert_eq!(play.writes().await, before);
    assert_eq!(play.run(&play.call("/other"), 200, 0).await, (1, false));
    assert!(play.writes().await > before);
    let before = play.writes().await;
    assert_eq!(play.run(&play.call("/other"), 200, 0).await, (1, true));
    assert_eq!(play.writes().await, before, "nor for a replay");
}

#[tokio::test]
async fn who_waits_in_line_waits_no_longer_than_allowed_and_leaves_it() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let waited = play.turn(&call, Duration::ZERO).await.unwrap_err();
    assert!(matches!(waited, OnceError::InProgress), "{waited:?}");
    assert_eq!(play.idempotency.lines.count(), 1);
    drop(front);
    assert_eq!(play.idempotency.lines.count(), 0);
}

#[tokio::test]
async fn as_many_wait_as_calls_may_and_no_more() {
    let play = Play::with(limits(2)).await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let mut waiting: Vec<_> = (0..2)
        .map(|_| Box::pin(play.turn(&call, LONGEST)))
        .collect();
    for repeat in &mut waiting {
        assert!(repeat.now_or_never().is_none());
    }
    let refused = play.turn(&call, LONGEST).await;
    assert_eq!(
        in_the_way(&refused),
        Some((Crowd::Repeats, Reason::Install))
    );
    // Who goes away makes room.
    waiting.pop();
    let mut last = Box::pin(play.turn(&call, LONGEST));
    assert!((&mut last).now_or_never().is_none());
    let answered = play
        .idempotency
        .answer(front, async { Ok(response(200, 1, 0)) });
    assert!(answered.await.is_ok());
    for repeat in waiting.into_iter().chain([last]) {
        assert!(matches!(repeat.await, Ok(Turn::Replay(_))));
    }
}

#[tokio::test]
async fn no_more_are_looked_up_at_once_than_there_is_memory_for() {
    let mut few = limits(1);
    few.longest_wait = Duration::ZERO;
    let play = Play::with(few).await;
    let call = play.call("/");
    play.run(&call, 200, 0).await;
    // Answers that somebody is still writing.
    let mut replays = Vec::new();
    for _ in 0..LOOK_UPS / 4 {
        replays.push(play.turn(&call, LONGEST).await.unwrap());
    }
    let refused = play.turn(&call, LONGEST).await;
    assert_eq!(
        in_the_way(&refused),
        Some((Crowd::LookUps, Reason::Install))
    );
    replays.pop();
    assert_eq!(play.run(&call, 200, 0).await, (1, true));
}

#[tokio::test]
async fn who_waits_is_refused_when_the_process_stops() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let mut in_line = Box::pin(play.turn(&call, LONGEST));
    assert!((&mut in_line).now_or_never().is_none());
    let other = another_process(&play.stage, limits(1_000));
    let run = async {
        let mut asking = Box::pin(other.turn(&call, key(), Instant::now() + LONGEST));
        tokio::select! {
            biased;
            turn = &mut asking => panic!("there is an answer: {turn:?}"),
            () = tokio::time::sleep(PAUSES.0 * 2) => {}
        }
        other.close();
        let refused = asking.await;
        assert!(is_refused_as_it_stops(&refused), "{refused:?}");
        Ok(response(200, 1, 0))
    };
    play.idempotency.close();
    let refused = in_line.await;
    assert!(is_refused_as_it_stops(&refused), "{refused:?}");
    // What has begun ends as ever; who comes is refused, be there an answer or not.
    assert!(play.idempotency.answer(front, run).await.is_ok());
    let refused = play.turn(&call, LONGEST).await;
    assert!(is_refused_as_it_stops(&refused), "{refused:?}");
}

#[tokio::test]
async fn an_answer_is_given_again_as_long_as_the_install_may_be_called() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let mut waiting = Box::pin(play.turn(&call, LONGEST));
    assert!((&mut waiting).now_or_never().is_none());
    let answered = play
        .idempotency
        .answer(front, async { Ok(response(200, 1, 0)) });
    answered.await.unwrap();
    play.set_state(InstallState::Disabled).await;
    let disabled = waiting.await.unwrap_err();
    assert!(
        matches!(disabled, OnceError::Execute(ExecuteError::Disabled)),
        "{disabled:?}"
    );
    play.set_state(InstallState::Enabled).await;
    // What it may do matters for what it does, not for what it has done.
    let (registry, change) = (&play.stage.registry, play.stage.change());
    let edit = InstallEdit::Grants(alga_registry::Grants::new());
    let edited = registry.edit_install(call.who().install, edit, None, change);
    edited.await.unwrap();
    assert_eq!(play.run(&call, 200, 0).await, (1, true));
}

#[tokio::test]
async fn an_install_that_is_gone_answers_nobody() {
    let play = Play::new().await;
    let call = play.call("/");
    let front = play.front(&call, LONGEST).await;
    let mut waiting = Box::pin(play.turn(&call, LONGEST));
    assert!((&mut waiting).now_or_never().is_none());
    play.set_state(InstallState::Uninstalled).await;
    let answer = play.idempotency.answer(front, async { unreachable!() });
    let gone = answer.await.unwrap_err();
    assert!(matches!(gone, OnceError::Uninstalled), "{gone:?}");
    let gone = waiting.await.unwrap_err();
    assert!(matches!(gone, OnceError::Uninstalled), "{gone:?}");
}
