//! Making, listing, switching and removing installs.

use alga_e2e::guest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{details, done, is, of, refused};
use crate::deployment::{Answer, Deployment, Installed, get, path};

#[tokio::test]
async fn an_install_is_made_switched_and_removed() {
    let deployment = Deployment::started();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    deployment.ok(&["bundle", "add", path(&bundle)]);
    let tenant = Uuid::new_v4().to_string();
    let create = |body: Value| deployment.admin(Method::POST, "/v1/installs").json(&body);
    let new = json!({"tenantId": tenant, "extension": "com.example.echo", "config": {"token": "hunter2"}});
    let response = create(new).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["etag"], "\"1\"");
    let made: Value = response.json().await.unwrap();
    assert_eq!(made["config"], json!({"token": "***"}));
    assert_eq!(made["version"], "1.0.0");
    let install = format!("/v1/installs/{}", made["installId"].as_str().unwrap());
    let installed = Installed {
        tenant: tenant.clone(),
        install: made["installId"].as_str().unwrap().to_owned(),
        extension: "com.example.echo".to_owned(),
        hash: made["contentHash"].as_str().unwrap().to_owned(),
    };

    let list = |query: &str| deployment.admin(Method::GET, &format!("/v1/installs?{query}"));
    let listed = done(list(&format!("tenant={tenant}&extension=com.example.echo")))
        .await
        .0;
    assert_eq!(listed, json!({"items": [made], "nextCursor": null}));
    let others = done(list(&format!("tenant={}", Uuid::new_v4()))).await.0;
    assert_eq!(others["items"], json!([]));
    let shown = done(deployment.admin(Method::GET, &install)).await;
    assert_eq!(shown, (made.clone(), "\"1\"".to_owned()));

    let patch = |body: Value| deployment.admin(Method::PATCH, &install).json(&body);
    let disable = || patch(json!({"state": "disabled"}));
    assert_eq!(
        refused(disable().header("if-match", "\"7\"")).await,
        is(412, "PRECONDITION_FAILED")
    );
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    let (disabled, tag) = done(disable().header("if-match", "\"1\"")).await;
    assert_eq!(
        (disabled["state"].as_str(), tag.as_str()),
        (Some("disabled"), "\"2\"")
    );
    // At once in the process that made the change.
    let envelope = installed.envelope(&get("/"));
    assert_eq!(
        deployment.refusal(&envelope).await,
        is(409, "INSTALL_DISABLED")
    );
    done(patch(json!({"state": "enabled"}))).await;
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    for bad in [
        json!({}),
        json!({"state": "uninstalled"}),
        json!({"state": "on"}),
        json!({"state": "enabled", "tenantId": tenant}),
        json!({"state": "enabled", "concurrency": 1}),
        json!({"concurrency": 0}),
        json!({"concurrency": 10_001}),
        json!({"concurrency": "1"}),
        json!({"allowEnvelopeConfig": null}),
        json!([]),
    ] {
        assert_eq!(
            refused(patch(bad.clone())).await,
            is(400, "BAD_REQUEST"),
            "{bad}"
        );
    }

    for (member, value) in [
        ("concurrency", json!(10_000)),
        ("concurrency", json!(null)),
        ("allowEnvelopeConfig", json!(true)),
    ] {
        let (changed, tag) = done(patch(json!({ member: value }))).await;
        assert_eq!(changed[member], value);
        let stale = patch(json!({ "concurrency": 1 })).header("if-match", "\"1\"");
        assert_eq!(refused(stale).await, is(412, "PRECONDITION_FAILED"));
        assert_eq!(done(deployment.admin(Method::GET, &install)).await.1, tag);
    }
    let audit = deployment.ok(&["audit", "--install", &installed.install]);
    for (operation, times) in [("install.concurrency", 2), ("install.envelope-config", 1)] {
        assert_eq!(audit.matches(operation).count(), times, "{audit}");
    }

    let (gone, _) = done(deployment.admin(Method::DELETE, &install)).await;
    assert_eq!(gone["state"], "uninstalled");
    assert_eq!(deployment.refusal(&envelope).await, is(404, "NOT_FOUND"));
    assert_eq!(
        done(deployment.admin(Method::DELETE, &install)).await.0,
        gone
    );
    let of_tenant = format!("tenant={tenant}");
    assert_eq!(done(list(&of_tenant)).await.0["items"], json!([]));
    let all = done(list(&format!("{of_tenant}&uninstalled=true"))).await.0;
    assert_eq!(all["items"], json!([gone]));
    let late = refused(patch(json!({"state": "enabled"}))).await;
    assert_eq!(late, is(409, "INSTALL_UNINSTALLED"));
}

#[tokio::test]
async fn the_config_of_an_envelope_counts_where_that_is_allowed() {
    let deployment = Deployment::started();
    let notes = deployment.install_notes();
    let mut envelope = notes.envelope(&get("/"));
    envelope["context"]["config"] = json!({ "greeting": "Hi" });
    for (allow, greeting) in [(true, "Hi"), (false, "Hello")] {
        let request = deployment.admin(Method::PATCH, &of(&notes, ""));
        done(request.json(&json!({ "allowEnvelopeConfig": allow }))).await;
        let response = deployment.execute(&envelope).await;
        let answer = Answer::of(&response.json().await.unwrap());
        assert_eq!(answer.json()["greeting"], greeting);
    }
}

