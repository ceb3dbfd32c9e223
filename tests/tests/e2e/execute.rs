//! `POST /v1/execute`: the install row is the authority, and limits only narrow.

use alga_e2e::guest;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, get, refusal};

fn with(mut envelope: Value, member: &str, value: Value) -> Value {
    envelope["context"][member] = value;
    envelope
}

#[tokio::test]
async fn a_context_that_disagrees_with_the_install_is_refused() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let other = deployment.install("com.example.other", &guest::echo_request());
    let envelope = installed.envelope(&get("/"));
    assert_eq!(deployment.execute(&envelope).await.status(), 200);

    let mismatch = (403, "CONTEXT_MISMATCH".to_owned());
    for (member, value) in [
        ("tenant_id", json!(other.tenant)),
        ("tenant_id", json!(Uuid::new_v4())),
        ("extension_id", json!(other.extension)),
        ("extension_id", json!(Uuid::new_v4())),
        ("content_hash", json!(other.hash)),
        ("version_id", json!(Uuid::new_v4())),
    ] {
        let refused = deployment
            .refusal(&with(envelope.clone(), member, value))
            .await;
        assert_eq!(refused, mismatch, "{member}");
    }
    let unknown = with(envelope, "install_id", json!(Uuid::new_v4()));
    assert_eq!(
        deployment.refusal(&unknown).await,
        (404, "NOT_FOUND".to_owned())
    );
}

#[tokio::test]
async fn without_an_install_id_exactly_one_must_match() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let mut envelope = installed.envelope(&get("/"));
    envelope["context"]
        .as_object_mut()
        .unwrap()
        .remove("install_id");
    assert_eq!(deployment.execute(&envelope).await.status(), 200);
    let none = with(envelope.clone(), "tenant_id", json!(Uuid::new_v4()));
    assert_eq!(
        deployment.refusal(&none).await,
        (400, "BAD_REQUEST".to_owned())
    );
    deployment.ok(&[
        "install",
        "create",
        "--tenant",
        &installed.tenant,
        "--extension",
        &installed.extension,
    ]);
    assert_eq!(
        deployment.refusal(&envelope).await,
        (400, "BAD_REQUEST".to_owned())
    );
}

#[tokio::test]
async fn an_envelope_that_is_none_is_a_bad_request() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let envelope = installed.envelope(&get("/"));
    let mut bad = vec![
        json!({}),
        json!([]),
        json!({ "context": {} }),
        with(envelope.clone(), "tenant_id", json!("acme")),
        with(envelope.clone(), "install_id", json!(7)),
        with(envelope.clone(), "content_hash", json!("sha256:00")),
        with(envelope.clone(), "request_id", json!("a b")),
    ];
    for http in [
        json!({ "path": "/" }),
        json!({ "method": "GET", "path": "relative" }),
        json!({ "method": "G T", "path": "/" }),
        json!({ "method": "GET", "path": "/", "body_b64": "***" }),
    ] {
        bad.push(installed.envelope(&http));
    }
    for envelope in bad {
        let refused = deployment.refusal(&envelope).await;
        assert_eq!(refused, (400, "BAD_REQUEST".to_owned()), "{envelope}");
    }
    for body in ["", "{", "null", "\u{0}"] {
        let response = deployment
            .request(Method::POST, "/v1/execute")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(
            refusal(response).await,
            (400, "BAD_REQUEST".to_owned()),
            "{body:?}"
        );
    }
    assert_eq!(deployment.execute(&envelope).await.status(), 200);
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_counted() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let mut envelope = with(installed.envelope(&get("/")), "tier", json!("gold"));
    envelope["from_the_future"] = json!(1);
    envelope["user"] = json!({ "user_id": "u" });
    envelope["secret_envelope"] = json!({});
    assert_eq!(deployment.execute(&envelope).await.status(), 200);
    let metrics = deployment
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("alga_http_unknown_envelope_fields_total 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_body_is_allowed_to_the_limit_and_no_further() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_SERVER_MAX_BODY_BYTES", "100000");
    deployment.start();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let path = format!("/v1/installs/{}/http/", installed.install);
    let post = async |bytes: usize| {
        deployment
            .request(Method::POST, &path)
            .body(vec![b'x'; bytes])
            .send()
            .await
            .unwrap()
    };
    assert_eq!(post(99_999).await.bytes().await.unwrap().len(), 99_999);
    assert_eq!(post(100_000).await.bytes().await.unwrap().len(), 100_000);
    assert_eq!(
        refusal(post(100_001).await).await,
        (413, "TOO_LARGE".to_owned())
    );
}

