//! Tokens that are limited to tenants or installs.

use std::collections::BTreeSet;

use alga_e2e::guest;
use reqwest::Method;
use serde_json::{Value, json};

use super::{done, is, lines, of, refused};
use crate::deployment::{Deployment, Installed, path};

const OF_TENANT: &str = "an-admin-token-for-one-tenant";
const OF_INSTALL: &str = "an-admin-token-for-one-install";

/// Two tenants with an install each, and tokens for the first one and its install.
fn with_limited_tokens() -> (Deployment, [Installed; 2]) {
    let mut deployment = Deployment::new();
    let mine = deployment.install("com.example.echo", &guest::echo());
    let theirs = deployment.install("com.example.other", &guest::trap());
    let config = format!(
        "[[auth.admin_tokens]]\nid = \"tenant\"\ntoken = \"{OF_TENANT}\"\ntenants = [\"{}\"]\n\
         [[auth.admin_tokens]]\nid = \"install\"\ntoken = \"{OF_INSTALL}\"\ninstalls = [\"{}\"]\n",
        mine.tenant, mine.install
    );
    let file = deployment.scratch("limited.toml");
    std::fs::write(&file, config).unwrap();
    deployment.set("ALGA_CONFIG", path(&file));
    deployment.start();
    (deployment, [mine, theirs])
}

#[tokio::test]
async fn a_limited_token_administrates_its_own_alone() {
    let (deployment, [mine, theirs]) = with_limited_tokens();
    for token in [OF_TENANT, OF_INSTALL] {
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
        let key = format!("sha256/_staging/{}/bundle.tar.zst", uuid::Uuid::new_v4());
        for path in ["upload-proxy?filename=a&size=1", "finalize", "abort"] {
            let path = format!("/api/ext-bundles/{path}");
            let request = ask(Method::POST, &path).json(&json!({ "key": key }));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 403, "{token} {path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["code"], "RBAC_FORBIDDEN", "{body}");
            let why = "limited to some tenants or installs";
            assert!(body["error"].as_str().unwrap().contains(why), "{body}");
        }
        let warmup = |item| {
            let items = json!({ "items": [item] });
            ask(Method::POST, "/v1/warmup").json(&items)
        };
        let whole = warmup(json!({ "contentHash": mine.hash }));
        assert_eq!(refused(whole).await, is(403, "FORBIDDEN"), "{token}");
        let (ready, _) = done(warmup(json!({ "installId": mine.install }))).await;
        assert_eq!(ready["items"][0]["ready"], true, "{token} {ready}");
        let (foreign, _) = done(warmup(json!({ "installId": theirs.install }))).await;
        assert_eq!(foreign["items"][0]["error"]["code"], "NOT_FOUND", "{token}");
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
    done(tenant_wide(OF_TENANT)).await;
    assert_eq!(refused(tenant_wide(OF_INSTALL)).await, is(403, "FORBIDDEN"));
}

#[tokio::test]
async fn a_limited_token_sets_none_of_its_own_bounds() {
    let (deployment, [mine, theirs]) = with_limited_tokens();
    for token in [OF_TENANT, OF_INSTALL] {
        let ask =
            |method: Method, path: &str| deployment.anonymous(method, path).bearer_auth(token);
        let overrides = json!({"overrides": {"quotas": {"namespaces": 3}}});
        let quotas = || ask(Method::PUT, &of(&mine, "/quotas")).json(&overrides);
        let any = ("if-match", "*");
        assert_eq!(
            refused(quotas().header(any.0, any.1)).await,
            is(403, "FORBIDDEN")
        );
        let foreign = ask(Method::PUT, &of(&theirs, "/quotas")).json(&overrides);
        assert_eq!(
            refused(foreign.header(any.0, any.1)).await,
            is(404, "NOT_FOUND")
        );
        for (rest, body) in [
            ("limits", &overrides),
            ("switches", &json!({"storage": true})),
        ] {
            let path = format!("/v1/tenants/{}/{rest}", mine.tenant);
            let put = ask(Method::PUT, &path).json(body);
            assert_eq!(
                refused(put.header(any.0, any.1)).await,
                is(403, "FORBIDDEN"),
                "{token} {rest}"
            );
        }
        let bounded = json!({
            "tenantId": mine.tenant, "extension": "com.example.echo",
            "limits": {"quotas": {"namespaces": 3}},
        });
        let create = ask(Method::POST, "/v1/installs").json(&bounded);
        assert_eq!(refused(create).await, is(403, "FORBIDDEN"), "{token}");
    }
    for rest in ["limits", "switches"] {
        let path = format!("/v1/tenants/{}/{rest}", mine.tenant);
        let shown = deployment.anonymous(Method::GET, &path);
        done(shown.bearer_auth(OF_TENANT)).await;
    }
    let new = json!({"tenantId": mine.tenant, "extension": "com.example.other"});
    let create = deployment.anonymous(Method::POST, "/v1/installs");
    done(create.bearer_auth(OF_TENANT).json(&new)).await;
}
