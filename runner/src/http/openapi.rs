//! The `OpenAPI` document, made from what the routes are made from.
//!
//! An operation of administration describes itself. The few other routes are described here; a test
//! compares them with the router's.

use std::sync::LazyLock;

use alga_storage::ErrorCode;
use serde_json::{Map, Value, json};

use super::storage_api;
use crate::admin::{
    Answer as _, AuditQuery, Guard, LogsQuery, Operation, Parameters, TUS, TUS_UPLOAD, UPLOADS,
    UploadEvents, UploadQuery, UploadedBody, Visitor, every_operation,
};

/// The document as it is served.
pub(super) static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Refusals that every request with a token may meet.
const EVERYWHERE: [(u16, &str); 4] = [
    (401, "UNAUTHORIZED"),
    (403, "FORBIDDEN"),
    (500, "INTERNAL"),
    (503, "UNAVAILABLE"),
];

/// The same where bundles are uploaded, with the codes that this interface has.
const OF_BUNDLES: [(u16, &str); 3] = [
    (401, "UNAUTHORIZED"),
    (403, "RBAC_FORBIDDEN"),
    (500, "INTERNAL_ERROR"),
];

fn document() -> Value {
    let mut operations = Operations::default();
    every_operation(&mut operations);
    let Operations {
        mut paths,
        mut schemas,
    } = operations;
    add(&mut paths, AuditQuery::PATH, "get", audit());
    add(&mut paths, LogsQuery::PATH, "get", logs());
    add(&mut paths, UploadQuery::PATH, "post", upload());
    add(&mut paths, UploadEvents::PATH, "get", upload_events());
    add_tus(&mut paths);
    add_others(&mut paths);
    schemas.insert("Error".to_owned(), error_schema());
    schemas.insert("BundleError".to_owned(), bundle_error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Alga Runner",
            "summary": "Runs third-party extensions of a multi-tenant product",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }, { "runnerAuth": [] }],
        "tags": [
            { "name": "execute", "description": "Calling extensions" },
            { "name": "administration", "description": "For an admin token, or a service token with `x-alga-admin: true`. A token that is limited to tenants or installs sees only theirs." },
            { "name": "storage", "description": "The storage of extensions, for the services that run them" },
            { "name": "operation", "description": "Probes, metrics and this document" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "runnerAuth": { "type": "apiKey", "in": "header", "name": "x-runner-auth" },
            },
        },
    })
}

/// Paths and schemas of the operations visited.
#[derive(Default)]
struct Operations {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Visitor for Operations {
    fn visit<O: Operation>(&mut self) {
        let name = O::Answer::NAME;
        self.schemas.insert(name.to_owned(), O::Answer::schema());
        let mut parameters = path_parameters(O::PATH);
        parameters.extend(query_parameters(&O::Query::schema()));
        parameters.extend(if_match(O::GUARD));
        parameters.extend(on_behalf());
        let is_of_bundles = O::PATH.starts_with(UPLOADS);
        let mut refusals = if is_of_bundles {
            OF_BUNDLES.to_vec()
        } else {
            EVERYWHERE.to_vec()
        };
        refusals.extend(O::REFUSALS);
        if O::GUARD != Guard::None {
            refusals.extend([(400, "BAD_REQUEST"), (412, "PRECONDITION_FAILED")]);
        }
        if O::GUARD == Guard::Required {
            refusals.push((428, "PRECONDITION_REQUIRED"));
        }
        let body = O::Body::schema();
        if !body.is_null() {
            refusals.push((413, "TOO_LARGE"));
        }
        let mut responses = if is_of_bundles {
            responses_as("BundleError", refusals)
        } else {
            responses(refusals)
        };
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        responses.insert(
            O::STATUS.to_string(),
            json!({
                "description": "Done",
                "content": { "application/json": { "schema": schema } },
            }),
        );
        let mut operation = json!({
            "operationId": operation_id(std::any::type_name::<O>()),
            "summary": O::SUMMARY,
            "tags": ["administration"],
            "parameters": parameters,
            "responses": responses,
        });
        if let (false, Some(operation)) = (body.is_null(), operation.as_object_mut()) {
            let required = body
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(|required| !required.is_empty());
            let body = json!({
                "required": required,
                "content": { "application/json": { "schema": body } },
            });
            operation.insert("requestBody".to_owned(), body);
        }
        let method = O::METHOD.as_str().to_lowercase();
        add(&mut self.paths, O::PATH, &method, operation);
    }
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    if let Some(item) = item.as_object_mut() {
        item.insert(method.to_owned(), operation);
    }
}

/// `crate::admin::ShowInstall` is `showInstall`.
fn operation_id(type_name: &str) -> String {
    let name = type_name.rsplit("::").next().unwrap_or(type_name);
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let schema = if name.ends_with("_id") {
                json!({ "type": "string", "format": "uuid" })
            } else {
                json!({ "type": "string" })
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

fn query_parameters(schema: &Value) -> Vec<Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let each = properties.into_iter().flatten();
    each.map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema }))
        .collect()
}

