//! Requests with a key are answered once.

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::deployment::{Answer, Deployment, Installed, get, refusal, send};

const REPLAY: &str = "x-idempotent-replay";

fn keyed(deployment: &Deployment, key: &str, envelope: &Value) -> RequestBuilder {
    deployment
        .request(Method::POST, "/v1/execute")
        .header("x-idempotency-key", key)
        .json(envelope)
}

/// The headers and the body of what was answered as it should.
async fn answered(request: RequestBuilder) -> (HeaderMap, String) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    (headers, response.text().await.unwrap())
}

/// The example with a note, to which each of these envelopes adds a line.
async fn note(deployment: &Deployment) -> (Installed, Value) {
    let notes = deployment.install_notes();
    let new = json!({ "id": "first", "title": "Groceries", "text": "milk" });
    let made = deployment.call(&notes, send("POST", "/notes", &new)).await;
    assert_eq!(made.status, 201);
    let line = send("POST", "/notes/first/lines", &json!({ "line": "bread" }));
    let envelope = notes.envelope(&line);
    (notes, envelope)
}

async fn revision(deployment: &Deployment, notes: &Installed) -> u64 {
    let note = deployment.call(notes, get("/notes/first")).await;
    note.json()["revision"].as_u64().unwrap()
}

#[tokio::test]
async fn a_request_that_is_repeated_gets_the_same_answer() {
    let mut deployment = Deployment::started();
    let (notes, line) = note(&deployment).await;
    let (headers, first) = answered(keyed(&deployment, "k", &line)).await;
    assert!(!headers.contains_key(REPLAY));
    let envelope = serde_json::from_str(&first).unwrap();
    assert_eq!(Answer::of(&envelope).json()["revision"], 2);
    // In the same process, and in one that comes after a power cut.
    for _ in 0..2 {
        let (headers, again) = answered(keyed(&deployment, "k", &line)).await;
        assert_eq!(headers[REPLAY], "true");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(again, first);
        deployment.kill();
        deployment.start();
    }
    assert_eq!(revision(&deployment, &notes).await, 2);
    // Another key is another request, and without one each is.
    answered(keyed(&deployment, "K", &line)).await;
    deployment.execute(&line).await;
    deployment.execute(&line).await;
    assert_eq!(revision(&deployment, &notes).await, 5);
    let metrics = deployment.metrics().await;
    let kept = "alga_idempotency_requests_total{outcome=\"kept\"} 1\n";
    assert!(metrics.contains(kept), "{metrics}");
}

#[tokio::test]
async fn a_call_whose_time_is_over_once_its_key_is_claimed_is_known_of() {
    const CALLS: usize = 20;
    let deployment = Deployment::started();
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let mut envelope = looping.envelope(&get("/"));
    // Shorter than it takes to make a claim durable, most of the time.
    envelope["limits"] = json!({ "timeout_ms": 1 });
    for number in 0..CALLS {
        let late = keyed(&deployment, &format!("k-{number}"), &envelope);
        let late = refusal(late.send().await.unwrap()).await;
        assert_eq!(late, (504, "TIMEOUT".to_owned()));
    }
    let metrics = deployment.metrics().await;
    let counted =
        format!("alga_engine_invocation_duration_seconds_count{{outcome=\"TIMEOUT\"}} {CALLS}\n");
    assert!(metrics.contains(&counted), "{metrics}");
    let last = deployment.last_invocation(&looping).await;
    assert_eq!(last["outcome"], "TIMEOUT");
    assert_eq!(deployment.log().matches("TIMEOUT").count(), CALLS);
}

#[tokio::test]
async fn requests_at_once_are_run_once() {
    let deployment = Deployment::started();
    let (notes, line) = note(&deployment).await;
    let calls = join_all((0..16).map(|_| answered(keyed(&deployment, "k", &line))));
    let answers = calls.await;
    let firsts = answers
        .iter()
        .filter(|(headers, _)| !headers.contains_key(REPLAY));
    assert_eq!(firsts.count(), 1);
    assert!(answers.iter().all(|(_, body)| *body == answers[0].1));
    assert_eq!(revision(&deployment, &notes).await, 2);
}

