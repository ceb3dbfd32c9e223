//! Administration over HTTP, and by commands that ask a server.

use std::collections::BTreeSet;

use alga_e2e::guest;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, get, path, refusal};
use crate::openapi::{document, operations};

/// The answer of a request that succeeds, and its `ETag`.
async fn done(request: RequestBuilder) -> (Value, String) {
    let response = request.send().await.unwrap();
    let (status, url) = (response.status(), response.url().clone());
    let tag = response
        .headers()
        .get("etag")
        .map(|tag| tag.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    assert!(status.is_success(), "{url}: {status} {body}");
    (body, tag.unwrap_or_default())
}

async fn refused(request: RequestBuilder) -> (u16, String) {
    refusal(request.send().await.unwrap()).await
}

/// The details of a refusal.
async fn details(response: Response) -> Value {
    let body: Value = response.json().await.unwrap();
    body["error"]["details"].clone()
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn of(installed: &Installed, rest: &str) -> String {
    format!("/v1/installs/{}{rest}", installed.install)
}

#[tokio::test]
async fn only_administrators_administrate() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    let mut tried = 0;
    for (path, method, operation) in operations(&document) {
        if operation["tags"] != json!(["administration"]) {
            continue;
        }
        tried += 1;
        let path = path
            .replace("{install_id}", &Uuid::new_v4().to_string())
            .replace("{tenant_id}", &Uuid::new_v4().to_string())
            .replace("{name}", "com.example.none")
            .replace("{version}", "1.0.0");
        let service = || deployment.request(method.clone(), &path);
        let anonymous = refused(deployment.anonymous(method.clone(), &path)).await;
        assert_eq!(anonymous, is(401, "UNAUTHORIZED"), "{method} {path}");
        for alone in [service(), service().header("x-alga-admin", "1")] {
            assert_eq!(
                refused(alone).await,
                is(403, "FORBIDDEN"),
                "{method} {path}"
            );
        }
        let acting = service()
            .header("x-alga-admin", "true")
            .send()
            .await
            .unwrap();
        let admin = deployment
            .admin(method.clone(), &path)
            .send()
            .await
            .unwrap();
        assert_eq!(acting.status(), admin.status(), "{method} {path}");
        assert!(
            ![401, 403].contains(&admin.status().as_u16()),
            "{method} {path}"
        );
    }
    assert!(tried > 20, "{tried}");
}

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
        json!([]),
    ] {
        assert_eq!(
            refused(patch(bad.clone())).await,
            is(400, "BAD_REQUEST"),
            "{bad}"
        );
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

#[tokio::test]
async fn what_is_replaced_as_a_whole_must_have_been_seen() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let narrow = json!({"alga.storage": {"namespaces": [{"name": "notes", "access": ["read"]}]}});
    let overrides = json!({"overrides": {"quotas": {"namespaces": 3}}});
    let of_tenant = |rest: &str| format!("/v1/tenants/{}{rest}", installed.tenant);
    for (path, body, bad) in [
        (
            of(&installed, "/grants"),
            json!({"grants": narrow}),
            json!({"grants": {"alga.teleport": {}}}),
        ),
        (
            of(&installed, "/quotas"),
            overrides.clone(),
            json!({"overrides": {"quotas": {"sheep": 1}}}),
        ),
        (
            of(&installed, "/config"),
            json!({"config": {"token": "hunter2"}}),
            json!({"config": {"token": 1}}),
        ),
        (
            of_tenant("/limits"),
            overrides.clone(),
            json!({"overrides": {"sheep": 1}}),
        ),
        (
            of_tenant("/switches"),
            json!({"storage": false}),
            json!({"storage": "off"}),
        ),
        (
            "/v1/switches".to_owned(),
            json!({"storage": false, "allowedExtensions": []}),
            json!({"storage": false}),
        ),
    ] {
        let put = |tag: Option<&str>, body: &Value| {
            let request = deployment.admin(Method::PUT, &path).json(body);
            match tag {
                Some(tag) => request.header("if-match", tag),
                None => request,
            }
        };
        let (_, tag) = done(deployment.admin(Method::GET, &path)).await;
        assert_eq!(
            refused(put(None, &body)).await,
            is(428, "PRECONDITION_REQUIRED"),
            "{path}"
        );
        assert_eq!(
            refused(put(Some("\"99\""), &body)).await,
            is(412, "PRECONDITION_FAILED"),
            "{path}"
        );
        for malformed in ["99", "\"x\"", "W/\"1\""] {
            assert_eq!(
                refused(put(Some(malformed), &body)).await,
                is(400, "BAD_REQUEST"),
                "{path}"
            );
        }
        let mut unknown = body.clone();
        unknown["sheep"] = json!(1);
        for bad in [&bad, &unknown, &json!({})] {
            assert_eq!(
                refused(put(Some(&tag), bad)).await,
                is(400, "BAD_REQUEST"),
                "{path}: {bad}"
            );
        }
        assert_eq!(
            done(deployment.admin(Method::GET, &path)).await.1,
            tag,
            "{path}: nothing happened"
        );

        let replaced = done(put(Some(&tag), &body)).await;
        assert_ne!(replaced.1, tag, "{path}");
        assert_eq!(
            done(deployment.admin(Method::GET, &path)).await,
            replaced,
            "{path}"
        );
        let stale = put(Some(&tag), &body).send().await.unwrap();
        assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED, "{path}");
        let present = details(stale).await["generation"].to_string();
        assert_eq!(format!("\"{present}\""), replaced.1, "{path}");
        // The same once more, whatever is there: no change, so no generation.
        assert_eq!(done(put(Some("*"), &body)).await, replaced, "{path}");
    }
    let shown = done(deployment.admin(Method::GET, "/v1/switches")).await.0;
    assert_eq!(shown["storageOffForTenants"], json!([installed.tenant]));
    let limits = done(deployment.admin(Method::GET, &of(&installed, "/quotas")))
        .await
        .0;
    assert_eq!(limits["effective"]["quotas"]["namespaces"], 3);
    assert_eq!(limits["effective"]["quotas"]["bytesPerInstall"], 256 << 20);
}

