//! Guests that misbehave: always a clear code, and the process goes on.

use std::time::{Duration, Instant};

use alga_e2e::guest::{self, Behaviour};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::deployment::{Deployment, Installed, get, refusal};

fn small() -> Deployment {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "1000");
    deployment.set("ALGA_ENGINE_MEMORY_MB", "16");
    deployment.start();
    deployment
}

/// What becomes of a guest that does what it does.
#[derive(Debug, PartialEq)]
enum End {
    /// It answers with this status.
    Answers(u64),
    /// It is stopped, or its answer is none: status and code.
    Fails(u16, &'static str),
    /// It is refused when it is published, with these words.
    Refused(&'static str),
}

/// Without a wildcard: a guest without a known end doesn't compile.
const fn end_of(behaviour: Behaviour) -> End {
    match behaviour {
        Behaviour::Compute
        | Behaviour::Tell
        | Behaviour::Echo
        | Behaviour::EchoRequest
        | Behaviour::GivenHeaders
        | Behaviour::LogFlood
        | Behaviour::LogLongLines
        | Behaviour::LookOutside
        | Behaviour::NestedLoops
        | Behaviour::OutputFlood
        | Behaviour::OutputWithoutEnd
        | Behaviour::StraightLine => End::Answers(200),
        Behaviour::AnswerMisaligned
        | Behaviour::AnswerNotText
        | Behaviour::AnswerOutOfRange
        | Behaviour::CallFromDeep
        | Behaviour::DeepRecursion
        | Behaviour::EmptyHeaders
        | Behaviour::Exit
        | Behaviour::ManyKeys
        | Behaviour::PollableFlood
        | Behaviour::RandomFlood
        | Behaviour::ReallocAnywhere
        | Behaviour::ReallocCallsHost
        | Behaviour::StreamFlood
        | Behaviour::Trap
        | Behaviour::TrapInStart => End::Fails(502, "GUEST_TRAP"),
        Behaviour::BodyOf | Behaviour::NonsenseStatus => End::Fails(502, "GUEST_NONSENSE"),
        Behaviour::ComputeBetweenWaits
        | Behaviour::ComputeThenSleep
        | Behaviour::EndlessLoop
        | Behaviour::LogThenLoop
        | Behaviour::LoopAfterAnswer
        | Behaviour::LoopInStart
        | Behaviour::ReallocLoop
        | Behaviour::Sleep => End::Fails(504, "TIMEOUT"),
        Behaviour::GrowMemory | Behaviour::GrowTable => End::Fails(507, "MEMORY_LIMIT"),
        Behaviour::ClockStorm | Behaviour::StorageStorm => End::Fails(507, "HOST_CALL_LIMIT"),
        Behaviour::CoreModule => End::Refused("this is a core module, not a component"),
        Behaviour::LargeMemory => End::Refused("memory"),
        Behaviour::LargeTable => End::Refused("table"),
        Behaviour::ManyInstances => End::Refused("instances"),
        Behaviour::ManyMemories => End::Refused("memories"),
        Behaviour::ManyTables => End::Refused("tables"),
        Behaviour::OtherHandler | Behaviour::WithoutHandler => {
            End::Refused("alga:extension/handler")
        }
        Behaviour::UnknownImport => End::Refused("evil:host/shell"),
    }
}

#[tokio::test]
async fn every_guest_ends_as_it_is_said_and_leaves_nothing_behind() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "8000");
    deployment.set("ALGA_ENGINE_MEMORY_MB", "16");
    deployment.set("ALGA_ENGINE_HOST_CALLS", "12000");
    // What goes beyond is refused at once, so that the calls come to their limit before the time does.
    deployment.set("ALGA_STORAGE_RATES_READ_BURST", "100");
    // More are opened when they are needed, and stay open.
    deployment.set("ALGA_STORAGE_READ_CONNECTIONS", "1");
    deployment.start();
    let good = deployment.install("com.example.good", &guest::echo());
    let mut guests = Vec::new();
    for behaviour in Behaviour::ALL {
        let extension = format!("com.example.{}", behaviour.name().replace('_', "-"));
        let bundle = deployment.pack(&extension, "1.0.0", &behaviour.component());
        match end_of(behaviour) {
            End::Refused(words) => {
                let said = deployment.fails(&["bundle", "add", bundle.to_str().unwrap()]);
                assert!(
                    said.contains("INVALID_COMPONENT") && said.contains(words),
                    "{behaviour:?}: {said}"
                );
            }
            end => guests.push((behaviour, deployment.publish(&extension, &bundle), end)),
        }
    }
    // The first round opens what the process keeps open; the second must leave no more than that.
    round(&deployment, &guests, &good).await;
    let before = deployment.process().footprint();
    round(&deployment, &guests, &good).await;
    deployment.process().until_no_more_than(before).await;
    let log = deployment.log();
    assert!(
        log.contains("wasm backtrace"),
        "the backtrace of a trap is in the log"
    );
    assert!(!log.contains("panicked"), "{log}");
}