#[tokio::test]
async fn a_key_is_good_for_one_request_of_one_install() {
    let mut deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let other = deployment.install("com.example.other", &guest::echo());
    let post = |body: &str| send("POST", "/", &json!(body));
    answered(keyed(&deployment, "k", &installed.envelope(&post("a")))).await;
    let request = keyed(&deployment, "k", &installed.envelope(&post("b")));
    let conflict = (409, "IDEMPOTENCY_CONFLICT".to_owned());
    assert_eq!(refusal(request.send().await.unwrap()).await, conflict);
    answered(keyed(&deployment, "k", &other.envelope(&post("b")))).await;

    let envelope = installed.envelope(&post("a"));
    for key in ["", "a b", "\u{e4}", &"k".repeat(256)] {
        let request = keyed(&deployment, key, &envelope).send().await.unwrap();
        let refused = refusal(request).await;
        assert_eq!(refused, (400, "BAD_REQUEST".to_owned()), "{key:?}");
    }
    answered(keyed(&deployment, &"k".repeat(255), &envelope)).await;

    // Who is disabled gives no answer, old ones neither.
    deployment.kill();
    deployment.ok(&["install", "disable", &installed.install]);
    deployment.start();
    let request = keyed(&deployment, "k", &envelope).send().await.unwrap();
    let disabled = (409, "INSTALL_DISABLED".to_owned());
    assert_eq!(refusal(request).await, disabled);
}

#[tokio::test]
async fn what_failed_can_be_tried_again_under_its_key() {
    let deployment = Deployment::started();
    let trapping = deployment.install("com.example.trap", &guest::trap());
    for path in ["/", "/other"] {
        let request = keyed(&deployment, "k", &trapping.envelope(&get(path)));
        let refused = refusal(request.send().await.unwrap()).await;
        assert_eq!(refused, (502, "GUEST_TRAP".to_owned()));
    }
}