#[tokio::test]
async fn values_of_settings_go_in_and_never_come_out() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let config = of(&installed, "/config");
    let put = |config_of: Value| {
        let request = deployment
            .admin(Method::PUT, &config)
            .header("if-match", "*");
        request.json(&json!({ "config": config_of }))
    };
    let (shown, _) = done(put(json!({"token": "hunter2", "mode": "fast"}))).await;
    assert_eq!(shown["config"], json!({"token": "***", "mode": "***"}));
    let (kept, _) = done(put(json!({"token": null, "other": "x"}))).await;
    assert_eq!(kept["config"], json!({"token": "***", "other": "***"}));
    // What was read and written back would put the mask in the secret's place.
    for bad in [json!({"token": "***"}), json!({"mode": null})] {
        assert_eq!(refused(put(bad)).await, is(400, "BAD_REQUEST"));
    }
    let audit = deployment
        .admin(Method::GET, "/v1/audit")
        .send()
        .await
        .unwrap();
    let audit = audit.text().await.unwrap();
    assert!(audit.contains("install.config"), "{audit}");
    assert!(!audit.contains("hunter2") && !deployment.log().contains("hunter2"));
}

/// An extension in two versions, the second of which asks for more; the first one is installed.
fn in_two_versions(deployment: &Deployment) -> Installed {
    let name = "com.example.echo";
    let first = deployment.pack_asking(name, "1.0.0", &guest::echo(), &["notes"]);
    let installed = deployment.publish(name, &first);
    let second = deployment.pack_asking(name, "2.0.0", &guest::echo_request(), &["notes", "more"]);
    deployment.ok(&["bundle", "add", path(&second)]);
    installed
}