#[tokio::test]
async fn every_mistake_of_a_request_is_named() {
    let deployment = Deployment::started();
    let create = |body: &str| {
        let request = deployment.admin(Method::POST, "/v1/installs");
        request.body(body.to_owned())
    };
    let bad = json!({"tenantId": "acme", "version": 1, "config": {"token": 5}, "sheep": true});
    let response = create(&bad.to_string()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let mistakes = details(response).await["mistakes"].clone();
    for about in [
        "tenantId",
        "`extension` is missing",
        "version",
        "config.token",
        "`sheep`",
    ] {
        let named = mistakes.as_array().unwrap().iter();
        let named = named
            .filter(|it| it.as_str().unwrap().contains(about))
            .count();
        assert!(named > 0, "{about}: {mistakes}");
    }
    for body in ["", "{", "null", "[]", "\u{0}"] {
        assert_eq!(
            refused(create(body)).await,
            is(400, "BAD_REQUEST"),
            "{body:?}"
        );
    }
    let twice = format!(
        r#"{{"tenantId": "{}", "extension": "com.example.none", "config": {{"a": "hunter2", "a": ""}}}}"#,
        Uuid::new_v4()
    );
    let response = create(&twice).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let mistakes = json!({"mistakes": ["/config/a: it is there twice"]});
    assert_eq!(details(response).await, mistakes);
    let unknown = json!({"tenantId": Uuid::new_v4(), "extension": "com.example.none"});
    assert_eq!(
        refused(create(&unknown.to_string())).await,
        is(404, "NOT_FOUND")
    );
    for query in [
        "tenant=acme",
        "sheep=1",
        "limit=0",
        "limit=201",
        "limit=many",
        "cursor=x",
        "uninstalled=maybe",
        "limit=1&limit=2",
    ] {
        let list = deployment.admin(Method::GET, &format!("/v1/installs?{query}"));
        assert_eq!(refused(list).await, is(400, "BAD_REQUEST"), "{query}");
    }
    for nothing in [
        "/v1/installs/none",
        "/v1/tenants/acme/limits",
        "/v1/extensions/Notes",
    ] {
        let shown = deployment.admin(Method::GET, nothing);
        assert_eq!(refused(shown).await, is(404, "NOT_FOUND"), "{nothing}");
    }
}

#[tokio::test]
async fn what_the_switches_leave_out_is_not_installed() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let new = json!({"tenantId": installed.tenant, "extension": "com.example.echo"});
    let create = || deployment.admin(Method::POST, "/v1/installs").json(&new);
    let allow = |names: Value| {
        let request = deployment.admin(Method::PUT, "/v1/switches");
        let body = json!({"storage": true, "allowedExtensions": names});
        request.header("if-match", "*").json(&body)
    };
    done(allow(json!(["com.example.other"]))).await;
    assert_eq!(refused(create()).await, is(409, "EXTENSION_NOT_ALLOWED"));
    let what = ["install", "create", "--extension", "com.example.echo"];
    let said = deployment.fails(&[&what[..], &["--tenant", &installed.tenant]].concat());
    assert!(said.contains("not on the list"), "{said}");
    // What is there stays.
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    done(allow(json!(["com.example.echo"]))).await;
    done(create()).await;
}

#[tokio::test]
async fn a_version_that_was_removed_comes_back_only_as_it_was() {
    let deployment = Deployment::started();
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    deployment.ok(&["bundle", "add", path(&bundle)]);
    let version = "/v1/extensions/com.example.echo/versions/1.0.0";
    let (removed, _) = done(deployment.admin(Method::DELETE, version)).await;
    let other = deployment.pack("com.example.echo", "1.0.0", &guest::trap());
    let said = deployment.fails(&["bundle", "add", path(&other)]);
    assert!(said.contains("DUPLICATE_VERSION"), "{said}");
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    deployment.ok(&["bundle", "add", path(&bundle)]);
    let (back, _) = done(deployment.admin(Method::GET, version)).await;
    assert_eq!(back["contentHash"], removed["contentHash"]);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let deployment = Deployment::started();
    let first = deployment.install("com.example.echo", &guest::echo());
    let mut expected = vec![first.install.clone()];
    for _ in 0..4 {
        let create = ["install", "create", "--tenant", &first.tenant];
        let what = ["--extension", "com.example.echo"];
        expected.push(deployment.ok(&[&create[..], &what].concat()));
    }
    let mut found = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = deployment.admin(Method::GET, &format!("/v1/installs?{query}"));
        let (page, _) = done(page).await;
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.len() <= 2);
        found.extend(
            items
                .iter()
                .map(|it| it["installId"].as_str().unwrap().to_owned()),
        );
        match page["nextCursor"].as_str() {
            Some(cursor) => query = format!("limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, expected);
}
