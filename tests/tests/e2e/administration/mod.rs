//! Administration over HTTP, and by commands that ask a server.

mod audit;
mod commands;
mod installs;
mod replacing;
mod scopes;
mod tls;
mod upgrades;
mod warmup;

use alga_e2e::guest;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, path, refusal};
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

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
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
async fn only_administrators_administrate() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    let mut tried = 0;
    for (path, method, operation) in operations(&document) {
        // The answer to a HEAD says nothing but its status.
        if operation["tags"] != json!(["administration"]) || method == Method::HEAD {
            continue;
        }
        tried += 1;
        let path = path
            .replace("{install_id}", &Uuid::new_v4().to_string())
            .replace("{tenant_id}", &Uuid::new_v4().to_string())
            .replace("{upload_id}", &Uuid::new_v4().to_string())
            .replace("{name}", "com.example.none")
            .replace("{version}", "1.0.0");
        let service = || deployment.request(method.clone(), &path);
        let anonymous = refused(deployment.anonymous(method.clone(), &path)).await;
        assert_eq!(anonymous, is(401, "UNAUTHORIZED"), "{method} {path}");
        let forbidden = if path.starts_with("/api/ext-bundles/") {
            "RBAC_FORBIDDEN"
        } else {
            "FORBIDDEN"
        };
        for alone in [service(), service().header("x-alga-admin", "1")] {
            assert_eq!(refused(alone).await, is(403, forbidden), "{method} {path}");
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