/// All of them at once. Others are served while they run and afterwards.
async fn round(deployment: &Deployment, guests: &[(Behaviour, Installed, End)], good: &Installed) {
    let ends = guests.iter().map(async |(behaviour, installed, expected)| {
        let end = ended(deployment, &installed.envelope(&get("/"))).await;
        assert_eq!(end, expected.shown(), "{behaviour:?}");
        assert_eq!(deployment.call(good, get("/")).await.status, 200);
    });
    join_all(ends).await;
    deployment.until_there(0, 0).await;
}

/// How a call ended, as [`End::shown`] says it.
async fn ended(deployment: &Deployment, envelope: &Value) -> String {
    let response = deployment.execute(envelope).await;
    let status = response.status();
    if !status.is_success() {
        let (status, code) = refusal(response).await;
        return format!("{status} {code}");
    }
    let answer: Value = response.json().await.unwrap();
    format!("answered {}", answer["status"])
}

impl End {
    fn shown(&self) -> String {
        match self {
            Self::Answers(status) => format!("answered {status}"),
            Self::Fails(status, code) => format!("{status} {code}"),
            Self::Refused(words) => format!("refused as {words}"),
        }
    }
}

#[tokio::test]
async fn a_full_process_says_so_and_recovers() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "4000");
    deployment.set("ALGA_ENGINE_MAX_INSTANCES", "1");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let good = deployment.install("com.example.good", &guest::echo());
    let envelope = looping.envelope(&get("/"));
    let looping = deployment.refusal(&envelope);
    let refused = async {
        deployment.logged(guest::LOOPING, 1).await;
        let start = Instant::now();
        let response = deployment.execute(&good.envelope(&get("/"))).await;
        // Long before the loop ends; about a second is what it waits for its turn.
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(refusal(response).await, (503, "OVERLOADED".to_owned()));
    };
    let (looped, ()) = tokio::join!(looping, refused);
    assert_eq!(looped, (504, "TIMEOUT".to_owned()));
    assert_eq!(deployment.call(&good, get("/")).await.status, 200);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_dropped_and_counted() {
    for flood in [
        guest::log_flood(10_000),
        guest::output_flood("stdout", 10_000),
        guest::output_flood("stderr", 10_000),
    ] {
        let deployment = small();
        let flood = deployment.install("com.example.flood", &flood);
        assert_eq!(deployment.call(&flood, get("/")).await.status, 200);
        let log = deployment.log();
        assert_eq!(log.matches("\"message\":\"flood\"").count(), 256, "{log}");
        assert!(log.contains("\"dropped_lines\":9744"), "{log}");
    }
}

#[tokio::test]
async fn log_lines_are_cut_and_have_so_many_bytes_together() {
    const LINE: usize = 8 << 10;
    for (of, guest, letter, lines, dropped) in [
        ("one", guest::log_long_lines(1, 10 << 20), "x", 1, 0),
        ("many", guest::log_long_lines(20, 100_000), "x", 8, 12),
        ("whole", guest::log_long_lines(9, LINE), "x", 8, 1),
        ("output", guest::output_without_end(1_000), "y", 1, 0),
    ] {
        let deployment = small();
        let flood = deployment.install("com.example.flood", &guest);
        assert_eq!(deployment.call(&flood, get("/")).await.status, 200);
        let log = deployment.log();
        let full = format!("\"message\":\"{}\"", letter.repeat(LINE));
        assert_eq!(log.matches(&full).count(), lines, "{of}");
        assert!(!log.contains(&letter.repeat(LINE + 1)), "{of}");
        let told = log.split("\"dropped_lines\":").nth(1);
        let told = told.map_or(0, |told| {
            let digits = told.split(|character: char| !character.is_ascii_digit());
            digits.clone().next().unwrap().parse::<usize>().unwrap()
        });
        assert_eq!(told, dropped, "{of}");
    }
}

