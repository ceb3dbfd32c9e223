//! `POST /v1/execute`: the install row is the authority, and limits only narrow.

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Answer, Deployment, Installed, get, refusal};

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
    for (name, value) in [
        ("authorization ", "Bearer x"),
        ("a b", "1"),
        ("a:", "1"),
        ("a\n", "1"),
        ("", "1"),
        ("x", "x\r\ny: z"),
        ("x", "\n"),
        ("x", "\u{0}"),
    ] {
        let headers = json!({ "method": "GET", "path": "/", "headers": { name: value } });
        bad.push(installed.envelope(&headers));
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
    let metrics = deployment.metrics().await;
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
async fn memory_of_a_request_narrows_and_never_widens() {
    const PAGE: u32 = 64 << 10;
    let mut deployment = Deployment::new();
    deployment.set("ALGA_ENGINE_MEMORY_MB", "4");
    deployment.start();
    let of = |name: &str, component: &[u8]| {
        deployment.install(&format!("com.example.{name}"), component)
    };
    // A page is the guest's own, and what it answers comes on top.
    let small = of("small", &guest::body_of((1 << 20) - PAGE));
    let larger = of("larger", &guest::body_of((1 << 20) - PAGE + 1));
    let all = of("all", &guest::body_of((4 << 20) - PAGE));
    let more = of("more", &guest::body_of((4 << 20) - PAGE + 1));
    let greedy = of("greedy", &guest::grow_memory());
    for (installed, asked_mb, fits) in [
        (&small, json!(null), true),
        (&small, json!(1), true),
        (&small, json!(0), false),
        (&larger, json!(1), false),
        (&larger, json!(2), true),
        (&all, json!(3), false),
        (&all, json!(4), true),
        (&all, json!(null), true),
        (&more, json!(null), false),
        (&more, json!(5), false),
        (&more, json!(u64::MAX), false),
        (&greedy, json!(1), false),
        (&greedy, json!(u64::MAX), false),
    ] {
        let mut envelope = installed.envelope(&get("/"));
        envelope["limits"] = json!({ "memory_mb": asked_mb });
        let of = format!("{} with {asked_mb} MB", installed.extension);
        if fits {
            assert_eq!(deployment.execute(&envelope).await.status(), 200, "{of}");
        } else {
            let refused = deployment.refusal(&envelope).await;
            assert_eq!(refused, (507, "MEMORY_LIMIT".to_owned()), "{of}");
        }
    }
}

#[tokio::test]
async fn a_request_can_not_change_what_the_install_is_set_to() {
    let deployment = Deployment::started();
    let bundle = deployment.pack_notes();
    let name = "com.example.notes";
    let set = deployment.publish_with(name, &bundle, &["--set", "greeting=Good evening"]);
    let unset = deployment.publish(name, &bundle);
    for (installed, greeting) in [(set, "Good evening"), (unset, "Hello")] {
        let envelope = installed.envelope(&get("/"));
        let theirs = json!({ "greeting": "Go away", "other": "1" });
        for envelope in [envelope.clone(), with(envelope, "config", theirs)] {
            let response = deployment.execute(&envelope).await;
            let answer = Answer::of(&response.json().await.unwrap());
            assert_eq!(answer.json()["greeting"], greeting, "{envelope}");
        }
    }
}

#[tokio::test]
async fn fuel_is_counted_where_it_is_configured_and_requests_narrow_it() {
    let mut deployment = Deployment::new();
    // A loop burns this within milliseconds, an answer needs far less.
    deployment.set("ALGA_ENGINE_FUEL", "1000000");
    deployment.start();
    let looping = deployment.install("com.example.loop", &guest::endless_loop());
    let good = deployment.install("com.example.echo", &guest::echo());
    let out_of_fuel = async |installed: &Installed, fuel: Option<u64>| {
        let mut envelope = installed.envelope(&get("/"));
        envelope["limits"] = json!({ "fuel": fuel });
        let response = deployment.execute(&envelope).await;
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        assert!(status == 200 || status == 504, "{body}");
        body["error"]["details"]["limit"] == "fuel"
    };
    assert!(out_of_fuel(&looping, None).await);
    assert!(
        out_of_fuel(&looping, Some(u64::MAX)).await,
        "a request can't ask for more"
    );
    assert!(!out_of_fuel(&good, None).await);
    assert!(out_of_fuel(&good, Some(1)).await);
}

#[tokio::test]
async fn providers_narrow_what_is_granted() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
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

#[tokio::test]
async fn callers_who_come_at_once_have_a_component_compiled_once() {
    const COMPILED: &str = "alga_engine_compile_duration_seconds_count";
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    std::fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.start();
    assert!(!deployment.metrics().await.contains(COMPILED));
    let envelope = installed.envelope(&get("/"));
    for answer in join_all((0..16).map(|_| deployment.execute(&envelope))).await {
        assert_eq!(answer.status(), 200);
    }
    let metrics = deployment.metrics().await;
    assert!(
        metrics.contains(&format!("{COMPILED}{{outcome=\"ok\"}} 1\n")),
        "{metrics}"
    );

    // Once for all processes, even: the next one finds the code on disk.
    deployment.kill();
    deployment.start();
    assert_eq!(deployment.execute(&envelope).await.status(), 200);
    assert!(!deployment.metrics().await.contains(COMPILED));
}
