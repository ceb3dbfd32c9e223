//! Grants, limits, settings and switches, which are replaced as a whole.

use alga_e2e::guest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{details, done, is, of, refused};
use crate::deployment::Deployment;

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
