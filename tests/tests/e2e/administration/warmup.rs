//! Making extensions ready before anybody calls them.

use std::fs;

use alga_e2e::guest;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::{done, is, refused};
use crate::deployment::{Deployment, get};

#[tokio::test]
async fn what_is_warmed_up_is_fetched_and_compiled_and_what_cannot_be_is_told() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.start();
    let warmup = |items: Value| {
        deployment
            .admin(Method::POST, "/v1/warmup")
            .json(&json!({ "items": items }))
    };
    let nowhere = Uuid::new_v4();
    let nothing = format!("sha256:{}", "0".repeat(64));
    let asked = json!([
        { "contentHash": installed.hash },
        { "extension": "com.example.echo", "version": "1.0.0" },
        { "installId": installed.install },
        { "extension": "com.example.echo", "version": "9.0.0" },
        { "installId": nowhere },
        { "contentHash": nothing },
    ]);
    let (answer, _) = done(warmup(asked)).await;
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 6, "{answer}");
    for ready in &items[..3] {
        let expected = json!({ "contentHash": installed.hash, "ready": true, "error": null });
        assert_eq!(*ready, expected);
    }
    for missing in &items[3..] {
        assert_eq!(missing["ready"], false);
        assert_eq!(missing["error"]["code"], "NOT_FOUND", "{missing}");
    }
    let compilations = r#"alga_engine_compile_duration_seconds_count{outcome="ok"} 1"#;
    assert!(deployment.metrics().await.contains(compilations));
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    assert!(deployment.metrics().await.contains(compilations));

    let many = vec![json!({ "contentHash": nothing }); 101];
    for bad in [json!(many), json!([{}]), json!("all")] {
        assert_eq!(refused(warmup(bad)).await, is(400, "BAD_REQUEST"));
    }
    assert_eq!(done(warmup(json!([]))).await.0, json!({ "items": [] }));
}

#[tokio::test]
async fn why_a_version_was_not_made_ready_is_in_the_log_and_counted() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    fs::remove_dir_all(deployment.data().join("bundles/sha256")).unwrap();
    deployment.start();
    let items = json!({ "items": [{ "installId": installed.install }] });
    let warmup = deployment.admin(Method::POST, "/v1/warmup").json(&items);
    let (answer, _) = done(warmup).await;
    let code = "BUNDLE_NOT_FOUND";
    assert_eq!(answer["items"][0]["error"]["code"], code);
    let log = deployment.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("a version was not made ready"));
    let [line] = lines.collect::<Vec<_>>()[..] else {
        panic!("{log}")
    };
    let event: Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["error.code"], code);
    assert_eq!(event["error.blame"], "host");
    assert_eq!(event["bundle"], installed.hash);
    let cause = event["error"].as_str().unwrap();
    assert!(cause.contains(": "), "without its cause: {cause}");
    let counted = format!("alga_engine_warmups_total{{outcome=\"{code}\"}} 1\n");
    assert!(deployment.metrics().await.contains(&counted));
}

#[tokio::test]
async fn what_was_asked_for_is_made_ready_also_where_nobody_waits_for_it() {
    let mut deployment = Deployment::new();
    let count = 12;
    let hashes: Vec<_> = (0..count)
        .map(|number| {
            let name = format!("com.example.echo{number}");
            deployment.install(&name, &guest::echo()).hash
        })
        .collect();
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.start();
    let items: Vec<_> = hashes
        .iter()
        .map(|it| json!({ "contentHash": it }))
        .collect();
    let body = json!({ "items": items }).to_string();
    let mut connection = deployment.connect().await;
    let head = format!(
        "POST /v1/warmup HTTP/1.1\r\nhost: runner\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        deployment.admin_token(),
        body.len()
    );
    connection
        .write_all((head + &body).as_bytes())
        .await
        .unwrap();
    deployment.logged("fetched a bundle", 1).await;
    drop(connection);
    deployment.logged("fetched a bundle", count).await;
}

#[tokio::test]
async fn a_bundle_that_is_not_to_be_had_is_told_as_a_call_would_be() {
    let mut deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.set("ALGA_BUNDLES_OFFLINE", "true");
    deployment.start();
    let items = json!({ "items": [{ "installId": installed.install }] });
    let warmup = deployment.admin(Method::POST, "/v1/warmup").json(&items);
    let (answer, _) = done(warmup).await;
    assert_eq!(answer["items"][0]["error"]["code"], "BUNDLE_OFFLINE");
    let called = deployment.refusal(&installed.envelope(&get("/"))).await;
    assert_eq!(called, (503, "BUNDLE_OFFLINE".to_owned()));
}