fn if_match(guard: Guard) -> Option<Value> {
    let parameter = |required: bool| {
        json!({
            "name": "If-Match",
            "in": "header",
            "required": required,
            "description": "The ETag of what is to be changed, or `*` for whatever is there",
            "schema": { "type": "string" },
        })
    };
    match guard {
        Guard::None => None,
        Guard::Optional => Some(parameter(false)),
        Guard::Required => Some(parameter(true)),
    }
}

/// What a service says when it acts as an administrator.
fn on_behalf() -> [Value; 2] {
    [
        header(
            "x-alga-admin",
            "Says that a service acts as an administrator",
            &json!({ "const": "true" }),
        ),
        header(
            "x-alga-actor",
            "For whom a service acts, for the audit",
            &json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
        ),
    ]
}

/// Refusals by status, with their codes.
fn responses(refusals: Vec<(u16, &str)>) -> Map<String, Value> {
    responses_as("Error", refusals)
}

/// The same with bodies of this schema.
fn responses_as(schema: &str, mut refusals: Vec<(u16, &str)>) -> Map<String, Value> {
    let schema = format!("#/components/schemas/{schema}");
    refusals.sort_unstable();
    refusals.dedup();
    let by_status = refusals.chunk_by(|(one, _), (other, _)| one == other);
    by_status
        .filter_map(|of_status| {
            let (status, _) = of_status.first()?;
            let codes: Vec<_> = of_status.iter().map(|(_, code)| *code).collect();
            let response = json!({
                "description": codes.join(", "),
                "content": { "application/json": { "schema": { "$ref": schema } } },
            });
            Some((status.to_string(), response))
        })
        .collect()
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": { "type": "string" },
                    "message": { "type": "string" },
                    "details": { "type": "object" },
                    "requestId": { "type": "string" },
                },
                "required": ["code", "message", "details", "requestId"],
            },
        },
        "required": ["error"],
    })
}

/// A refusal where bundles are uploaded.
fn bundle_error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "error": { "type": "string", "description": "What it was, for people" },
            "code": { "type": "string" },
            "requestId": { "type": "string" },
            "details": { "type": "object", "minProperties": 1 },
        },
        "required": ["error", "code", "requestId"],
    })
}

fn audit() -> Value {
    let mut parameters = query_parameters(&AuditQuery::schema());
    parameters.extend(on_behalf());
    let mut responses =
        responses([&EVERYWHERE[..], &[(400, "BAD_REQUEST"), (404, "NOT_FOUND")]].concat());
    let lines = json!({
        "description": "A JSON object a line",
        "content": { "application/x-ndjson": { "schema": { "type": "string" } } },
    });
    responses.insert("200".to_owned(), lines);
    json!({
        "operationId": "exportAudit",
        "summary": AuditQuery::SUMMARY,
        "tags": ["administration"],
        "parameters": parameters,
        "responses": responses,
    })
}

