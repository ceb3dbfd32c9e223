//! The checks of a manifest: the published schema first, then what a schema cannot say.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::sync::LazyLock;

use alga_model::ExtensionName;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use semver::Version;
use serde_json::{Map, Value};

use super::{InvalidManifest, Issue, Manifest, Parsed, bare, json};
use crate::path::BundlePath;

/// The schema authors read and editors use; the validator uses the same text.
const SCHEMA: &str = include_str!("../../../docs/manifest.schema.json");

/// The same as `maxLength` of a capability in the schema.
const MAX_CAPABILITY_BYTES: usize = 128;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).expect("the embedded schema is JSON");
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex())
        .build(&schema)
        .expect("the embedded schema is a schema")
});

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, InvalidManifest> {
    let whole = |message: String| InvalidManifest {
        issues: vec![Issue {
            path: String::new(),
            message,
        }],
    };
    if bytes.len() > Manifest::MAX_BYTES {
        let max = Manifest::MAX_BYTES;
        return Err(whole(format!(
            "a manifest must be at most {max} bytes, this one has {}",
            bytes.len()
        )));
    }
    let (value, repeated) =
        json::parse(bytes).map_err(|error| whole(format!("not valid JSON: {error}")))?;

    let mut issues = Issues::default();
    for path in repeated {
        issues.add(path, "this member is written twice");
    }
    for error in VALIDATOR.iter_errors(&value) {
        let (path, message) = explain(&error);
        issues.add(path, message);
    }
    check(&value, &mut issues);
    issues.into_result()?;

    let warnings = warnings(&value);
    // Every rule of the types is one of the checks above; should they ever drift apart, the manifest
    // is refused all the same.
    let manifest = serde_json::from_value(value).map_err(|error| whole(error.to_string()))?;
    Ok(Parsed { manifest, warnings })
}

/// Every `schemaReference` of the namespaces a capability is asked for with, and its JSON pointer.
pub(super) fn schema_references<'v>(name: &str, request: &'v Value) -> Vec<(String, &'v str)> {
    // A name this long is an issue of its own; repeated in every pointer it would fill the memory.
    if name.len() > MAX_CAPABILITY_BYTES {
        return Vec::new();
    }
    let pointer = json::member("/capabilities", name);
    let namespaces = request
        .get("namespaces")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    namespaces
        .enumerate()
        .filter_map(|(index, namespace)| {
            let text = namespace.get("schemaReference")?.as_str()?;
            Some((
                format!("{pointer}/namespaces/{index}/schemaReference"),
                text,
            ))
        })
        .collect()
}

/// At most one issue per path: what the schema says about a place makes the later checks of it noise.
#[derive(Default)]
struct Issues(BTreeMap<String, String>);

impl Issues {
    fn add(&mut self, path: String, message: impl Into<String>) {
        self.0.entry(path).or_insert_with(|| message.into());
    }

    fn check<T, E: Display>(&mut self, path: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.add(path.to_owned(), error.to_string());
        }
    }

    fn into_result(self) -> Result<(), InvalidManifest> {
        if self.0.is_empty() {
            return Ok(());
        }
        let issues = self
            .0
            .into_iter()
            .map(|(path, message)| Issue { path, message })
            .collect();
        Err(InvalidManifest { issues })
    }
}

/// The place and the words for what the schema found. The value itself is left out: it may be as
/// long as the manifest.
fn explain(error: &ValidationError<'_>) -> (String, String) {
    let path = error.instance_path().as_str().to_owned();
    match error.kind() {
        ValidationErrorKind::Required { property } => (
            json::member(&path, property.as_str().unwrap_or_default()),
            "this field is required".to_owned(),
        ),
        ValidationErrorKind::PropertyNames { error: name } => {
            let name = name.instance().as_str().unwrap_or_default();
            (
                json::member(&path, name),
                "this is not the name of a capability".to_owned(),
            )
        }
        ValidationErrorKind::Enum { options } => (path, format!("must be one of {options}")),
        _ => (path, error.masked_with("the value").to_string()),
    }
}

