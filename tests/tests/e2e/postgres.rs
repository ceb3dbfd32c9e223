//! The same program over PostgreSQL: `DATABASE_URL` is all it takes.

use alga_test_postgres::TestDatabase;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::deployment::{Deployment, get, send};

const MASTER_KEY: &str = "0001020304050607080910111213141516171819202122232425262728293031";

/// A deployment whose databases are in PostgreSQL, not started.
async fn over_postgres() -> Deployment {
    let mut deployment = Deployment::new();
    deployment.set("DATABASE_URL", &TestDatabase::create().await.url);
    deployment.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
    deployment
}

#[tokio::test]
async fn an_extension_keeps_its_records_there_whatever_becomes_of_the_process() {
    let mut deployment = over_postgres().await;
    deployment.start();
    let installed = deployment.install_notes();
    for nth in 1..=30 {
        let id = format!("n{nth:02}");
        let note = json!({"id": id, "title": "A", "text": "one"});
        let created = deployment
            .call(&installed, send("POST", "/notes", &note))
            .await;
        assert_eq!(created.status, 201, "{nth}");
    }
    let again = json!({"id": "n01", "title": "B", "text": "two"});
    let taken = deployment
        .call(&installed, send("POST", "/notes", &again))
        .await;
    assert_eq!(taken.status, 409);

    deployment.kill();
    deployment.start();
    let read = deployment.call(&installed, get("/notes/n30")).await;
    assert_eq!(read.json()["note"]["text"], "one");
    let ready = deployment.request(Method::GET, "/readyz").send().await;
    assert_eq!(ready.unwrap().status(), StatusCode::OK);
    // Nothing of it is in the data folder.
    for file in ["storage.sqlite3", "registry.sqlite3"] {
        assert!(!deployment.data().join(file).exists(), "{file} is there");
    }
}

#[tokio::test]
async fn commands_work_on_the_database_that_a_server_uses() {
    let mut deployment = over_postgres().await;
    deployment.start();
    let installed = deployment.install_notes();
    let id = installed.install.as_str();
    let note = json!({"id": "a", "title": "A", "text": "one"});
    let created = deployment
        .call(&installed, send("POST", "/notes", &note))
        .await;
    assert_eq!(created.status, 201);

    deployment.ok(&[
        "storage",
        "put",
        id,
        "notes",
        "b",
        r#"{"title":"B","text":"two"}"#,
    ]);
    let read = deployment.call(&installed, get("/notes/b")).await;
    assert_eq!(read.json()["note"]["text"], "two");
    let usage: Value = serde_json::from_str(&deployment.ok(&["usage", "show", id])).unwrap();
    assert_eq!(usage["keys"], 2, "{usage}");
    let verified = deployment.ok(&["usage", "verify"]);
    assert!(!verified.contains("bytes-per"), "{verified}");
    let status = deployment.ok(&["migrate", "status"]);
    assert!(
        status.contains("storage") && !status.contains("missing"),
        "{status}"
    );
    let audit = deployment.ok(&["audit"]);
    let of_storage = audit
        .lines()
        .filter(|line| line.contains("\"operation\":\"put\""));
    assert_eq!(of_storage.count(), 2, "{audit}");
}

#[tokio::test]
async fn processes_that_share_a_database_must_be_given_their_key() {
    let mut deployment = Deployment::new();
    deployment.set("DATABASE_URL", "postgres://alga:hunter2@127.0.0.1:1/alga");
    let refused = deployment.fails(&["serve"]);
    assert!(refused.contains("keys.master_key"), "{refused}");
    deployment.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
    let refused = deployment.fails(&["serve"]);
    assert!(refused.contains("database.url"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn a_script_is_told_to_try_again_while_the_database_is_away() {
    let mut deployment = Deployment::new();
    deployment.set("DATABASE_URL", "postgres://alga@127.0.0.1:1/alga");
    deployment.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
    let install = "01890000-0000-7000-8000-000000000000";
    for command in [
        &["storage", "get", install, "notes", "a"][..],
        &["install", "list"],
        &["serve"],
    ] {
        let away = deployment.run(command);
        assert_eq!(away.status.code(), Some(6), "{away:?}");
    }
}

#[tokio::test]
async fn a_database_that_was_not_made_yet_is_told_so() {
    let mut deployment = Deployment::new();
    let url = TestDatabase::create().await.url;
    let missing = url.replacen("/alga_test_", "/no_such_", 1);
    assert_ne!(missing, url);
    deployment.set("DATABASE_URL", &missing);
    deployment.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
    let refused = deployment.run(&["serve"]);
    // To start it again is of no use.
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("does not exist; make it first, with `createdb`"),
        "{said}"
    );
    assert!(!said.contains("at line"), "{said}");
}