fn logs() -> Value {
    let mut parameters = path_parameters(LogsQuery::PATH);
    parameters.extend(query_parameters(&LogsQuery::schema()));
    parameters.push(last_event_id(
        "The id of the last event that was seen: goes on after it, instead of a backlog",
    ));
    parameters.extend(on_behalf());
    let refusals = [
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (429, "TAILS_LIMITED"),
        (503, "OVERLOADED"),
    ];
    let mut responses = responses([&EVERYWHERE[..], &refusals].concat());
    let until = "Events, until there is one of the type end";
    responses.insert("200".to_owned(), events(until));
    json!({
        "operationId": "followLogs",
        "summary": LogsQuery::SUMMARY,
        "tags": ["administration"],
        "parameters": parameters,
        "responses": responses,
    })
}

fn last_event_id(description: &str) -> Value {
    json!({
        "name": "Last-Event-ID",
        "in": "header",
        "description": description,
        "schema": { "type": "string" },
    })
}

fn events(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "text/event-stream": { "schema": { "type": "string" } } },
    })
}

fn upload_events() -> Value {
    let mut parameters = path_parameters(UploadEvents::PATH);
    parameters.push(last_event_id(
        "The id of the last event that was seen: those to come are numbered from behind it",
    ));
    parameters.extend(on_behalf());
    let refusals = [
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (421, "MISDIRECTED"),
        (503, "OVERLOADED"),
        (503, "REGISTRY_UNAVAILABLE"),
    ];
    let mut responses = responses_as("BundleError", [&OF_BUNDLES[..], &refusals].concat());
    let until =
        "Events, until there is one of an upload that has come to its end, or of the type error";
    responses.insert("200".to_owned(), events(until));
    json!({
        "operationId": "followUpload",
        "summary": UploadEvents::SUMMARY,
        "tags": ["administration"],
        "parameters": parameters,
        "responses": responses,
    })
}

/// The operations of the protocol of tus, which says what their headers are.
fn add_tus(paths: &mut Map<String, Value>) {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let length = header("Upload-Length", "The bytes that the upload has", &number());
    let metadata = header(
        "Upload-Metadata",
        "`filename`, and perhaps `filetype` and `sha256`, each with its value in base64",
        &json!({ "type": "string" }),
    );
    let offset = header(
        "Upload-Offset",
        "Where the bytes lie: where the upload ends by now",
        &number(),
    );
    let everywhere = [
        (412, "PRECONDITION_FAILED"),
        (421, "MISDIRECTED"),
        (502, "STORE_FAILED"),
        (503, "REGISTRY_UNAVAILABLE"),
        (503, "STORE_UNAVAILABLE"),
    ];
    let of_begin = [
        (400, "BAD_REQUEST"),
        (413, "TOO_LARGE"),
        (429, "RATE_LIMIT"),
        (503, "OVERLOADED"),
    ];
    let of_one = [(404, "NOT_FOUND"), (410, "UPLOAD_GONE")];
    let of_chunk = [
        (400, "BAD_REQUEST"),
        (409, "OFFSET_CONFLICT"),
        (409, "UPLOAD_CONFLICT"),
        (413, "TOO_LARGE"),
        (415, "UNSUPPORTED_MEDIA_TYPE"),
        (503, "OVERLOADED"),
    ];
    let operations = [
        Tus {
            method: "post",
            path: TUS,
            id: "createUpload",
            summary: "Begins an upload that can be gone on with, by the protocol tus 1.0",
            headers: vec![length, metadata],
            refusals: [&everywhere[..], &of_begin].concat(),
            success: (201, "It begins; Location and Upload-Key say where"),
        },
        Tus {
            method: "head",
            path: TUS_UPLOAD,
            id: "lookAtUpload",
            summary: "Tells where such an upload goes on",
            headers: Vec::new(),
            refusals: [&everywhere[..], &of_one].concat(),
            success: (200, "Upload-Offset says where"),
        },
        Tus {
            method: "patch",
            path: TUS_UPLOAD,
            id: "continueUpload",
            summary: "Goes on with such an upload",
            headers: vec![offset],
            refusals: [&everywhere[..], &of_one, &of_chunk].concat(),
            success: (204, "Upload-Offset says what is kept"),
        },
        Tus {
            method: "delete",
            path: TUS_UPLOAD,
            id: "terminateUpload",
            summary: "Gives such an upload up",
            headers: Vec::new(),
            refusals: [&everywhere[..], &of_one].concat(),
            success: (204, "Nothing is left of it"),
        },
    ];
    for operation in operations {
        let (method, path) = (operation.method, operation.path);
        add(paths, path, method, operation.described());
    }
    for (path, id) in [(TUS, "tusOptions"), (TUS_UPLOAD, "tusOptionsOfUpload")] {
        let options = Tus {
            method: "options",
            path,
            id,
            summary: "Tells what of the protocol tus there is",
            headers: Vec::new(),
            refusals: vec![(421, "MISDIRECTED")],
            success: (204, "Tus-Version, Tus-Extension and Tus-Max-Size say it"),
        };
        add(paths, path, "options", options.described());
    }
}

