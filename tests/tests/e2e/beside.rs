//! Bundles without a manifest: the one beside them says what is run, once it is registered.

use std::fs;

use alga_e2e::guest;
use alga_model::ContentHash;
use reqwest::Method;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Installed, get};
use crate::uploads::{finalize, refused, staged};

const ECHO: &str = "com.example.echo";
const MAIN: &str = "dist/main.wasm";
const DEBUG: &str = "dist/debug.wasm";
const MODULE: &str = "ui/lib.wasm";

/// A bundle with two components and a core module, and no manifest.
fn bundle() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        (DEBUG, guest::trap()),
        (MAIN, guest::echo()),
        (MODULE, guest::core_module()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, &content[..])
            .unwrap();
    }
    zstd::encode_all(&archive.into_inner().unwrap()[..], 3).unwrap()
}

fn manifest(publisher: &str, version: &str, entry: &str) -> String {
    json!({
        "name": ECHO,
        "publisher": publisher,
        "version": version,
        "runtime": "wasm-component@1",
        "entry": entry,
    })
    .to_string()
}

async fn publish(deployment: &Deployment, manifest: &str) -> Result<Value, (u16, String)> {
    let key = staged(deployment, &bundle()).await;
    let body = json!({ "key": key, "manifestJson": manifest });
    finalize(deployment, &body).await
}

async fn remove(deployment: &Deployment, version: &str) {
    let path = format!("/v1/extensions/{ECHO}/versions/{version}");
    let response = deployment.admin(Method::DELETE, &path).send().await;
    let response = response.unwrap();
    let status = response.status();
    assert!(status.is_success(), "{:?}", response.text().await);
}

/// What making the bundle ready is answered with.
async fn warmed(deployment: &Deployment) -> Value {
    let hash = ContentHash::of(&bundle()).to_string();
    let items = json!({ "items": [{ "contentHash": hash }] });
    let request = deployment.admin(Method::POST, "/v1/warmup").json(&items);
    let body: Value = request.send().await.unwrap().json().await.unwrap();
    let item = &body["items"][0];
    if item["ready"] == true {
        item["ready"].clone()
    } else {
        item["error"]["code"].clone()
    }
}

fn install(deployment: &Deployment) -> Installed {
    deployment.create_install(ECHO, &ContentHash::of(&bundle()).to_string(), &[])
}

/// Starts it with nothing in its cache.
fn start_anew(deployment: &mut Deployment) {
    deployment.kill();
    fs::remove_dir_all(deployment.data().join("cache")).unwrap();
    deployment.start();
}

#[tokio::test]
async fn what_was_compiled_for_a_refused_manifest_is_not_run_for_another() {
    let deployment = Deployment::started();
    // The name belongs to somebody, so that what others send is compiled and then refused.
    let taken = deployment.pack(ECHO, "1.0.0", &guest::echo());
    deployment.publish(ECHO, &taken);
    let theirs = manifest("Somebody Else", "2.0.0", DEBUG);
    let answered = publish(&deployment, &theirs).await;
    assert_eq!(answered, refused(403, "PUBLISHER_MISMATCH"));

    let ours = manifest("Tests", "2.0.0", MAIN);
    publish(&deployment, &ours).await.unwrap();
    let installed = install(&deployment);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
}

#[tokio::test]
async fn another_manifest_for_a_published_bundle_changes_nothing_of_what_is_run() {
    let mut deployment = Deployment::started();
    let published = manifest("Tests", "1.0.0", MAIN);
    publish(&deployment, &published).await.unwrap();
    let installed = install(&deployment);
    start_anew(&mut deployment);
    for entry in [DEBUG, MODULE] {
        let other = manifest("Tests", "1.0.1", entry);
        let answered = publish(&deployment, &other).await;
        assert_eq!(answered, refused(409, "MANIFEST_CONFLICT"));
    }
    // It was refused before it cost anything.
    let compilations = r#"alga_engine_compile_duration_seconds_count{outcome="ok"}"#;
    let metrics = deployment.metrics().await;
    let compiled = metrics.lines().find(|line| line.starts_with(compilations));
    assert!(
        compiled.is_none_or(|line| line.ends_with(" 0")),
        "{compiled:?}"
    );
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
}

