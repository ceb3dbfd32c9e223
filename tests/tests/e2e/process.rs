//! The process: ready, measured, stopped.

use std::time::{Duration, Instant};

use alga_e2e::guest;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::deployment::{Deployment, get, refusal};

/// Logged where the time to stop was not enough.
const OUTLASTED: &str = "when the time to stop had passed";
/// How long a connection may be silent, and a little more.
const SILENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn probes_and_metrics_tell_how_it_is() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    deployment.call(&installed, get("/")).await;
    let health = deployment
        .anonymous(Method::GET, "/healthz")
        .send()
        .await
        .unwrap();
    assert_eq!(health.text().await.unwrap(), "ok\n");
    let ready: Value = deployment
        .anonymous(Method::GET, "/readyz")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        ready,
        json!({
            "storage": true, "registry": true, "bundles": true, "cache": true, "degraded": false,
            "draining": false,
        })
    );
    let metrics = deployment.metrics().await;
    assert!(
        metrics.contains(r#"alga_engine_invocation_duration_seconds_count{outcome="OK"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains("alga_http_request_duration_seconds"),
        "{metrics}"
    );
    assert!(
        !metrics.contains(&installed.tenant) && !metrics.contains(&installed.install),
        "no ids in labels"
    );
}

#[tokio::test]
async fn a_terminated_server_finishes_what_runs() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "1500");
    deployment.start();
    let installed = deployment.install("com.example.loop", &guest::log_then_loop());
    let envelope = installed.envelope(&get("/"));
    let running = deployment.refusal(&envelope);
    let stopping = async {
        deployment.logged(guest::LOOPING, 1).await;
        deployment.terminate();
        let log = deployment.logged("\"stopping\"", 1).await;
        assert!(
            !log.contains("TIMEOUT"),
            "it stopped only after the call: {log}"
        );
    };
    let (answer, ()) = tokio::join!(running, stopping);
    // Answered by its own deadline, long before the one for stopping.
    assert_eq!(answer, (504, "TIMEOUT".to_owned()));
    assert!(deployment.wait(), "{}", deployment.log());
    let log = deployment.log();
    assert!(log.contains("\"stopped\""), "{log}");
    assert!(!log.contains(OUTLASTED), "{log}");
}

#[tokio::test]
async fn a_stopping_server_serves_who_waits_and_refuses_who_comes() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_MAX_INSTANCES", "1");
    deployment.set("ALGA_ADMISSION_QUEUE_WAIT_MS", "60000");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let good = deployment.install("com.example.good", &guest::echo());
    let mut envelope = looping.envelope(&get("/"));
    envelope["limits"] = json!({ "timeout_ms": 3000 });
    let running = deployment.refusal(&envelope);
    let waiting = async {
        deployment.logged(guest::LOOPING, 1).await;
        deployment.call(&good, get("/")).await.status
    };
    let coming = async {
        deployment.logged(guest::LOOPING, 1).await;
        while !deployment
            .metrics()
            .await
            .contains("alga_admission_waiting 1\n")
        {}
        deployment.terminate();
        deployment.logged("\"stopping\"", 1).await;
        let refused = deployment.execute(&good.envelope(&get("/"))).await;
        assert_eq!(refused.headers()["connection"], "close");
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(refusal(refused).await, (503, "OVERLOADED".to_owned()));
        // By somebody new, too.
        let mut connection = deployment.connect().await;
        let probe = b"GET /readyz HTTP/1.1\r\nhost: runner\r\n\r\n";
        connection.write_all(probe).await.unwrap();
        let mut ready = String::new();
        connection.read_to_string(&mut ready).await.unwrap();
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        assert!(ready.contains("\"draining\":true"), "{ready}");
        let health = deployment.anonymous(Method::GET, "/healthz").send().await;
        assert_eq!(health.unwrap().text().await.unwrap(), "ok\n");
        assert!(
            !deployment.log().contains("TIMEOUT"),
            "the call still runs: {}",
            deployment.log()
        );
    };
    let (running, waiting, ()) = tokio::join!(running, waiting, coming);
    assert_eq!(running, (504, "TIMEOUT".to_owned()));
    assert_eq!(waiting, 200);
    assert!(deployment.wait(), "{}", deployment.log());
    assert!(
        !deployment.log().contains(OUTLASTED),
        "{}",
        deployment.log()
    );
}

