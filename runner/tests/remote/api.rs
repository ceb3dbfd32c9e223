//! The internal API as whoever writes a client of their own sees it.

use alga_storage::suite::{Install, Stage};
use alga_storage::{AuditFilter, Limits};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::over_sqlite;
use super::server::StorageServer;

struct Api {
    stage: Stage,
    server: StorageServer,
    http: reqwest::Client,
}

impl Api {
    async fn start() -> Self {
        let stage = over_sqlite().await;
        // Whoever asked for TLS first has said whose cryptography it is.
        let server = StorageServer::start(&stage).await;
        drop(server.client());
        Self {
            server,
            stage,
            http: reqwest::Client::builder()
                .tls_certs_only([])
                .build()
                .unwrap(),
        }
    }

    fn request(&self, install: &str, body: &str) -> RequestBuilder {
        let url = format!(
            "{}/api/internal/ext-storage/install/{install}",
            self.server.url
        );
        self.http
            .post(url)
            .header("x-runner-auth", StorageServer::TOKEN)
            .header("x-request-id", "req-1")
            .body(body.to_owned())
    }

    async fn ask(&self, install: &Install<'_>, body: Value) -> (u16, String) {
        let install = install.caller.install.to_string();
        let answer = self.request(&install, &body.to_string()).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn put(key: &str, value: &str) -> Value {
    let mut put = json!({ "operation": "put", "namespace": "notes", "key": key });
    put["value"] = serde_json::from_str(value).unwrap();
    put
}

fn error(answer: &str) -> Value {
    let body: Value = serde_json::from_str(answer).unwrap();
    body["error"].clone()
}

#[tokio::test]
async fn each_operation_answers_in_the_words_of_the_contract() {
    let api = Api::start().await;
    let install = api.stage.install();
    let now = "2027-01-15T08:00:00.000Z";
    let body = r#"{"operation": "put", "namespace": "notes", "key": "a", "value": [ 1e5, -0 ], "ttlSeconds": 60,
        "metadata": {"b": 1}}"#;
    let written = api.request(&install.caller.install.to_string(), body);
    let written = written.send().await.unwrap();
    assert_eq!(written.headers()["x-request-id"], "req-1");
    assert_eq!(
        written.text().await.unwrap(),
        format!(
            r#"{{"namespace":"notes","key":"a","revision":1,"ttlExpiresAt":"2027-01-15T08:01:00.000Z","createdAt":"{now}","updatedAt":"{now}"}}"#
        )
    );
    let record = format!(
        r#""key":"a","revision":1,"value":[1e5,-0],"metadata":{{"b":1}},"ttlExpiresAt":"2027-01-15T08:01:00.000Z","createdAt":"{now}","updatedAt":"{now}"}}"#
    );
    for (asked, answer) in [
        (
            json!({"operation": "get", "namespace": "notes", "key": "a"}),
            format!(r#"{{"namespace":"notes",{record}"#),
        ),
        (
            json!({"operation": "getMany", "namespace": "notes", "keys": ["b", "a"]}),
            format!(r#"{{"items":[{{"key":"b","found":false}},{{{record}]}}"#),
        ),
        (
            json!({"operation": "list", "namespace": "notes", "includeValues": true, "includeMetadata": true}),
            format!(r#"{{"items":[{{{record}],"nextCursor":null}}"#),
        ),
        (
            json!({"operation": "list", "namespace": "notes", "cursor": null}),
            format!(
                r#"{{"items":[{{"key":"a","revision":1,"ttlExpiresAt":"2027-01-15T08:01:00.000Z","createdAt":"{now}","updatedAt":"{now}"}}],"nextCursor":null}}"#
            ),
        ),
        (
            json!({"operation": "delete", "namespace": "notes", "key": "a"}),
            r#"{"success":true,"deleted":true}"#.to_owned(),
        ),
        (
            // Above the floor that the delete has left.
            json!({"operation": "bulkPut", "namespace": "notes", "items": [{"key": "b", "value": null}]}),
            format!(
                r#"{{"namespace":"notes","items":[{{"key":"b","revision":2,"ttlExpiresAt":null,"createdAt":"{now}","updatedAt":"{now}"}}]}}"#
            ),
        ),
        (
            json!({"operation": "usage"}),
            r#"{"bytes":6,"keys":1,"namespaces":1,"expiredNotRemoved":{"keys":0,"bytes":0},"limits":{"namespaces":32,"keysPerNamespace":5120,"bytesPerInstall":268435456,"bytesPerTenant":2147483648,"warningPercent":80,"criticalPercent":95},"perNamespace":[{"namespace":"notes","keys":1,"bytes":6}]}"#.to_owned(),
        ),
    ] {
        assert_eq!(api.ask(&install, asked).await, (200, answer));
    }
}

#[tokio::test]
async fn a_conflict_shows_the_record_as_it_is_stored() {
    let api = Api::start().await;
    let install = api.stage.install();
    install.put("a", "[1e5,-0]").await.unwrap();
    let mut asked = put("a", "2");
    asked["ifRevision"] = json!(7);
    asked["returnCurrent"] = json!(true);
    let (status, answer) = api.ask(&install, asked).await;
    assert_eq!(status, 409);
    assert!(answer.contains(r#""value":[1e5,-0]"#), "{answer}");
    let error = error(&answer);
    assert_eq!(error["code"], "REVISION_MISMATCH");
    assert_eq!(error["requestId"], "req-1");
    assert_eq!(error["details"]["currentRevision"], 1);
}

#[tokio::test]
async fn refusals_have_the_status_code_and_details_of_the_contract() {
    let api = Api::start().await;
    let install = api.stage.install();
    let bulk = json!({"operation": "bulkPut", "namespace": "notes", "items": [
        {"key": "a", "value": 1}, {"key": "b", "value": 1, "ifExists": true},
    ]});
    let mut elsewhere = put("a", "1");
    elsewhere["namespace"] = json!("other");
    let mut long = put("a", "1");
    long["value"] = json!("x".repeat(70_000));
    for (asked, status, code, details) in [
        (
            json!({"operation": "get", "namespace": "notes", "key": "a"}),
            404,
            "NOT_FOUND",
            json!({}),
        ),
        (
            json!({"operation": "get", "namespace": "Notes", "key": "a"}),
            400,
            "VALIDATION_FAILED",
            json!({"violations": [{
                "instancePath": "namespace",
                "schemaPath": "",
                "message": "a namespace is 1 to 64 characters in a-z, 0-9, '.', '_' and '-', and starts with a letter or digit",
            }]}),
        ),
        (
            elsewhere,
            403,
            "NAMESPACE_DENIED",
            json!({"namespace": "other"}),
        ),
        (
            long,
            400,
            "LIMIT_EXCEEDED",
            json!({"name": "value-bytes", "limit": 65_536, "actual": 70_002}),
        ),
        (
            bulk,
            409,
            "REVISION_MISMATCH",
            json!({"index": 1, "key": "b"}),
        ),
    ] {
        let (answered, answer) = api.ask(&install, asked).await;
        let error = error(&answer);
        assert_eq!((answered, &error["code"]), (status, &json!(code)));
        assert_eq!(error["details"], details);
    }
    let limits = Limits {
        quotas: alga_storage::Quotas {
            bytes_per_install: 10,
            ..alga_storage::Quotas::default()
        },
        rates: alga_storage::Rates::new(
            alga_storage::RateLimit {
                per_second: 1,
                burst: 1,
            },
            alga_storage::RateLimit {
                per_second: 1,
                burst: 1,
            },
            5,
        ),
        ..Limits::default()
    };
    let small = api.stage.install_with(install.tenant, limits);
    let (status, answer) = api.ask(&small, put("a", r#""0123456789""#)).await;
    assert_eq!(status, 429);
    assert_eq!(
        error(&answer)["details"],
        json!({"quota": "bytes-per-install", "limit": 10, "used": 0, "attempted": 14})
    );
    let id = small.caller.install.to_string();
    let limited = api.request(&id, &put("a", "1").to_string());
    let limited = limited.send().await.unwrap();
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.headers()["retry-after"], "1");
    let error = error(&limited.text().await.unwrap());
    assert_eq!(error["code"], "RATE_LIMITED");
    let wait = error["details"]["retryAfterMs"].as_u64().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn only_who_may_act_for_an_install_is_answered() {
    let api = Api::start().await;
    let install = api.stage.install();
    install.put("a", "1").await.unwrap();
    let id = install.caller.install.to_string();
    let get = r#"{"operation": "get", "namespace": "notes", "key": "a"}"#;
    let answered = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let code = error(&answer.text().await.unwrap())["code"].clone();
        (status, code.as_str().unwrap_or_default().to_owned())
    };
    let refused = |status, code: &str| (status, code.to_owned());
    let url = format!("{}/api/internal/ext-storage/install/{id}", api.server.url);
    let nobody = api.http.post(&url).body(get);
    assert_eq!(answered(nobody).await, refused(401, "UNAUTHORIZED"));
    // Of an install that its token is not good for, a service learns as much as of one there is not.
    let limited = api.http.post(&url).bearer_auth(StorageServer::LIMITED);
    let nowhere = alga_model::InstallId::generate().to_string();
    let denied = refused(403, "CAPABILITY_DENIED");
    assert_eq!(answered(limited.body(get)).await, denied);
    assert_eq!(answered(api.request(&nowhere, get)).await, denied);
    let admin = api.http.post(&url).bearer_auth(StorageServer::ADMIN);
    let forbidden = refused(403, "FORBIDDEN");
    assert_eq!(answered(admin.body(get)).await, forbidden);
    let twice = api.request(&id, get).header("x-alga-actor", "invocation:1");
    let twice = answered(twice.header("x-alga-actor", "invocation:2")).await;
    assert_eq!(twice, refused(400, "BAD_REQUEST"));
    let no_id = answered(api.request("x", get)).await;
    assert_eq!(no_id, refused(400, "VALIDATION_FAILED"));
    let other = api.request(&id, get).header("x-alga-storage-version", "2");
    assert_eq!(answered(other).await, refused(400, "VALIDATION_FAILED"));
    let large = format!("{get}{}", " ".repeat(10 << 20));
    let large = api.request(&id, &large);
    assert_eq!(answered(large).await, refused(413, "LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn the_audit_names_the_service_and_for_whom_it_acts() {
    let api = Api::start().await;
    let install = api.stage.install();
    let id = install.caller.install.to_string();
    for actor in [None, Some("invocation:1"), Some("ann@example.com")] {
        let request = api.request(&id, &put("a", "1").to_string());
        let request = match actor {
            Some(actor) => request.header("x-alga-actor", actor),
            None => request,
        };
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let filter = AuditFilter {
        install: Some(install.caller.install),
        ..AuditFilter::default()
    };
    let audit = api.stage.maintenance().audit(&filter, None, 10).await;
    let audit = audit.unwrap();
    let told: Vec<_> = audit
        .iter()
        .map(|record| (record.actor.as_str(), record.request_id.as_deref()))
        .collect();
    let request = Some("req-1");
    assert_eq!(
        told,
        [
            ("service:tests", request),
            ("invocation:1", request),
            ("service:tests/ann@example.com", request),
        ]
    );
}