/// An operation of the protocol of tus.
struct Tus {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    headers: Vec<Value>,
    refusals: Vec<(u16, &'static str)>,
    success: (u16, &'static str),
}

impl Tus {
    fn described(self) -> Value {
        let mut parameters = path_parameters(self.path);
        if self.method != "options" {
            let version = json!({ "const": "1.0.0" });
            let about = "The version of the protocol";
            parameters.push(header("Tus-Resumable", about, &version));
        }
        parameters.extend(self.headers);
        parameters.extend(on_behalf());
        let mut responses = responses_as("BundleError", [&OF_BUNDLES[..], &self.refusals].concat());
        let (status, description) = self.success;
        responses.insert(status.to_string(), json!({ "description": description }));
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": ["administration"],
            "parameters": parameters,
            "responses": responses,
        });
        if let (true, Some(operation)) = (self.method == "patch", operation.as_object_mut()) {
            let body = json!({
                "required": true,
                "content": { "application/offset+octet-stream": {} },
            });
            operation.insert("requestBody".to_owned(), body);
        }
        operation
    }
}

fn header(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": schema })
}

fn upload() -> Value {
    let schema = UploadQuery::schema();
    let is_required = |name: &Value| {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.contains(name))
    };
    let mut parameters = query_parameters(&schema);
    for parameter in &mut parameters {
        let required = parameter.get("name").is_some_and(is_required);
        if let Some(parameter) = parameter.as_object_mut() {
            parameter.insert("required".to_owned(), required.into());
        }
    }
    parameters.extend(on_behalf());
    let refusals = [
        (400, "BAD_REQUEST"),
        (413, "TOO_LARGE"),
        (421, "MISDIRECTED"),
        (429, "RATE_LIMIT"),
        (502, "STORE_FAILED"),
        (503, "BUNDLE_OFFLINE"),
        (503, "OVERLOADED"),
        (503, "STORE_UNAVAILABLE"),
    ];
    let mut responses = responses_as("BundleError", [&OF_BUNDLES[..], &refusals].concat());
    let staged = json!({
        "description": "Staged",
        "content": { "application/json": { "schema": UploadedBody::schema() } },
    });
    responses.insert("200".to_owned(), staged);
    json!({
        "operationId": "uploadBundle",
        "summary": UploadQuery::SUMMARY,
        "tags": ["administration"],
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "content": { "application/octet-stream": {} },
        },
        "responses": responses,
    })
}