#[tokio::test]
async fn an_upgrade_with_wider_grants_must_be_approved_and_can_be_taken_back() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let post = |what: &str, body: Value| {
        let path = of(&installed, what);
        deployment.admin(Method::POST, &path).json(&body)
    };
    assert_eq!(
        refused(post("/rollback", json!({}))).await,
        is(409, "NOTHING_TO_ROLL_BACK")
    );
    let more =
        |access: &str| json!({"capability": "alga.storage", "allows": format!("{access} more")});
    let wider = json!({"added": [more("read"), more("write")], "removed": []});

    let unapproved = post("/upgrade", json!({"version": "2.0.0"}))
        .send()
        .await
        .unwrap();
    assert_eq!(unapproved.status(), StatusCode::CONFLICT);
    assert_eq!(details(unapproved).await, json!({"difference": wider}));
    let (dry, _) = done(post("/upgrade", json!({"dryRun": true}))).await;
    assert_eq!(
        (&dry["to"], &dry["done"], &dry["difference"]),
        (&json!("2.0.0"), &json!(false), &wider)
    );
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    for (body, expected) in [
        (json!({"version": "9.9.9"}), is(404, "NOT_FOUND")),
        (json!({"version": 2}), is(400, "BAD_REQUEST")),
        (json!({"approved": true}), is(400, "BAD_REQUEST")),
        (
            json!({"grants": {"alga.teleport": {}}, "approve": true}),
            is(400, "BAD_REQUEST"),
        ),
    ] {
        assert_eq!(refused(post("/upgrade", body)).await, expected);
    }
    let stale = post("/upgrade", json!({"approve": true})).header("if-match", "\"9\"");
    assert_eq!(refused(stale).await, is(412, "PRECONDITION_FAILED"));

    let (upgraded, tag) = done(post("/upgrade", json!({"approve": true}))).await;
    assert_eq!(
        (&upgraded["from"], &upgraded["done"]),
        (&json!("1.0.0"), &json!(true))
    );
    assert_eq!(
        (&upgraded["install"]["formerVersion"], tag.as_str()),
        (&json!("1.0.0"), "\"2\"")
    );
    let envelope = installed.envelope(&get("/"));
    assert_eq!(
        deployment.refusal(&envelope).await,
        is(403, "CONTEXT_MISMATCH"),
        "other content"
    );

    let version = |version: &str| format!("/v1/extensions/com.example.echo/versions/{version}");
    for needed in ["1.0.0", "2.0.0"] {
        let response = deployment
            .admin(Method::DELETE, &version(needed))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CONFLICT, "{needed}");
        assert_eq!(
            details(response).await,
            json!({"installs": [installed.install]})
        );
    }
    let (back, _) = done(post("/rollback", json!({}))).await;
    assert_eq!(
        (&back["to"], &back["install"]["formerVersion"]),
        (&json!("1.0.0"), &json!(null))
    );
    assert_eq!(back["difference"]["removed"], wider["added"]);
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    assert_eq!(
        refused(post("/rollback", json!({}))).await,
        is(409, "NOTHING_TO_ROLL_BACK")
    );

    let (removed, _) = done(deployment.admin(Method::DELETE, &version("2.0.0"))).await;
    assert_eq!(
        (&removed["version"], &removed["manifest"]["version"]),
        (&json!("2.0.0"), &json!("2.0.0"))
    );
    let again = deployment.admin(Method::DELETE, &version("2.0.0"));
    assert_eq!(refused(again).await, is(404, "NOT_FOUND"));
    let (extension, _) =
        done(deployment.admin(Method::GET, "/v1/extensions/com.example.echo")).await;
    let left = extension["versions"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{extension}");
    let (all, _) = done(deployment.admin(Method::GET, "/v1/extensions")).await;
    assert_eq!(all["items"][0]["name"], "com.example.echo");
}

