//! The `OpenAPI` document: public, sound, and about the routes that there are.

use std::collections::BTreeSet;

use alga_e2e::guest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, get, refusal};

pub(crate) async fn document(deployment: &Deployment) -> Value {
    let request = deployment.anonymous(Method::GET, "/openapi.json");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

/// Every operation: path, method, description.
pub(crate) fn operations(document: &Value) -> Vec<(&str, Method, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| {
            let method = method.to_uppercase().parse().unwrap();
            (path.as_str(), method, operation)
        })
    });
    each.collect()
}

/// Everything in a JSON value, the value itself among it.
fn everything(value: &Value) -> Vec<&Value> {
    let below: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    };
    let below = below.into_iter().flat_map(everything);
    std::iter::once(value).chain(below).collect()
}

fn placeholders(path: &str) -> BTreeSet<&str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .collect()
}

#[tokio::test]
async fn the_document_follows_the_rules_of_openapi() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    assert_eq!(document["openapi"], "3.1.0");
    for member in ["title", "version"] {
        assert!(document["info"][member].is_string());
    }
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        let is_of_bundles = path.starts_with("/api/ext-bundles/");
        let flat = "#/components/schemas/BundleError";
        for value in everything(&operation["responses"]) {
            if let Some(reference) = value
                .get("$ref")
                .filter(|it| it.as_str().unwrap().ends_with("Error"))
            {
                assert_eq!(reference == flat, is_of_bundles, "{what}");
            }
        }
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{what}: {id} is another's");
        assert!(operation["summary"].is_string(), "{what}");
        let parameters = operation["parameters"].as_array();
        let parameters: Vec<_> = parameters.into_iter().flatten().collect();
        let mut named = BTreeSet::new();
        for parameter in &parameters {
            let place = parameter["in"].as_str().unwrap();
            let name = parameter["name"].as_str().unwrap();
            assert!(["path", "query", "header"].contains(&place), "{what}");
            assert!(named.insert((place, name)), "{what}: {name} twice");
            assert!(parameter["schema"].is_object(), "{what}: {name}");
            if place == "path" {
                assert_eq!(parameter["required"], true, "{what}: {name}");
            }
        }
        let in_path: BTreeSet<_> = named
            .iter()
            .filter_map(|(place, name)| (*place == "path").then_some(*name))
            .collect();
        assert_eq!(in_path, placeholders(path), "{what}");
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            let is_status = status
                .parse::<u16>()
                .is_ok_and(|it| (100..600).contains(&it));
            assert!(is_status || status == "default", "{what}: {status}");
            assert!(response["description"].is_string(), "{what}: {status}");
        }
        assert!(
            responses
                .keys()
                .any(|status| status.starts_with('2') || status == "default"),
            "{what}"
        );
    }
    for value in everything(&document) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let is_schema =
            value.get("type").is_some_and(Value::is_string) && value.get("in").is_none();
        if is_schema && value.get("scheme").is_none() {
            assert!(jsonschema::draft202012::meta::is_valid(value), "{value}");
        }
    }
}

#[tokio::test]
async fn what_the_document_names_is_there() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    for (path, method, _) in operations(&document) {
        let mut filled = path.to_owned();
        for name in placeholders(path) {
            filled = filled.replace(&format!("{{{name}}}"), &Uuid::new_v4().to_string());
        }
        let response = deployment
            .admin(method.clone(), &filled)
            .send()
            .await
            .unwrap();
        let status = response.status();
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        if status == StatusCode::NOT_FOUND && method != Method::HEAD {
            let body: Value = response.json().await.unwrap();
            let error = &body["error"];
            let message = error.as_str().or(error["message"].as_str()).unwrap();
            assert!(!message.contains("no such path"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_there_is_in_the_document() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    let router = include_str!("../../../runner/src/http/mod.rs");
    let routes = router.split(".route(").skip(1);
    let routes = routes.map(|rest| rest.split('"').nth(1).unwrap());
    // Calls have none in the router.
    let calls = include_str!("../../../runner/src/http/front.rs");
    let calls = calls.split("RouteMetrics::new(\"/v1/").skip(1);
    let calls = calls.map(|rest| rest.split('"').next().unwrap());
    let paths: Vec<_> = routes
        .map(ToOwned::to_owned)
        .chain(calls.map(|rest| format!("/v1/{rest}")))
        .collect();
    assert!(paths.len() > 6, "{paths:?}");
    for path in paths {
        let path = path.replace("{*path}", "{path}");
        assert!(document["paths"][&path].is_object(), "{path}");
    }
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let deployment = Deployment::started();
    let document = document(&deployment).await;
    let installed = deployment.install("com.example.echo", &guest::echo());
    deployment.call(&installed, get("/")).await;
    let invocation = deployment.last_invocation(&installed).await;
    let invocation = invocation["invocationId"].as_str().unwrap();
    let upload = Uuid::new_v4().to_string();
    let target = format!("/api/ext-bundles/upload-proxy?filename=a&size=1&uploadId={upload}");
    let sent = deployment
        .admin(Method::POST, &target)
        .body("a")
        .send()
        .await;
    assert_eq!(sent.unwrap().status(), StatusCode::OK);
    let mut looked_at = 0;
    for (path, method, operation) in operations(&document) {
        let is_json = operation.pointer("/responses/200/content/application~1json/schema");
        let (&Method::GET, Some(schema)) = (&method, is_json) else {
            continue;
        };
        let filled = path
            .replace("{install_id}", &installed.install)
            .replace("{tenant_id}", &installed.tenant)
            .replace("{invocation_id}", invocation)
            .replace("{upload_id}", &upload)
            .replace("{name}", &installed.extension)
            .replace("{version}", "1.0.0");
        let response = deployment.admin(Method::GET, &filled).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{filled}");
        let answer: Value = response.json().await.unwrap();
        let mut schema = schema.clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mistakes: Vec<_> = validator
            .iter_errors(&answer)
            .map(|it| it.to_string())
            .collect();
        assert!(mistakes.is_empty(), "{filled}: {mistakes:?} in {answer}");
        // Nothing is answered that the document is silent about.
        let name = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next());
        if let Some(name) = name {
            let described = &document["components"]["schemas"][name]["properties"];
            for member in answer.as_object().unwrap().keys() {
                assert!(described[member].is_object(), "{filled}: {member}");
            }
        }
        looked_at += 1;
    }
    assert!(looked_at > 10, "{looked_at}");
    let unknown = format!("/v1/installs/{}", Uuid::new_v4());
    let refused = deployment
        .admin(Method::GET, &unknown)
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(refused).await, (404, "NOT_FOUND".to_owned()));
    let error = &document["components"]["schemas"]["Error"];
    let body = json!({"error": {"code": "A", "message": "b", "details": {}, "requestId": "c"}});
    assert!(jsonschema::is_valid(error, &body));
}
