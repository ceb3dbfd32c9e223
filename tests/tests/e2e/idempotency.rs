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
async fn a_large_answer_is_given_but_not_kept() {
    let deployment = Deployment::started();
    for (bytes, kept) in [(1_000_000, true), (2_000_000, false)] {
        let guest = guest::body_of(bytes);
        let installed = deployment.install(&format!("com.example.of{bytes}"), &guest);
        let envelope = installed.envelope(&get("/"));
        for again in [false, true] {
            let (headers, body) = answered(keyed(&deployment, "k", &envelope)).await;
            let answer = Answer::of(&serde_json::from_str(&body).unwrap());
            assert_eq!(answer.body.len(), bytes as usize);
            assert_eq!(headers.contains_key(REPLAY), again && kept, "{bytes}");
        }
    }
}

#[tokio::test]
async fn what_has_begun_goes_on_when_its_caller_hangs_up() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_MAX_INSTANCES", "1");
    deployment.set("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000");
    deployment.start();
    let (notes, line) = note(&deployment).await;
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let mut busy = looping.envelope(&get("/"));
    busy["limits"] = json!({ "timeout_ms": 2000 });
    let hanging_up = async {
        deployment.logged(guest::LOOPING, 1).await;
        tokio::select! {
            answer = keyed(&deployment, "k", &line).send() => panic!("answered: {answer:?}"),
            () = async {
                while !deployment.metrics().await.contains("alga_admission_waiting 1\n") {}
            } => {}
        }
        deployment
            .logged("given up before it was answered", 1)
            .await;
        let (headers, _) = answered(keyed(&deployment, "k", &line)).await;
        assert_eq!(headers[REPLAY], "true");
    };
    tokio::join!(deployment.execute(&busy), hanging_up);
    assert_eq!(revision(&deployment, &notes).await, 2);
}
