//! One process that runs extensions, and another one that keeps their storage.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::deployment::{Deployment, Installed, get, path, send};
use crate::tls::{Authority, in_front_of};

/// The process that keeps the storage, and the one that runs extensions, both started.
fn set_up() -> (Deployment, Deployment) {
    let mut storage = Deployment::new();
    storage.set("ALGA_SERVER_ROLE", "storage");
    storage.start();
    let mut runner = storage.beside();
    runner.set("ALGA_SERVER_ROLE", "runner");
    runner.set("STORAGE_API_BASE_URL", storage.url());
    runner.set("RUNNER_STORAGE_API_TOKEN", &storage.token());
    runner.start();
    (storage, runner)
}

async fn create(runner: &Deployment, installed: &Installed, id: &str) -> u64 {
    let note = json!({"id": id, "title": "A", "text": "one"});
    let created = runner.call(installed, send("POST", "/notes", &note)).await;
    created.status
}

#[tokio::test]
async fn an_extension_keeps_its_records_with_another_process() {
    let (mut storage, runner) = set_up();
    let installed = storage.install_notes();
    assert_eq!(create(&runner, &installed, "a").await, 201);
    assert_eq!(create(&runner, &installed, "a").await, 409);
    let read = runner.call(&installed, get("/notes/a")).await;
    assert_eq!(read.json()["note"]["text"], "one");
    // The audit joins the record with the invocation, though it ran elsewhere.
    let audit = storage.ok(&["audit"]);
    let put = audit
        .lines()
        .find(|line| line.contains(r#""operation":"put""#));
    let put: Value = serde_json::from_str(put.unwrap()).unwrap();
    let actor = put["actor"].as_str().unwrap();
    assert!(actor.starts_with("invocation:"), "{actor}");
    assert!(!runner.has_open("storage.sqlite3"));
    assert!(storage.has_open("storage.sqlite3"));

    storage.kill_and_keep_address();
    let calls = (0..16).map(|_| runner.call(&installed, get("/notes/a")));
    for failed in join_all(calls).await {
        assert_eq!(failed.status, 503);
    }
    let told = runner.log();
    // One for each cause, of which there may be a few: a connection is lost, the next one refused.
    let lines = told.matches("the storage can't be reached").count();
    assert!((1..16).contains(&lines), "{told}");
    // Who needs no storage is served on, so the process is as ready as before.
    let ready = runner.request(Method::GET, "/readyz").send().await;
    assert_eq!(ready.unwrap().status(), StatusCode::OK);
    storage.start();
    let read = runner.call(&installed, get("/notes/a")).await;
    assert_eq!(read.json()["note"]["text"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_at_https_is_asked_where_its_certificate_is_trusted() {
    let mut storage = Deployment::new();
    storage.set("ALGA_SERVER_ROLE", "storage");
    storage.start();
    let installed = storage.install_notes();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let our_file = ours.pem_file(&storage, "ours.pem");
    let their_file = theirs.pem_file(&storage, "theirs.pem");
    let mut created = Vec::new();
    for (note, host, protocol, authorities) in [
        ("a", "localhost", "h2", &our_file),
        ("b", "localhost", "http/1.1", &our_file),
        ("c", "localhost", "h2", &their_file),
        ("d", "127.0.0.1", "h2", &our_file),
    ] {
        let port = in_front_of(&storage, ours.acceptor(protocol)).await;
        let mut runner = storage.beside();
        runner.set("ALGA_SERVER_ROLE", "runner");
        runner.set("STORAGE_API_BASE_URL", &format!("https://{host}:{port}"));
        runner.set("RUNNER_STORAGE_API_TOKEN", &storage.token());
        runner.set("ALGA_STORAGE_API_CA", path(authorities));
        runner.start();
        created.push(create(&runner, &installed, note).await);
    }
    assert_eq!(created, [201, 201, 503, 503]);
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_by_the_name_of_their_setting() {
    let mut runner = Deployment::new();
    runner.set("ALGA_SERVER_ROLE", "runner");
    runner.set("STORAGE_API_BASE_URL", "https://localhost:1");
    runner.set("RUNNER_STORAGE_API_TOKEN", "0123456789");
    let file = runner.scratch("ca.pem");
    runner.set("ALGA_STORAGE_API_CA", path(&file));
    let pem = |within: &str| {
        format!("-----BEGIN CERTIFICATE-----\n{within}\n-----END CERTIFICATE-----\n")
    };
    for (text, said) in [
        ("no certificate".to_owned(), "there is none, as PEM"),
        (pem("?"), "cannot use the certificates"),
        (pem("AAAA"), "cannot make an HTTP client"),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = runner.fails(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(refused.contains(said), "{refused}");
        let setting = "`storage.api.ca` (ALGA_STORAGE_API_CA)";
        assert!(refused.contains(setting), "{refused}");
    }
}

#[tokio::test]
async fn each_process_says_what_it_leaves_to_the_other() {
    let (storage, runner) = set_up();
    let installed = storage.install_notes();
    let install = &installed.install;
    let refused = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["error"]["code"].clone())
    };
    let misdirected = (421, json!("MISDIRECTED"));
    let usage = format!("/v1/installs/{install}/usage");
    let invocations = format!("/v1/installs/{install}/invocations");
    let call = format!("/v1/installs/{install}/http/notes");
    let internal = format!("/api/internal/ext-storage/install/{install}");
    let operation = json!({"operation": "usage"});
    for request in [
        runner.admin(Method::GET, &usage),
        runner.admin(Method::GET, "/v1/audit"),
        runner.request(Method::POST, &internal).json(&operation),
        storage.request(Method::GET, &call),
        storage.admin(Method::GET, &invocations),
        storage.admin(Method::GET, &format!("/v1/installs/{install}/logs")),
    ] {
        assert_eq!(refused(request).await, misdirected);
    }
    for request in [
        storage.admin(Method::GET, &usage),
        storage.admin(Method::GET, "/v1/audit"),
        storage.request(Method::POST, &internal).json(&operation),
        runner.request(Method::GET, &call),
        runner.admin(Method::GET, &invocations),
        runner.admin(Method::GET, "/v1/installs"),
        storage.admin(Method::GET, "/v1/installs"),
    ] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn commands_reach_records_that_another_process_keeps() {
    let (storage, runner) = set_up();
    let installed = storage.install_notes();
    let id = installed.install.as_str();
    runner.ok(&["storage", "put", id, "notes", "a", "[1e5]"]);
    assert_eq!(runner.ok(&["storage", "get", id, "notes", "a"]), "[1e5]");
    assert_eq!(storage.ok(&["storage", "get", id, "notes", "a"]), "[1e5]");
    let refused = runner.fails(&[
        "storage",
        "get",
        id,
        "notes",
        "a",
        "--server",
        storage.url(),
    ]);
    assert!(refused.contains("set STORAGE_API_BASE_URL"), "{refused}");
    for elsewhere in [
        &["usage", "verify"][..],
        &["storage", "sweep"],
        &["migrate", "status"],
    ] {
        let refused = runner.fails(elsewhere);
        assert!(refused.contains("kept by another process"), "{refused}");
    }
}

#[tokio::test]
async fn a_role_that_contradicts_the_other_settings_is_refused() {
    let refused = |settings: &[(&str, &str)]| {
        let mut deployment = Deployment::new();
        for (name, value) in settings {
            deployment.set(name, value);
        }
        deployment.fails(&["serve", "--listen", "127.0.0.1:0"])
    };
    let url = ("STORAGE_API_BASE_URL", "http://127.0.0.1:1");
    let token = ("RUNNER_STORAGE_API_TOKEN", "0123456789");
    for (settings, said) in [
        (&[("ALGA_SERVER_ROLE", "runner")][..], "storage.api.url"),
        (
            &[("ALGA_SERVER_ROLE", "storage"), url, token],
            "STORAGE_API_BASE_URL",
        ),
        (&[url], "storage.api.token"),
        (&[("ALGA_SERVER_ROLE", "both")], "all or runner or storage"),
    ] {
        let refused = refused(settings);
        assert!(refused.contains(said), "{refused}");
    }
}
