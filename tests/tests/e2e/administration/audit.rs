//! The export of the audit.

use alga_e2e::guest;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{done, is, lines, of, refused};
use crate::deployment::Deployment;

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