#[tokio::test]
async fn what_was_withheld_or_taken_away_does_not_come_back_unseen() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let post = |what: &str, body: Value| {
        let path = of(&installed, what);
        deployment.admin(Method::POST, &path).json(&body)
    };
    let grant = |grants: Value| {
        let request = deployment.admin(Method::PUT, &of(&installed, "/grants"));
        request
            .header("if-match", "*")
            .json(&json!({ "grants": grants }))
    };
    let reading = json!({"alga.storage": {"namespaces": [{"name": "notes", "access": ["read"]}]}});
    done(grant(reading.clone())).await;
    let (upgraded, _) = done(post("/upgrade", json!({"approve": true}))).await;
    let namespaces = &upgraded["install"]["grants"]["alga.storage"]["namespaces"];
    assert_eq!(namespaces[0], json!({"name": "notes", "access": ["read"]}));
    assert_eq!(
        namespaces[1],
        json!({"name": "more", "access": ["read", "write"]})
    );

    done(grant(json!({}))).await;
    let back = refused(post("/rollback", json!({}))).await;
    assert_eq!(back, is(409, "APPROVAL_NEEDED"));
    let (back, _) = done(post("/rollback", json!({"approve": true}))).await;
    assert_eq!(back["install"]["grants"], reading);
}