#[tokio::test]
async fn an_answer_is_allowed_to_its_limit() {
    let deployment = small();
    let installed = deployment.install("com.example.body", &guest::body_of(guest::MAX_BODY_BYTES));
    let answer = deployment.call(&installed, get("/")).await;
    assert_eq!(answer.body.len(), guest::MAX_BODY_BYTES as usize);
}

#[tokio::test]
async fn headers_of_an_answer_are_allowed_to_their_limits_and_no_further() {
    let deployment = small();
    let name = "x-large";
    let longest = "v".repeat(guest::MAX_HEADER_BYTES - name.len());
    let longer = format!("{longest}v");
    for (of, component, fits) in [
        ("few", guest::many_headers(20), true),
        ("most", guest::many_headers(guest::MAX_HEADERS), true),
        ("more", guest::many_headers(guest::MAX_HEADERS + 1), false),
        ("many", guest::many_headers(1000), false),
        ("longest", guest::answer_with(&[(name, &longest)]), true),
        ("longer", guest::answer_with(&[(name, &longer)]), false),
    ] {
        let installed = deployment.install(&format!("com.example.{of}"), &component);
        let envelope = installed.envelope(&get("/"));
        let plain = plainly(&deployment, &installed).await;
        if fits {
            assert_eq!(deployment.execute(&envelope).await.status(), 200, "{of}");
            assert!(plain.starts_with("HTTP/1.1 200 "), "{of}: {plain}");
        } else {
            let refused = deployment.refusal(&envelope).await;
            assert_eq!(refused, (502, "GUEST_NONSENSE".to_owned()), "{of}");
            assert!(plain.starts_with("HTTP/1.1 502 "), "{of}: {plain}");
            assert!(plain.contains("\"GUEST_NONSENSE\""), "{of}: {plain}");
        }
    }
    assert!(
        !deployment.log().contains("panicked"),
        "{}",
        deployment.log()
    );
}

/// All of a plain answer. The client of the other tests reads no more than 100 headers.
async fn plainly(deployment: &Deployment, installed: &Installed) -> String {
    let (install, token) = (&installed.install, deployment.token());
    let request = format!(
        "GET /v1/installs/{install}/http/ HTTP/1.1\r\nhost: runner\r\n\
         authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let mut connection = deployment.connect().await;
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_can_not_run_here_is_refused_when_it_is_published() {
    let deployment = Deployment::new();
    let truncated = guest::echo()[..200].to_vec();
    for (name, component, said) in [
        ("import", guest::unknown_import(), "evil:host/shell"),
        ("large", guest::large_memory(2049), "memory"),
        ("truncated", truncated, ""),
        ("empty", Vec::new(), ""),
        ("text", b"not wasm at all".to_vec(), ""),
    ] {
        let extension = format!("com.example.{name}");
        let bundle = deployment.pack(&extension, "1.0.0", &component);
        let error = deployment.fails(&["bundle", "add", bundle.to_str().unwrap()]);
        assert!(
            error.contains("INVALID_COMPONENT") && error.contains(said),
            "{name}: {error}"
        );
        let verified = deployment.fails(&["bundle", "verify", bundle.to_str().unwrap()]);
        assert!(verified.contains(said), "{name}: {verified}");
        let missing = deployment.fails(&[
            "install",
            "create",
            "--tenant",
            &uuid::Uuid::new_v4().to_string(),
            "--extension",
            &extension,
        ]);
        assert!(missing.contains("bundle add"), "{missing}");
    }
}

#[tokio::test]
async fn a_guest_can_not_see_what_another_call_left() {
    let deployment = small();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let first = json!({"method": "POST", "path": "/", "headers": {"x-secret-of-first": "1"}, "body_b64": "c2VjcmV0"});
    assert_eq!(deployment.call(&installed, first).await.body, b"secret");
    let second = deployment.call(&installed, get("/")).await;
    assert_eq!(
        (second.body.as_slice(), &second.headers),
        (b"".as_slice(), &json!({}))
    );
}

#[tokio::test]
async fn a_guest_that_waits_is_stopped_at_its_deadline() {
    let deployment = small();
    let asleep = guest::sleep(60_000_000_000_u64);
    let asleep = deployment.install("com.example.asleep", &asleep);
    let awake = deployment.install("com.example.awake", &guest::sleep(1_000_000));
    assert_eq!(deployment.call(&awake, get("/")).await.status, 200);
    for timeout_ms in [100, 1_000] {
        let mut envelope = asleep.envelope(&get("/"));
        envelope["limits"] = json!({ "timeout_ms": timeout_ms });
        let start = Instant::now();
        let refused = deployment.refusal(&envelope).await;
        assert_eq!(refused, (504, "TIMEOUT".to_owned()));
        let took = start.elapsed();
        assert!(
            (timeout_ms..timeout_ms + 2_000).contains(&took.as_millis()),
            "{took:?} for {timeout_ms} ms"
        );
    }
}

#[tokio::test]
async fn host_calls_are_allowed_to_their_limit_and_no_further() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "60000");
    deployment.start();
    for (calls, fits) in [(50_000, true), (50_001, false), (100_000, false)] {
        let name = format!("com.example.calls{calls}");
        let installed = deployment.install(&name, &guest::clock_storm(calls));
        let ended = ended(&deployment, &installed.envelope(&get("/"))).await;
        let expected = if fits {
            "answered 200"
        } else {
            "507 HOST_CALL_LIMIT"
        };
        assert_eq!(ended, expected, "{calls} calls");
    }
}