/// The routes that are no operations of administration.
fn add_others(paths: &mut Map<String, Value>) {
    add(paths, "/v1/execute", "post", execute());
    add(paths, storage_api::PATH, "post", storage());
    for (path, suffix) in [
        ("/v1/installs/{install_id}/http", "Root"),
        ("/v1/installs/{install_id}/http/", "Slash"),
        ("/v1/installs/{install_id}/http/{path}", ""),
    ] {
        for method in ["get", "put", "post", "delete", "options", "head", "patch"] {
            let id = format!("call{suffix}_{method}");
            add(paths, path, method, call(&id, path));
        }
    }
    let public = |id: &str, summary: &str, content: Value, unready: bool| {
        let mut operation = json!({
            "operationId": id,
            "summary": summary,
            "tags": ["operation"],
            "security": [],
            "responses": { "200": { "description": "Done", "content": content } },
        });
        let responses = operation.pointer_mut("/responses");
        if let (true, Some(Value::Object(responses))) = (unready, responses) {
            let unready = json!({ "description": "It should not" });
            responses.insert("503".to_owned(), unready);
        }
        operation
    };
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let object = json!({ "application/json": { "schema": { "type": "object" } } });
    let healthz = public(
        "healthz",
        "Tells whether the process lives",
        text.clone(),
        false,
    );
    add(paths, "/healthz", "get", healthz);
    let readyz = "Tells whether the process should get requests";
    let readyz = public("readyz", readyz, object.clone(), true);
    add(paths, "/readyz", "get", readyz);
    let openapi = public("openapi", "Shows this document", object, false);
    add(paths, "/openapi.json", "get", openapi);
    let mut responses = responses([&EVERYWHERE[..], &[(404, "NOT_FOUND")]].concat());
    let measured = json!({ "description": "Text for Prometheus", "content": text });
    responses.insert("200".to_owned(), measured);
    let metrics = json!({
        "operationId": "metrics",
        "summary": "Tells what the process measured; for tokens that are not limited",
        "tags": ["operation"],
        "responses": responses,
    });
    add(paths, "/metrics", "get", metrics);
}

/// How a call to an extension may fail, whichever way it comes.
const OF_CALLS: [(u16, &str); 16] = [
    (400, "BAD_REQUEST"),
    (404, "NOT_FOUND"),
    (404, "BUNDLE_NOT_FOUND"),
    (409, "INSTALL_DISABLED"),
    (413, "TOO_LARGE"),
    (429, "CONCURRENCY_LIMITED"),
    (502, "BUNDLE_DAMAGED"),
    (503, "BUNDLE_OFFLINE"),
    (502, "GUEST_NONSENSE"),
    (502, "GUEST_TRAP"),
    (502, "INVALID_COMPONENT"),
    (503, "OVERLOADED"),
    (504, "TIMEOUT"),
    (507, "MEMORY_LIMIT"),
    (507, "HOST_CALL_LIMIT"),
    (403, "CONTEXT_MISMATCH"),
];

fn call(id: &str, path: &str) -> Value {
    let mut responses = responses([&EVERYWHERE[..], &OF_CALLS].concat());
    let answer = json!({ "description": "Whatever the extension answers" });
    responses.insert("default".to_owned(), answer);
    json!({
        "operationId": id,
        "summary": "Calls an extension with the request itself",
        "tags": ["execute"],
        "parameters": path_parameters(path),
        "responses": responses,
    })
}

/// An object that has these members and no others.
fn object(properties: &[(&str, &Value)], required: &[&str]) -> Value {
    let properties = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), (*schema).clone()));
    json!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}