#[tokio::test]
async fn a_limited_token_administrates_its_own_alone() {
    let mut deployment = Deployment::new();
    let mine = deployment.install("com.example.echo", &guest::echo());
    let theirs = deployment.install("com.example.other", &guest::trap());
    let (of_tenant, of_install) = (
        "an-admin-token-for-one-tenant",
        "an-admin-token-for-one-install",
    );
    let config = format!(
        "[[auth.admin_tokens]]\nid = \"tenant\"\ntoken = \"{of_tenant}\"\ntenants = [\"{}\"]\n\
         [[auth.admin_tokens]]\nid = \"install\"\ntoken = \"{of_install}\"\ninstalls = [\"{}\"]\n",
        mine.tenant, mine.install
    );
    let file = deployment.scratch("limited.toml");
    std::fs::write(&file, config).unwrap();
    deployment.set("ALGA_CONFIG", path(&file));
    deployment.start();
    for token in [of_tenant, of_install] {
        let ask =
            |method: Method, path: &str| deployment.anonymous(method, path).bearer_auth(token);
        let get = |path: &str| ask(Method::GET, path);
        let (listed, _) = done(get("/v1/installs")).await;
        let ids: Vec<_> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["installId"])
            .collect();
        assert_eq!(ids, [&json!(mine.install)], "{token}");
        for rest in ["", "/grants", "/quotas", "/config", "/usage"] {
            done(get(&of(&mine, rest))).await;
            let foreign = refused(get(&of(&theirs, rest))).await;
            assert_eq!(foreign, is(404, "NOT_FOUND"), "{token} {rest}");
        }
        for (method, rest) in [
            (Method::DELETE, ""),
            (Method::POST, "/upgrade"),
            (Method::POST, "/rollback"),
        ] {
            let foreign = refused(ask(method, &of(&theirs, rest))).await;
            assert_eq!(foreign, is(404, "NOT_FOUND"), "{token} {rest}");
        }
        for whole in [
            "/v1/switches",
            "/v1/extensions",
            "/v1/extensions/com.example.echo",
        ] {
            assert_eq!(
                refused(get(whole)).await,
                is(403, "FORBIDDEN"),
                "{token} {whole}"
            );
        }
        let audit = get("/v1/audit").send().await.unwrap().text().await.unwrap();
        let installs: BTreeSet<_> = lines(&audit)
            .iter()
            .map(|it| it["installId"].clone().to_string())
            .collect();
        assert_eq!(
            installs,
            [json!(mine.install).to_string()].into(),
            "{audit}"
        );
        let foreign = format!("/v1/audit?install={}", theirs.install);
        assert_eq!(
            refused(get(&foreign)).await,
            is(404, "NOT_FOUND"),
            "{token}"
        );
        let new = json!({"tenantId": theirs.tenant, "extension": "com.example.echo"});
        let foreign = ask(Method::POST, "/v1/installs")
            .json(&new)
            .send()
            .await
            .unwrap();
        assert!([403, 404].contains(&foreign.status().as_u16()), "{token}");
        let foreign = format!("/v1/tenants/{}/usage", theirs.tenant);
        let foreign = get(&foreign).send().await.unwrap();
        assert!([403, 404].contains(&foreign.status().as_u16()), "{token}");
    }
    let usage = format!("/v1/tenants/{}/usage", mine.tenant);
    let tenant_wide = |token: &str| deployment.anonymous(Method::GET, &usage).bearer_auth(token);
    done(tenant_wide(of_tenant)).await;
    assert_eq!(refused(tenant_wide(of_install)).await, is(403, "FORBIDDEN"));
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn the_audit_tells_who_asked_and_in_which_request() {
    let deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    let disable = json!({"state": "disabled"});
    let path = of(&installed, "");
    let by_admin = deployment
        .admin(Method::PATCH, &path)
        .header("x-request-id", "req-admin");
    done(
        by_admin
            .header("x-alga-actor", "somebody-else")
            .json(&disable),
    )
    .await;
    let by_service = deployment
        .request(Method::DELETE, &path)
        .header("x-request-id", "req-service");
    done(
        by_service
            .header("x-alga-admin", "true")
            .header("x-alga-actor", "ann@example.com"),
    )
    .await;

    let audit = |query: &str| deployment.admin(Method::GET, &format!("/v1/audit?{query}"));
    let response = audit(&format!("install={}", installed.install))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let told: Vec<_> = lines(&text)
        .iter()
        .map(|line| {
            format!(
                "{} {} {}",
                line["operation"], line["actor"], line["requestId"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "install.create admin:cli null",
            "install.state admin:local-admin req-admin",
            "install.state admin:local-service/ann@example.com req-service",
        ]
    );
    assert_eq!(
        text.trim_end(),
        deployment.ok(&["audit", "--install", &installed.install])
    );
    let later = audit("since=2999-01-01T00:00:00Z&until=2999-01-02T00:00:00Z");
    assert_eq!(later.send().await.unwrap().text().await.unwrap(), "");
    for bad in [
        "since=yesterday",
        "install=none",
        "sheep=1",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
    ] {
        assert_eq!(refused(audit(bad)).await, is(400, "BAD_REQUEST"), "{bad}");
    }
    let unknown = audit(&format!("install={}", Uuid::new_v4()));
    assert_eq!(refused(unknown).await, is(404, "NOT_FOUND"));
}

#[tokio::test]
async fn a_command_says_the_same_of_a_server_as_of_the_data_folder() {
    let deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let (install, tenant) = (installed.install.as_str(), installed.tenant.as_str());
    deployment.ok(&["storage", "put", install, "notes", "a", "1"]);
    let token = deployment.data().join("admin.token");
    let server = ["--server", deployment.url(), "--token-file", path(&token)];
    for command in [
        &["install", "list"][..],
        &[
            "install",
            "list",
            "--tenant",
            tenant,
            "--extension",
            "com.example.echo",
        ],
        &["install", "show", install],
        &["install", "limits", install],
        &["install", "upgrade", install, "--dry-run"],
        &["install", "upgrade", install],
        &["install", "rollback", install],
        &["install", "show", tenant],
        &["install", "grant", install, "--grants", "no-such-file"],
        &[
            "install",
            "limits",
            install,
            "--set",
            r#"{"quotas": {"sheep": 1, "goats": 2}}"#,
        ],
        &[
            "install",
            "create",
            "--tenant",
            tenant,
            "--extension",
            "com.example.none",
        ],
        &["extension", "list"],
        &["extension", "show", "com.example.echo"],
        &[
            "extension",
            "show",
            "com.example.echo",
            "--version",
            "2.0.0",
        ],
        &["extension", "show", "com.example.none"],
        &["tenant", "limits", tenant],
        &["switches"],
        &["switches", "--tenant", tenant],
        &["switches", "allow", "--add", "com.example.echo"],
        &["usage", "show", install],
        &["usage", "show", "--tenant", tenant],
        &["audit"],
        &["audit", "--tenant", tenant, "--since", "1h"],
        &["audit", "--install", tenant],
    ] {
        let (here, there) = (
            deployment.run(command),
            deployment.run(&[command, &server].concat()),
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = |output: &std::process::Output| {
            (
                output.status.code(),
                text(&output.stdout),
                text(&output.stderr),
            )
        };
        assert_eq!(said(&here), said(&there), "{command:?}");
    }
}

#[tokio::test]
async fn commands_change_what_a_server_keeps() {
    let mut deployment = Deployment::started();
    let installed = in_two_versions(&deployment);
    let (install, tenant) = (installed.install.clone(), installed.tenant.clone());
    let (url, token) = (deployment.url().to_owned(), deployment.admin_token());
    // Nothing of it is in the folder that the commands would work on otherwise.
    deployment.set(
        "ALGA_DATA_DIR",
        path(&deployment.scratch("elsewhere")).to_owned().as_str(),
    );
    deployment.set("ALGA_SERVER", &format!("{url}/"));
    deployment.set("ALGA_TOKEN", &token);
    let json =
        |command: &[&str]| -> Value { serde_json::from_str(&deployment.ok(command)).unwrap() };

    deployment.ok(&["install", "disable", &install]);
    assert_eq!(json(&["install", "show", &install])["state"], "disabled");
    deployment.ok(&["install", "enable", &install]);
    deployment.ok(&["install", "grant", &install, "--none"]);
    assert_eq!(json(&["install", "show", &install])["grants"], json!({}));
    deployment.ok(&["install", "grant", &install, "--all"]);
    let refused = deployment.fails(&["install", "upgrade", &install]);
    assert!(
        refused.contains("alga.storage: write more") && refused.contains("--approve"),
        "{refused}"
    );
    let upgraded = json(&["install", "upgrade", &install, "--approve"]);
    assert_eq!(upgraded["install"]["version"], "2.0.0");
    assert_eq!(json(&["install", "rollback", &install])["to"], "1.0.0");
    let limits = json(&[
        "install",
        "limits",
        &install,
        "--set",
        r#"{"quotas": {"namespaces": 3}}"#,
    ]);
    assert_eq!(limits["effective"]["quotas"]["namespaces"], 3);
    let limits = json(&[
        "tenant",
        "limits",
        &tenant,
        "--set",
        r#"{"quotas": {"namespaces": 2}}"#,
    ]);
    assert_eq!(limits["overrides"]["quotas"]["namespaces"], 2);
    assert_eq!(json(&["switches", "storage", "off"])["storage"], false);
    assert_eq!(json(&["switches", "storage", "on"])["storage"], true);
    let off = json(&["switches", "storage", "off", "--tenant", &tenant]);
    assert_eq!(off["storageOffForTenants"], json!([tenant]));
    let allowed = json(&["switches", "allow", "com.example.echo"]);
    assert_eq!(allowed["allowedExtensions"], json!(["com.example.echo"]));
    let create = [
        "install",
        "create",
        "--tenant",
        &tenant,
        "--extension",
        "com.example.echo",
    ];
    let second = deployment.ok(&[&create[..], &["--set", "token=hunter2"]].concat());
    deployment.ok(&["install", "uninstall", &second]);
    assert_eq!(json(&["install", "show", &second])["state"], "uninstalled");
    assert!(!deployment.scratch("elsewhere").exists());

    for (variable, value, said) in [
        (
            "ALGA_TOKEN",
            "a-token-that-is-none",
            "a token that is accepted",
        ),
        (
            "ALGA_SERVER",
            "http://127.0.0.1:1",
            "cannot reach the server",
        ),
        ("ALGA_SERVER", "https://runner.example", "no TLS"),
        ("ALGA_SERVER", "runner", "must be a URL"),
    ] {
        let output = deployment
            .command(&["install", "list"])
            .env(variable, value)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(said),
            "{stderr}"
        );
        assert!(!stderr.contains(&token), "{stderr}");
    }
    let local = deployment.fails(&["storage", "list", &install, "notes", "--server", &url]);
    assert!(local.contains("works on the data folder"), "{local}");
}