#[tokio::test]
async fn what_a_guest_hands_over_and_holds_is_bounded() {
    let deployment = small();
    for (name, guest, expected) in [
        ("exits", guest::exit(1), "502 GUEST_TRAP"),
        ("random", guest::random_flood(64 << 10), "answered 200"),
        (
            "more-random",
            guest::random_flood((64 << 10) + 1),
            "502 GUEST_TRAP",
        ),
        ("streams", guest::stream_flood(1_024), "answered 200"),
        ("more-streams", guest::stream_flood(1_025), "502 GUEST_TRAP"),
        // A list of the guest's is copied before any limit of a host interface can look at it.
        ("line", guest::log_long_lines(1, 13 << 20), "answered 200"),
        (
            "longer-line",
            guest::log_long_lines(1, 15 << 20),
            "502 GUEST_TRAP",
        ),
        ("keys", guest::many_keys(1_000), "answered 200"),
        ("headers", guest::empty_headers(1), "502 GUEST_NONSENSE"),
        ("page", guest::large_memory(256), "answered 200"),
        (
            "past-page",
            guest::answer_out_of_range(65_536, 1),
            "502 GUEST_TRAP",
        ),
        (
            "at-page",
            guest::answer_out_of_range(65_535, 1),
            "answered 200",
        ),
        (
            "aligned",
            guest::answer_misaligned(16),
            "502 GUEST_NONSENSE",
        ),
        ("beyond", guest::answer_misaligned(65_536), "502 GUEST_TRAP"),
        ("low", guest::nonsense_status(199), "502 GUEST_NONSENSE"),
        ("least", guest::nonsense_status(200), "answered 200"),
        ("most", guest::nonsense_status(599), "answered 599"),
        ("high", guest::nonsense_status(600), "502 GUEST_NONSENSE"),
        ("odd", guest::realloc_anywhere(1_025), "502 GUEST_TRAP"),
    ] {
        let installed = deployment.install(&format!("com.example.{name}"), &guest);
        let ended = ended(&deployment, &installed.envelope(&get("/"))).await;
        assert_eq!(ended, expected, "{name}");
    }
    assert!(
        !deployment.log().contains("panicked"),
        "{}",
        deployment.log()
    );
}

#[tokio::test]
async fn what_is_compiled_already_is_refused_where_it_has_no_room_any_more() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.large", &guest::large_memory(256));
    deployment.set("ALGA_ENGINE_MEMORY_MB", "8");
    deployment.start();
    let refused = deployment.refusal(&installed.envelope(&get("/"))).await;
    assert_eq!(refused, (502, "INVALID_COMPONENT".to_owned()));
}