#[tokio::test]
async fn a_manifest_that_named_a_core_module_is_corrected() {
    let deployment = Deployment::started();
    let wrong = manifest("Tests", "1.0.0", MODULE);
    let answered = publish(&deployment, &wrong).await;
    assert_eq!(answered, refused(400, "INVALID_COMPONENT"));
    let corrected = manifest("Tests", "1.0.0", MAIN);
    publish(&deployment, &corrected).await.unwrap();
    let installed = install(&deployment);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
}

#[tokio::test]
async fn a_removed_version_comes_back_with_another_manifest() {
    let mut deployment = Deployment::started();
    let wrong = manifest("Tests", "1.0.0", DEBUG);
    publish(&deployment, &wrong).await.unwrap();
    assert_eq!(warmed(&deployment).await, true);
    remove(&deployment, "1.0.0").await;

    // The copy in the store and the bundle in the cache are still those of the first manifest.
    let corrected = manifest("Tests", "1.0.0", MAIN);
    let published = publish(&deployment, &corrected).await.unwrap();
    assert_eq!(publish(&deployment, &corrected).await.unwrap(), published);
    let hex = ContentHash::of(&bundle()).to_hex();
    let copy = deployment
        .data()
        .join(format!("bundles/sha256/{hex}/manifest.json"));
    assert_eq!(fs::read_to_string(copy).unwrap(), corrected);
    assert_eq!(deployment.ok(&["bundle", "fsck"]), "");
    let installed = install(&deployment);
    assert_eq!(warmed(&deployment).await, true);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    start_anew(&mut deployment);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
}

#[tokio::test]
async fn a_manifest_that_somebody_changed_in_the_store_decides_nothing() {
    let mut deployment = Deployment::started();
    let registered = manifest("Tests", "1.0.0", MAIN);
    publish(&deployment, &registered).await.unwrap();
    let installed = install(&deployment);
    let hex = ContentHash::of(&bundle()).to_hex();
    let copy = deployment
        .data()
        .join(format!("bundles/sha256/{hex}/manifest.json"));
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, manifest("Tests", "1.0.0", DEBUG)).unwrap();
    start_anew(&mut deployment);
    for _ in 0..2 {
        let answered = deployment.refusal(&installed.envelope(&get("/"))).await;
        assert_eq!(answered, (502, "BUNDLE_DAMAGED".to_owned()));
        assert_eq!(warmed(&deployment).await, "BUNDLE_DAMAGED");
    }
    let log = deployment.log();
    let loudly = "the manifest beside a bundle is not the one that was registered";
    assert_eq!(log.matches(loudly).count(), 1, "{log}");

    deployment.fails(&["bundle", "fsck"]);
    deployment.ok(&["bundle", "fsck", "--repair"]);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_hostile_manifest_is_told_in_few_words() {
    let deployment = Deployment::started();
    let smuggled = r#"{"$serde_json::private::RawValue": "{}"}"#;
    let many: Vec<_> = (0..80_000).map(|_| "1").collect();
    for hostile in [
        format!(r#"{{"capabilities": {{"x.y": {smuggled}}}}}"#),
        format!(r#"{{"assets": [{}]}}"#, many.join(",")),
    ] {
        let key = staged(&deployment, &bundle()).await;
        let body = json!({ "key": key, "manifestJson": hostile });
        let request = deployment.admin(Method::POST, "/api/ext-bundles/finalize");
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains("INVALID_MANIFEST"), "{text}");
        assert!(text.len() < 32 << 10, "{} bytes", text.len());
    }
    let longest = deployment.log().lines().map(str::len).max();
    assert!(longest.unwrap() < 8 << 10, "{longest:?} bytes");
}

#[tokio::test]
async fn the_audit_of_a_version_has_the_request_it_was_published_in() {
    let deployment = Deployment::started();
    let key = staged(&deployment, &bundle()).await;
    let manifest = manifest("Tests", "1.0.0", MAIN);
    let body = json!({ "key": key, "manifestJson": manifest });
    let request = deployment.admin(Method::POST, "/api/ext-bundles/finalize");
    let request = request.header("x-request-id", "req-publish").json(&body);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let audit = deployment.admin(Method::GET, "/v1/audit").send().await;
    let text = audit.unwrap().text().await.unwrap();
    let registered = text.lines().find(|line| line.contains("version.register"));
    let line: Value = serde_json::from_str(registered.unwrap()).unwrap();
    assert_eq!(line["requestId"], "req-publish");
    assert_eq!(line["actor"], "admin:local-admin");
}