#[tokio::test]
async fn limits_of_a_request_narrow_and_never_widen() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_TIMEOUT_MS", "1500");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    for (asked_ms, at_most_ms) in [(100, 1_000), (3_600_000, 5_000)] {
        let mut envelope = looping.envelope(&get("/"));
        envelope["limits"] = json!({ "timeout_ms": asked_ms });
        let start = std::time::Instant::now();
        assert_eq!(
            deployment.refusal(&envelope).await,
            (504, "TIMEOUT".to_owned())
        );
        // Generous: what is shown is which of two limits held, not how exactly.
        assert!(
            start.elapsed().as_millis() < at_most_ms,
            "asked for {asked_ms} ms"
        );
    }
}

#[tokio::test]
async fn providers_narrow_what_is_granted() {
    let deployment = Deployment::started();
    let installed = deployment.publish("com.example.notes", &{
        let bundle = deployment.scratch("notes.tar.zst");
        let folder = guest::notes_bundle_dir();
        deployment.ok(&[
            "bundle",
            "pack",
            folder.to_str().unwrap(),
            "--output",
            bundle.to_str().unwrap(),
        ]);
        bundle
    });
    let status = async |providers: Option<Value>| {
        let mut envelope = installed.envelope(&get("/notes"));
        if let Some(providers) = providers {
            envelope["providers"] = providers;
        }
        let answer: Value = deployment.execute(&envelope).await.json().await.unwrap();
        answer["status"].as_u64().unwrap()
    };
    assert_eq!(status(None).await, 200);
    assert_eq!(status(Some(json!(["cap:storage.kv"]))).await, 200);
    assert_eq!(status(Some(json!([]))).await, 403);
    assert_eq!(status(Some(json!(["cap:http.fetch"]))).await, 403);

    deployment.ok(&["install", "grant", &installed.install, "--none"]);
    // Another process made the change: it bites within a second.
    let mut waited = 0;
    while status(None).await != 403 {
        waited += 1;
        assert!(waited < 200, "a revoked grant still works");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(
        status(Some(json!(["cap:storage.kv"]))).await,
        403,
        "a request can't bring a grant back"
    );
}

#[tokio::test]
async fn a_disabled_install_is_a_conflict_until_it_is_enabled() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    deployment.ok(&["install", "disable", &installed.install]);
    deployment.start();
    let envelope = installed.envelope(&get("/"));
    assert_eq!(
        deployment.refusal(&envelope).await,
        (409, "INSTALL_DISABLED".to_owned())
    );
    deployment.ok(&["install", "enable", &installed.install]);
    let mut waited = 0;
    while deployment.execute(&envelope).await.status() != 200 {
        waited += 1;
        assert!(waited < 200, "an enabled install does not run");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_request_id_goes_all_the_way_round() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let path = format!("/v1/installs/{}/http/", installed.install);
    let response = deployment
        .request(Method::GET, &path)
        .header("x-request-id", "mine-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let response = deployment
        .request(Method::GET, &path)
        .header("x-request-id", "a b")
        .send()
        .await
        .unwrap();
    assert_ne!(response.headers()["x-request-id"], "a b");
    assert!(
        deployment.log().contains("\"mine-1\""),
        "{}",
        deployment.log()
    );
}
