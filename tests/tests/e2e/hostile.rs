//! Guests that misbehave: always a clear code, and the process goes on.

use std::time::{Duration, Instant};

use alga_e2e::guest;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::deployment::{Deployment, Installed, get, refusal};

fn small() -> Deployment {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "1000");
    deployment.set("ALGA_ENGINE_MEMORY_MB", "16");
    deployment.start();
    deployment
}

#[tokio::test]
async fn each_way_to_fail_has_its_code_and_the_process_lives() {
    let deployment = small();
    let good = deployment.install("com.example.good", &guest::echo());
    for (name, component, status, code) in [
        ("trap", guest::trap(), 502, "GUEST_TRAP"),
        ("loop", guest::endless_loop(), 504, "TIMEOUT"),
        ("memory", guest::grow_memory(), 507, "MEMORY_LIMIT"),
        ("table", guest::grow_table(), 507, "MEMORY_LIMIT"),
        ("recursion", guest::deep_recursion(), 502, "GUEST_TRAP"),
        ("start", guest::trap_in_start(), 502, "GUEST_TRAP"),
        ("status", guest::nonsense_status(), 502, "GUEST_NONSENSE"),
        ("body", guest::large_body(), 502, "GUEST_NONSENSE"),
        ("storm", guest::storage_storm(), 504, "TIMEOUT"),
    ] {
        let installed = deployment.install(&format!("com.example.{name}"), &component);
        let refused = deployment.refusal(&installed.envelope(&get("/"))).await;
        assert_eq!(refused, (status, code.to_owned()), "{name}");
        assert_eq!(
            deployment.call(&good, get("/")).await.status,
            200,
            "after {name}"
        );
    }
    let log = deployment.log();
    assert!(
        log.contains("wasm backtrace"),
        "the backtrace of a trap is in the log"
    );
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_looping_neighbour_does_not_stop_others() {
    let deployment = small();
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let good = deployment.install("com.example.good", &guest::echo());
    let envelope = looping.envelope(&get("/"));
    let looping = async { join_all((0..16).map(|_| deployment.refusal(&envelope))).await };
    let answering = async {
        for _ in 0..50 {
            assert_eq!(deployment.call(&good, get("/")).await.status, 200);
        }
    };
    let (refused, ()) = tokio::join!(looping, answering);
    assert!(
        refused
            .iter()
            .all(|refused| *refused == (504, "TIMEOUT".to_owned())),
        "{refused:?}"
    );
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
    let deployment = small();
    let flood = deployment.install("com.example.flood", &guest::log_flood(10_000));
    assert_eq!(deployment.call(&flood, get("/")).await.status, 200);
    let log = deployment.log();
    assert_eq!(log.matches("\"message\":\"flood\"").count(), 256, "{log}");
    assert!(log.contains("\"dropped_lines\":9744"), "{log}");
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
        ("module", guest::core_module(), "component"),
        (
            "handler",
            guest::without_handler(),
            "alga:extension/handler",
        ),
        ("import", guest::unknown_import(), "evil:host/shell"),
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
