//! The process: ready, measured, stopped.

use std::time::Duration;

use alga_e2e::guest;
use reqwest::Method;
use serde_json::Value;

use crate::deployment::{Deployment, get};

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
        serde_json::json!({ "storage": true, "registry": true, "draining": false })
    );
    let metrics = deployment
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
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
    let installed = deployment.install("com.example.loop", &guest::endless_loop());
    let envelope = installed.envelope(&get("/"));
    let running = deployment.refusal(&envelope);
    let stopping = async {
        while !deployment.log().contains("engine.invoke") {
            // The log tells when the guest runs; a line of it comes only when something happens,
            // so give it something.
            let _ = deployment
                .anonymous(Method::GET, "/v1/nothing")
                .send()
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if deployment.log().matches("/v1/nothing").count()
                + deployment.log().matches("request answered").count()
                > 3
            {
                break;
            }
        }
        deployment.terminate();
    };
    let (answer, ()) = tokio::join!(running, stopping);
    assert_eq!(
        answer,
        (504, "TIMEOUT".to_owned()),
        "the request under way is answered"
    );
    assert!(deployment.wait(), "{}", deployment.log());
    assert!(
        deployment.log().contains("\"stopped\""),
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
    let installed = deployment.install("com.example.loop", &guest::endless_loop());
    let envelope = installed.envelope(&get("/"));
    let running = deployment
        .request(Method::POST, "/v1/execute")
        .json(&envelope)
        .send();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        deployment.terminate();
    };
    let (answer, ()) = tokio::join!(running, stopping);
    assert!(answer.is_err(), "the connection is cut: {answer:?}");
    assert!(deployment.wait(), "{}", deployment.log());
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
                .command(&["install", "list"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for command in &mut commands {
        assert!(command.wait().unwrap().success());
    }
}
