use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use alga_host_api::Request;
use alga_model::TenantId;
use alga_storage::Limits;
use futures_util::FutureExt as _;

use super::*;
use crate::engine::RunLimits;
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
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let installs = stage.installs_with(Limits::default());
        Self {
            idempotency: another_process(&stage),
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

    /// What is answered by a guest that counts, with this status and a body of so many bytes.
    async fn answered(&self, call: &Call, status: u16, bytes: usize) -> Result<Answer, OnceError> {
        let deadline = Instant::now() + LONGEST;
        let key = "k".parse().unwrap();
        let turn = self.idempotency.turn(call, key, deadline).await?;
        let run = async |_| {
            self.runs.set(self.runs.get() + 1);
            Ok(response(status, self.runs.get(), bytes))
        };
        self.idempotency.answer(turn, run).await
    }

    /// Which run of the guest the answer is of, and whether it is a replay.
    async fn run(&self, call: &Call, status: u16, bytes: usize) -> (u16, bool) {
        let answer = self.answered(call, status, bytes).await.unwrap();
        let run = answer.response.headers[0].value.parse().unwrap();
        let expected = encode(&response(status, run, bytes));
        assert_eq!(encode(&answer.response), expected);
        (run, answer.is_replay)
    }
}

fn another_process(stage: &Stage) -> Idempotency {
    let (registry, clock) = (Arc::clone(&stage.registry), Arc::clone(&stage.clock));
    Idempotency::new(registry, clock, LONGEST)
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
async fn an_answer_is_kept_to_its_limit_and_given_beyond_it() {
    let head = encode(&response(200, 1, 0)).len();
    for (bytes, kept) in [
        (MAX_ANSWER_BYTES - head, true),
        (MAX_ANSWER_BYTES - head + 1, false),
    ] {
        let play = Play::new().await;
        let call = play.call("/");
        assert_eq!(play.run(&call, 200, bytes).await, (1, false));
        assert_eq!(play.run(&call, 200, bytes).await.1, kept, "{bytes}");
    }
}

#[tokio::test]
async fn another_request_under_the_key_is_a_conflict() {
    let play = Play::new().await;
    play.run(&play.call("/"), 200, 0).await;
    let header = |name: &str| Header {
        name: name.to_owned(),
        value: "1".to_owned(),
    };
    let changes: [fn(&mut Request); 5] = [
        |request| request.method = "PUT".to_owned(),
        |request| request.path = "/other".to_owned(),
        |request| request.query = Some(String::new()),
        |request| request.body = Some(Vec::new()),
        |request| request.body = Some(b"{}".to_vec()),
    ];
    for change in changes {
        let mut call = play.call("/");
        change(&mut call.request);
        let conflict = play.answered(&call, 200, 0).await.unwrap_err();
        assert!(matches!(conflict, OnceError::OtherRequest), "{call:?}");
    }
    let mut call = play.call("/");
    call.request.headers = vec![header("x-seen")];
    let conflict = play.answered(&call, 200, 0).await.unwrap_err();
    assert!(matches!(conflict, OnceError::OtherRequest), "{conflict:?}");
    // The guest doesn't see this one.
    call.request.headers = vec![header("x-alga-actor")];
    assert_eq!(play.run(&call, 200, 0).await, (1, true));
}

#[tokio::test]
async fn those_who_come_at_once_run_once() {
    let play = Play::new().await;
    let call = play.call("/");
    let calls = (0..20).map(|_| play.run(&call, 200, 0));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(play.runs.get(), 1);
    assert_eq!(
        answers.iter().filter(|(_, is_replay)| !is_replay).count(),
        1
    );
    assert!(play.idempotency.lines.lock().is_empty());
}

#[tokio::test]
async fn another_process_is_waited_for() {
    let play = Play::new().await;
    let call = play.call("/");
    let other = another_process(&play.stage);
    let deadline = Instant::now() + LONGEST;
    let turn = other
        .turn(&call, "k".parse().unwrap(), deadline)
        .await
        .unwrap();
    let mut waiting = None;
    let run = async |_| {
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
    assert!(!other.answer(turn, run).await.unwrap().is_replay);
    assert_eq!(waiting.unwrap().await, (7, true));
}

#[tokio::test]
async fn a_key_is_free_again_after_a_crash_once_its_lease_is_over() {
    let play = Play::new().await;
    let call = play.call("/");
    let key = || "k".parse().unwrap();
    let deadline = Instant::now() + LONGEST;
    let turn = play.idempotency.turn(&call, key(), deadline).await.unwrap();
    let crash = play
        .idempotency
        .answer(turn, async |_| panic!("the process is gone"));
    assert!(AssertUnwindSafe(crash).catch_unwind().await.is_err());

    let soon = Instant::now() + PAUSES.0 * 2;
    let turn = play.idempotency.turn(&call, key(), soon).await.unwrap();
    let waited = play
        .idempotency
        .answer(turn, async |_| unreachable!())
        .await;
    let timeout = ExecuteError::Run(RunError::Timeout);
    assert_eq!(waited.unwrap_err().to_string(), timeout.to_string());
    play.stage.clock.advance(LONGEST + KEEPING);
    assert_eq!(play.run(&call, 200, 0).await, (1, false));
}

#[tokio::test]
async fn who_waits_in_line_waits_no_longer_than_allowed_and_leaves_it() {
    let play = Play::new().await;
    let call = play.call("/");
    let key = || "k".parse().unwrap();
    let now = Instant::now();
    let front = play
        .idempotency
        .turn(&call, key(), now + LONGEST)
        .await
        .unwrap();
    let waited = play.idempotency.turn(&call, key(), now).await.unwrap_err();
    assert!(matches!(
        waited,
        OnceError::Execute(ExecuteError::Run(RunError::Timeout))
    ));
    assert_eq!(play.idempotency.lines.lock().len(), 1);
    drop(front);
    assert!(play.idempotency.lines.lock().is_empty());
}