/// What a schema cannot say. A value of the wrong type is the schema's business.
fn check(value: &Value, issues: &mut Issues) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    if let Some(name) = text("/name") {
        issues.check("/name", name.parse::<ExtensionName>());
    }
    if let Some(publisher) = text("/publisher") {
        issues.check("/publisher", check_publisher(publisher));
    }
    if text("/version").is_some_and(|version| Version::parse(version).is_err()) {
        issues.add(
            "/version".to_owned(),
            "a version must be a semantic version such as 1.2.0",
        );
    }
    for pointer in ["/entry", "/ui/entry"] {
        if let Some(file) = text(pointer) {
            issues.check(pointer, BundlePath::parse_reference(file));
        }
    }
    if let Some(Value::Object(requests)) = value.pointer("/capabilities") {
        check_requests(requests, issues);
    }
    if let Some(Value::Array(endpoints)) = value.pointer("/api/endpoints") {
        check_endpoints(endpoints, issues);
    }
}

fn check_publisher(publisher: &str) -> Result<(), &'static str> {
    if publisher.contains(char::is_control) {
        Err("a publisher must not contain a control character")
    } else if publisher.trim() != publisher {
        // Names belong to publishers: two that look alike must not be two.
        Err("a publisher must not start or end with space")
    } else {
        Ok(())
    }
}

fn check_requests(requests: &Map<String, Value>, issues: &mut Issues) {
    for (name, request) in requests {
        for (pointer, text) in schema_references(name, request) {
            issues.check(&pointer, BundlePath::parse_reference(text));
        }
        if bare(name) == name && requests.contains_key(&format!("cap:{name}")) {
            let pointer = json::member("/capabilities", name);
            issues.add(
                pointer,
                "this capability is asked for twice, with and without cap: in front",
            );
        }
    }
}

fn check_endpoints(endpoints: &[Value], issues: &mut Issues) {
    let mut seen = HashSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let text = |name| endpoint.get(name).and_then(Value::as_str);
        if let (Some(method), Some(path)) = (text("method"), text("path"))
            && !seen.insert((method, path))
        {
            issues.add(
                format!("/api/endpoints/{index}"),
                "this method and path are listed twice",
            );
        }
    }
}

/// What is odd but not wrong, sorted by path.
fn warnings(value: &Value) -> Vec<Issue> {
    let mut warnings = Vec::new();
    let mut unknown = |pointer: &str, known: &[&str]| {
        let Some(Value::Object(members)) = value.pointer(pointer) else {
            return;
        };
        for name in members
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            let message = "this field is not known and has no effect".to_owned();
            warnings.push(Issue {
                path: json::member(pointer, name),
                message,
            });
        }
    };
    unknown(
        "",
        &[
            "$schema",
            "name",
            "publisher",
            "version",
            "runtime",
            "capabilities",
            "entry",
            "ui",
            "api",
            "precompiled",
            "assets",
            "sbom",
        ],
    );
    unknown("/ui", &["type", "entry", "hooks"]);
    unknown("/api", &["endpoints"]);
    let endpoints = value
        .pointer("/api/endpoints")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    for index in 0..endpoints {
        unknown(
            &format!("/api/endpoints/{index}"),
            &["method", "path", "handler"],
        );
    }
    warnings.extend(repeated_capabilities(value));
    warnings.sort();
    warnings
}

fn repeated_capabilities(value: &Value) -> Vec<Issue> {
    let mut seen = HashSet::new();
    let names = value
        .pointer("/capabilities")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    names
        .enumerate()
        .filter(|(_, name)| name.as_str().is_some_and(|name| !seen.insert(bare(name))))
        .map(|(index, _)| Issue {
            path: format!("/capabilities/{index}"),
            message: "this capability is listed twice".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_a_schema_and_describes_every_field() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert!(jsonschema::meta::is_valid(&schema));
        for (name, field) in schema["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{name}");
        }
    }

    #[test]
    fn the_example_for_authors_is_valid() {
        let page = include_str!("../../../docs/manifest.md");
        let example = page
            .split("```json\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        assert_eq!(Manifest::parse(example.as_bytes()).unwrap().warnings, []);
    }
}
