//! The example extension, end to end; and whether what is committed is what its source says.

use alga_e2e::guest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::deployment::{Deployment, get, send};

#[tokio::test]
async fn notes_are_created_read_changed_and_deleted() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let call = async |http: Value| deployment.call(&installed, http).await;

    assert_eq!(call(get("/notes/a")).await.status, 404);
    let created = call(send(
        "POST",
        "/notes",
        &json!({"id": "a", "title": "A", "text": "one"}),
    ))
    .await;
    assert_eq!(
        created.status,
        201,
        "{:?}",
        String::from_utf8_lossy(&created.body)
    );
    assert_eq!(created.headers["location"], "notes/a");
    let taken = call(send(
        "POST",
        "/notes",
        &json!({"id": "a", "title": "B", "text": "two"}),
    ))
    .await;
    assert_eq!(taken.status, 409);

    let read = call(get("/notes/a")).await;
    assert_eq!(
        (read.status, read.headers["etag"].as_str()),
        (200, Some("\"1\""))
    );
    assert_eq!(read.json()["note"]["text"], "one");

    let put = |text: &str, etag: &str| {
        let mut request = send("PUT", "/notes/a", &json!({"title": "A", "text": text}));
        request["headers"]["if-match"] = json!(etag);
        request
    };
    assert_eq!(call(put("two", "\"1\"")).await.status, 200);
    let stale = call(put("three", "\"1\"")).await;
    assert_eq!(stale.status, 409);
    assert!(
        String::from_utf8_lossy(&stale.body).contains("two"),
        "the conflict shows what is there"
    );
    assert_eq!(call(get("/notes/a")).await.json()["note"]["text"], "two");

    assert_eq!(
        call(send("DELETE", "/notes/a", &json!({}))).await.status,
        204
    );
    assert_eq!(
        call(send("DELETE", "/notes/a", &json!({}))).await.status,
        404
    );
    assert_eq!(call(get("/nothing")).await.status, 404);
    assert_eq!(
        call(send("PATCH", "/notes/a", &json!({}))).await.status,
        405
    );
}

#[tokio::test]
async fn pages_give_every_note_once() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    let ids: Vec<String> = (0..23).map(|i| format!("n{i:02}")).collect();
    for id in &ids {
        let created = deployment
            .call(
                &installed,
                send(
                    "POST",
                    "/notes",
                    &json!({"id": id, "title": id, "text": ""}),
                ),
            )
            .await;
        assert_eq!(created.status, 201);
    }
    let mut seen = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let query = cursor.as_ref().map_or_else(
            || json!({"limit": "5"}),
            |cursor| json!({"limit": "5", "cursor": cursor}),
        );
        let page = deployment
            .call(
                &installed,
                json!({"method": "GET", "path": "/notes", "query": query}),
            )
            .await;
        assert_eq!(
            page.status,
            200,
            "{:?}",
            String::from_utf8_lossy(&page.body)
        );
        let page = page.json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let tampered = json!({"method": "GET", "path": "/notes", "query": {"cursor": "AAAA"}});
    assert_eq!(deployment.call(&installed, tampered).await.status, 400);
}

#[tokio::test]
async fn racing_appends_lose_no_line() {
    let deployment = Deployment::started();
    let installed = deployment.install_notes();
    deployment
        .call(
            &installed,
            send(
                "POST",
                "/notes",
                &json!({"id": "log", "title": "Log", "text": ""}),
            ),
        )
        .await;
    let append = |i: usize| {
        let line = send(
            "POST",
            "/notes/log/lines",
            &json!({"line": format!("line-{i}")}),
        );
        deployment.call(&installed, line)
    };
    // Four at a time: a guest tries five times, so none can lose against three others.
    for round in 0..5 {
        let base = round * 4;
        let answers = tokio::join!(
            append(base),
            append(base + 1),
            append(base + 2),
            append(base + 3)
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert_eq!(
                answer.status,
                200,
                "{:?}",
                String::from_utf8_lossy(&answer.body)
            );
        }
    }
    let text = deployment.call(&installed, get("/notes/log")).await.json()["note"]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    for i in 0..20 {
        assert_eq!(
            text.lines()
                .filter(|line| *line == format!("line-{i}"))
                .count(),
            1,
            "{text}"
        );
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let deployment = Deployment::started();
    let one = deployment.install_notes();
    let two = deployment.install_notes();
    assert_ne!(one.tenant, two.tenant);
    deployment
        .call(
            &one,
            send(
                "POST",
                "/notes",
                &json!({"id": "a", "title": "A", "text": "secret of one"}),
            ),
        )
        .await;
    assert_eq!(deployment.call(&two, get("/notes/a")).await.status, 404);
    assert_eq!(
        deployment.call(&two, get("/notes")).await.json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn what_was_stored_outlives_the_process_and_other_doors_see_it() {
    let mut deployment = Deployment::started();
    let installed = deployment.install_notes();
    deployment
        .call(
            &installed,
            send(
                "POST",
                "/notes",
                &json!({"id": "a", "title": "A", "text": "one"}),
            ),
        )
        .await;
    deployment.terminate();
    assert!(deployment.wait(), "{}", deployment.log());
    deployment.start();
    let url = format!("/v1/installs/{}/http/notes/a", installed.install);
    let response = deployment.request(Method::GET, &url).send().await.unwrap();
    assert_eq!(response.headers()["etag"], "\"1\"");
    let stored = deployment.ok(&["storage", "get", &installed.install, "notes", "a"]);
    assert!(stored.contains("one"), "{stored}");
}

#[test]
fn the_committed_component_belongs_to_its_source() {
    let digest = guest::notes_digest().unwrap();
    let rebuild =
        "run `scripts/build-guest guest-examples/notes --update` and commit what it changes";
    assert_eq!(
        digest.source,
        guest::source_digest().unwrap(),
        "the source has changed: {rebuild}"
    );
    let component = alga_model::ContentHash::of(&guest::notes_component());
    assert_eq!(
        digest.component, component,
        "the component was changed: {rebuild}"
    );
}

#[tokio::test]
async fn the_example_rebuilt_from_source_answers_alike() {
    let deployment = Deployment::started();
    let rebuilt = guest::rebuild_notes(&deployment.scratch("rebuilt")).unwrap();
    let installed = deployment.install("com.example.rebuilt", &rebuilt);
    let created = deployment
        .call(
            &installed,
            send(
                "POST",
                "/notes",
                &json!({"id": "a", "title": "A", "text": "one"}),
            ),
        )
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(
        deployment.call(&installed, get("/notes/a")).await.json()["note"]["text"],
        "one"
    );
}