#[tokio::test]
async fn a_large_answer_is_given_once_and_then_told_of() {
    let deployment = Deployment::started();
    for (bytes, kept) in [(1_000_000_u32, true), (2_000_000, false)] {
        let guest = guest::body_of(bytes);
        let installed = deployment.install(&format!("com.example.of{bytes}"), &guest);
        let envelope = installed.envelope(&get("/"));
        let (headers, body) = answered(keyed(&deployment, "k", &envelope)).await;
        assert!(!headers.contains_key(REPLAY));
        let answer = Answer::of(&serde_json::from_str(&body).unwrap());
        assert_eq!(answer.body.len(), bytes as usize);
        if kept {
            let (headers, again) = answered(keyed(&deployment, "k", &envelope)).await;
            assert_eq!(headers[REPLAY], "true");
            assert_eq!(again, body);
            continue;
        }
        let again = keyed(&deployment, "k", &envelope).send().await.unwrap();
        assert_eq!(again.status(), 409);
        let error = again.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["code"], "IDEMPOTENCY_ANSWER_NOT_KEPT");
        assert_eq!(error["details"]["status"], 200);
        assert!(
            error["details"]["bytes"].as_u64().unwrap() > bytes.into(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_kept_for_an_install_has_its_bounds() {
    for (setting, again) in [
        ("ALGA_IDEMPOTENCY_ANSWERS_PER_INSTALL", None),
        ("ALGA_IDEMPOTENCY_ANSWERS_PER_TENANT", None),
        ("ALGA_IDEMPOTENCY_BYTES_PER_INSTALL", Some(409)),
        ("ALGA_IDEMPOTENCY_BYTES_PER_TENANT", Some(409)),
    ] {
        let mut deployment = Deployment::new();
        // One answer of the example fits into these bytes, two do not.
        let most = if again.is_some() { "300" } else { "1" };
        deployment.set(setting, most);
        deployment.start();
        let (notes, line) = note(&deployment).await;
        for key in ["a", "b"] {
            answered(keyed(&deployment, key, &line)).await;
        }
        let (headers, _) = answered(keyed(&deployment, "b", &line)).await;
        assert!(headers.contains_key(REPLAY), "{setting}: the last one");
        let first = keyed(&deployment, "a", &line).send().await.unwrap();
        match again {
            None => assert_eq!(first.status(), 200, "{setting}"),
            Some(status) => assert_eq!(first.status(), status, "{setting}"),
        }
        // Who is forgotten is done again; who left a mark is not.
        let lines = 3 + u64::from(again.is_none());
        assert_eq!(revision(&deployment, &notes).await, lines, "{setting}");
    }
}

#[tokio::test]
async fn a_repeat_may_come_another_way() {
    let deployment = Deployment::started();
    let (notes, mut line) = note(&deployment).await;
    answered(keyed(&deployment, "k", &line)).await;
    line["http"]["headers"]["traceparent"] =
        json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    line["http"]["headers"]["x-forwarded-for"] = json!("192.0.2.1");
    line["context"]["request_id"] = json!("e2e-2");
    line["limits"] = json!({ "timeout_ms": 5000 });
    let (headers, _) = answered(keyed(&deployment, "k", &line)).await;
    assert_eq!(headers[REPLAY], "true");
    for (pointer, value) in [
        ("/context/config", json!({ "greeting": "Hi" })),
        ("/providers", json!([])),
    ] {
        let mut other = line.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        other.pointer_mut(parent).unwrap()[member] = value;
        let request = keyed(&deployment, "k", &other).send().await.unwrap();
        let conflict = (409, "IDEMPOTENCY_CONFLICT".to_owned());
        assert_eq!(refusal(request).await, conflict, "{pointer}");
    }
    assert_eq!(revision(&deployment, &notes).await, 2);
}

#[tokio::test]
async fn an_answer_goes_with_its_install() {
    let deployment = Deployment::started();
    let (notes, line) = note(&deployment).await;
    answered(keyed(&deployment, "k", &line)).await;
    let path = format!("/v1/installs/{}", notes.install);
    let edit = async |state: &str| {
        let request = deployment.admin(Method::PATCH, &path);
        let edited = request.json(&json!({ "state": state })).send().await;
        assert_eq!(edited.unwrap().status(), 200);
    };
    let again = async || keyed(&deployment, "k", &line).send().await.unwrap();
    edit("disabled").await;
    let disabled = (409, "INSTALL_DISABLED".to_owned());
    assert_eq!(refusal(again().await).await, disabled);
    edit("enabled").await;
    assert_eq!(again().await.headers()[REPLAY], "true");
    let gone = deployment.admin(Method::DELETE, &path).send().await;
    assert_eq!(gone.unwrap().status(), 200);
    let unknown = (404, "NOT_FOUND".to_owned());
    assert_eq!(refusal(again().await).await, unknown);
}

#[tokio::test]
async fn repeats_that_wait_are_few_and_told_that_it_takes_long() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ADMISSION_INSTALL_QUEUE", "2");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let lasting = |timeout_ms: u64| {
        let mut envelope = looping.envelope(&get("/"));
        envelope["limits"] = json!({ "timeout_ms": timeout_ms });
        envelope
    };
    let first = async {
        refusal(
            keyed(&deployment, "k", &lasting(5_000))
                .send()
                .await
                .unwrap(),
        )
        .await
    };
    let repeats = async {
        deployment.logged(guest::LOOPING, 1).await;
        let envelope = lasting(500);
        let repeats = join_all((0..5).map(async |_| {
            let answer = keyed(&deployment, "k", &envelope).send().await.unwrap();
            assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
            refusal(answer).await
        }));
        let mut refusals = repeats.await;
        refusals.sort();
        refusals
    };
    let (first, repeats) = tokio::join!(first, repeats);
    assert_eq!(first, (504, "TIMEOUT".to_owned()));
    let waited = (409, "IDEMPOTENCY_IN_PROGRESS".to_owned());
    let refused = (429, "CONCURRENCY_LIMITED".to_owned());
    let mut expected = vec![waited; 2];
    expected.extend(vec![refused; 3]);
    assert_eq!(repeats, expected);
}

#[tokio::test]
async fn what_has_begun_goes_on_when_its_caller_hangs_up() {
    let deployment = Deployment::started();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let mut envelope = looping.envelope(&get("/"));
    envelope["limits"] = json!({ "timeout_ms": 2000 });
    tokio::select! {
        answer = keyed(&deployment, "k", &envelope).send() => panic!("answered: {answer:?}"),
        _ = deployment.logged(guest::LOOPING, 1) => {}
    }
    deployment
        .logged("given up before it was answered", 1)
        .await;
    let log = deployment.logged("the extension gave no answer", 1).await;
    assert!(!log.contains("CANCELLED"), "{log}");
}

#[tokio::test]
async fn who_hangs_up_before_it_runs_leaves_nothing() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_MAX_INSTANCES", "1");
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "60000");
    deployment.set("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000");
    deployment.start();
    let (notes, line) = note(&deployment).await;
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let busy = looping.envelope(&get("/"));
    let script = async {
        deployment.until_there(1, 0).await;
        let keys: Vec<_> = (0..20).map(|key| key.to_string()).collect();
        let waiting = keys.iter().map(|key| keyed(&deployment, key, &line).send());
        tokio::select! {
            answers = join_all(waiting) => panic!("answered: {answers:?}"),
            () = deployment.until_there(1, 20) => {}
        }
        deployment.until_there(1, 0).await;
    };
    tokio::select! {
        answer = deployment.execute(&busy) => panic!("answered: {answer:?}"),
        () = script => {}
    }
    deployment.until_there(0, 0).await;
    assert_eq!(revision(&deployment, &notes).await, 1);
    // The keys belong to nobody.
    let other = notes.envelope(&get("/notes/first"));
    let (headers, _) = answered(keyed(&deployment, "0", &other)).await;
    assert!(!headers.contains_key(REPLAY));
}