fn storage() -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let flag = json!({ "type": "boolean" });
    let operation = |name: &str, properties: &[(&str, &Value)], required: &[&str]| {
        let name = json!({ "const": name });
        let properties = [&[("operation", &name)], properties].concat();
        object(&properties, &[&["operation"], required].concat())
    };
    let id = json!({
        "type": "string",
        "format": "uuid",
        "description": "What the write is known by: a repeat is answered as the first time, for a day",
    });
    let any = json!({});
    let place = [("namespace", &text), ("key", &text)];
    let guards = [("ifRevision", &count), ("ifExists", &flag)];
    let written = [
        ("value", &any),
        ("metadata", &any),
        ("ttlSeconds", &count),
        ("schemaVersion", &count),
    ];
    let item = [&[("key", &text)], &guards[..], &written[..]].concat();
    let item = object(&item, &["key", "value"]);
    let items = json!({ "type": "array", "items": item });
    let keys = json!({ "type": "array", "items": text });
    let put = [
        ("operationId", &id),
        ("returnPrevious", &flag),
        ("returnCurrent", &flag),
    ];
    let listed = [
        ("namespace", &text),
        ("limit", &count),
        ("cursor", &text),
        ("keyPrefix", &text),
        ("startKey", &text),
        ("endKey", &text),
        ("reverse", &flag),
        ("includeValues", &flag),
        ("includeMetadata", &flag),
    ];
    let required = ["namespace", "key"];
    let request = json!({ "oneOf": [
        operation("put", &[&place[..], &guards, &written, &put].concat(), &["namespace", "key", "value"]),
        operation("get", &[&place[..], &guards[..1]].concat(), &required),
        operation("delete", &[&place[..], &guards, &put[..1]].concat(), &required),
        operation("list", &listed, &["namespace"]),
        operation("bulkPut", &[("namespace", &text), ("items", &items), ("operationId", &id)], &["namespace", "items"]),
        operation("getMany", &[("namespace", &text), ("keys", &keys)], &["namespace", "keys"]),
        operation("usage", &[], &[]),
    ] });
    let refusals = ErrorCode::ALL.map(|code| (code.http_status(), code.as_str()));
    let more = [
        (400, "BAD_REQUEST"),
        (413, ErrorCode::LimitExceeded.as_str()),
        (421, "MISDIRECTED"),
    ];
    let mut responses = responses([&refusals[..], &more].concat());
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "Done; the storage API says what each operation answers",
            "content": { "application/json": { "schema": { "type": "object" } } },
        }),
    );
    let mut parameters = path_parameters(storage_api::PATH);
    parameters.push(json!({
        "name": "x-alga-actor",
        "in": "header",
        "description": "For whom the service acts, for the audit: `invocation:` and an id for a guest",
        "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
    }));
    parameters.push(json!({
        "name": "x-alga-storage-version",
        "in": "header",
        "schema": { "const": "1" },
    }));
    json!({
        "operationId": "operateStorage",
        "summary": "Does an operation of the storage API for an install",
        "tags": ["storage"],
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": request } },
        },
        "responses": responses,
    })
}

fn execute() -> Value {
    let text = json!({ "type": "string" });
    let uuid = json!({ "type": "string", "format": "uuid" });
    let texts = json!({
        "type": "object",
        "additionalProperties": { "anyOf": [text, { "type": "array", "items": text }] },
    });
    let count = json!({ "type": "integer", "minimum": 0 });
    let envelope = json!({
        "type": "object",
        "properties": {
            "context": {
                "type": "object",
                "properties": {
                    "request_id": text,
                    "tenant_id": uuid,
                    "extension_id": text,
                    "install_id": uuid,
                    "version_id": uuid,
                    "content_hash": text,
                    "config": { "type": "object", "additionalProperties": text },
                },
                "required": ["tenant_id", "extension_id"],
            },
            "http": {
                "type": "object",
                "properties": {
                    "method": text,
                    "path": text,
                    "query": { "anyOf": [text, texts] },
                    "headers": texts,
                    "body_b64": text,
                },
                "required": ["method", "path"],
            },
            "limits": {
                "type": "object",
                "properties": { "timeout_ms": count, "memory_mb": count, "fuel": count },
            },
            "providers": { "type": "array", "items": text },
            "secret_envelope": { "type": "object" },
            "user": { "type": "object" },
        },
        "required": ["context", "http"],
    });
    let answer = json!({
        "type": "object",
        "properties": {
            "status": { "type": "integer", "minimum": 200, "maximum": 599 },
            "headers": { "type": "object", "additionalProperties": text },
            "body_b64": text,
        },
        "required": ["status", "headers"],
    });
    let conflict = [
        (409, "IDEMPOTENCY_ANSWER_NOT_KEPT"),
        (409, "IDEMPOTENCY_CONFLICT"),
        (409, "IDEMPOTENCY_IN_PROGRESS"),
    ];
    let mut responses = responses([&EVERYWHERE[..], &OF_CALLS, &conflict].concat());
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The extension answered, with whatever status",
            "content": { "application/json": { "schema": answer } },
        }),
    );
    json!({
        "operationId": "execute",
        "summary": "Calls an extension with a request in an envelope",
        "tags": ["execute"],
        "parameters": [{
            "name": "x-idempotency-key",
            "in": "header",
            "description": "The same request with the same key is answered once, and again with that answer for 24 hours",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        }],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": envelope } },
        },
        "responses": responses,
    })
}