#[tokio::test]
async fn what_outlasts_the_drain_does_not_hold_the_process() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "60000");
    deployment.set("ALGA_SERVER_DRAIN_TIMEOUT_MS", "200");
    deployment.start();
    let installed = deployment.install("com.example.loop", &guest::log_then_loop());
    let envelope = installed.envelope(&get("/"));
    let running = deployment
        .request(Method::POST, "/v1/execute")
        .json(&envelope)
        .send();
    let stopping = async {
        deployment.logged(guest::LOOPING, 1).await;
        deployment.terminate();
        Instant::now()
    };
    let (answer, asked) = tokio::join!(running, stopping);
    assert!(answer.is_err(), "the connection is cut: {answer:?}");
    assert!(deployment.wait(), "{}", deployment.log());
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert!(deployment.log().contains(OUTLASTED), "{}", deployment.log());
}

#[tokio::test]
async fn a_client_that_is_gone_leaves_nothing_running() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "60000");
    deployment.set("ALGA_ENGINE_MAX_INSTANCES", "1");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let good = deployment.install("com.example.good", &guest::echo());
    let plain = format!("/v1/installs/{}/http/", looping.install);
    let doors = [
        deployment
            .request(Method::POST, "/v1/execute")
            .json(&looping.envelope(&get("/"))),
        deployment.request(Method::GET, &plain),
    ];
    for (door, request) in (1..).zip(doors) {
        tokio::select! {
            answer = request.send() => panic!("answered: {answer:?}"),
            _ = deployment.logged(guest::LOOPING, door) => {}
        }
        let log = deployment
            .logged("\"error.code\":\"CANCELLED\"", door)
            .await;
        let told = log.lines().filter(|line| {
            line.contains("\"error.code\":\"CANCELLED\"")
                && line.contains("engine.invoke")
                && line.contains(&looping.install)
        });
        assert_eq!(told.count(), door, "{log}");
        // The only instance there is can be used again.
        assert_eq!(deployment.call(&good, get("/")).await.status, 200);
    }
    let metrics = deployment.metrics().await;
    assert!(
        metrics.contains(r#"alga_engine_invocation_duration_seconds_count{outcome="CANCELLED"} 2"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let deployment = Deployment::started();
    let mut silent = deployment.connect().await;
    let mut received = Vec::new();
    let closed = timeout(SILENCE, silent.read_to_end(&mut received)).await;
    assert!(closed.is_ok(), "still open after {SILENCE:?}");
}

#[tokio::test]
async fn half_a_request_does_not_keep_the_process_from_stopping() {
    let mut deployment = Deployment::started();
    let mut half = deployment.connect().await;
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: runner\r\nx-half")
        .await
        .unwrap();
    // Connections are accepted in order: when this one is answered, the other is there.
    let probe = deployment.anonymous(Method::GET, "/healthz").send().await;
    assert!(probe.unwrap().status().is_success());
    deployment.terminate();
    let start = Instant::now();
    assert!(deployment.wait(), "{}", deployment.log());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_port_in_use_is_said_so() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let deployment = Deployment::new();
    let address = holder.local_addr().unwrap().to_string();
    let error = deployment.fails(&["serve", "--listen", &address]);
    assert!(
        error.contains(&format!("cannot listen on {address}")),
        "{error}"
    );
}

#[test]
fn several_processes_may_make_the_same_data_folder() {
    let deployment = Deployment::new();
    let mut commands: Vec<_> = (0..6)
        .map(|_| {
            deployment
                .command(&["migrate", "up"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for command in &mut commands {
        assert!(command.wait().unwrap().success());
    }
}
