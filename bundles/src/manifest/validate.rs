//! The checks of a manifest: the published schema, and what a schema cannot say.

use std::collections::HashSet;
use std::sync::LazyLock;

use alga_model::{ExtensionName, member_pointer, parse_json};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, PatternOptions, ValidationError, Validator};
use semver::Version;
use serde_json::{Map, Value};

use super::issues::Issues;
use super::{InvalidManifest, Issue, Manifest, Parsed, bare};
use crate::path::BundlePath;

/// The schema authors read and editors use; the validator uses the same text.
const SCHEMA: &str = include_str!("../../../docs/manifest.schema.json");

/// The same as `maxLength` of a capability in the schema.
const MAX_CAPABILITY_BYTES: usize = 128;

/// The same as `maxLength` of a publisher in the schema.
const MAX_PUBLISHER_CHARS: usize = 128;

const NOT_A_CAPABILITY: &str = "this is not the name of a capability";

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA).expect("the embedded schema is JSON"));

/// Knows no way to fetch anything: a `$ref` out of the document would be no schema.
static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex())
        .build(&DOCUMENT)
        .expect("the embedded schema is a schema")
});

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, InvalidManifest> {
    let whole = |message: String| InvalidManifest::of(String::new(), message);
    if bytes.len() > Manifest::MAX_BYTES {
        let max = Manifest::MAX_BYTES;
        return Err(whole(format!(
            "a manifest must be at most {max} bytes, this one has {}",
            bytes.len()
        )));
    }
    let (value, repeated) =
        parse_json(bytes).map_err(|error| whole(format!("not valid JSON: {error}")))?;

    let mut issues = Issues::default();
    for path in repeated {
        issues.add(path, "this member is written twice");
    }
    // These say best what is wrong with a name, a version or a path.
    check(&value, &mut issues);
    for error in VALIDATOR.iter_errors(&value) {
        let (path, message) = explain(&error);
        issues.add(path, message);
    }
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
    let pointer = member_pointer("/capabilities", name);
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

/// The place and the words for what the schema found. The value itself is left out: it may be as
/// long as the manifest.
fn explain(error: &ValidationError<'_>) -> (String, String) {
    let path = error.instance_path().as_str().to_owned();
    match error.kind() {
        ValidationErrorKind::Required { property } => (
            member_pointer(&path, property.as_str().unwrap_or_default()),
            "this field is required".to_owned(),
        ),
        ValidationErrorKind::PropertyNames { error: name } => {
            let name = name.instance().as_str().unwrap_or_default();
            (member_pointer(&path, name), NOT_A_CAPABILITY.to_owned())
        }
        ValidationErrorKind::Enum { options } => (path, format!("must be one of {options}")),
        ValidationErrorKind::Type { kind } => (path, format!("must be {}", types(kind))),
        ValidationErrorKind::MinLength { limit: 1 } => (path, "must not be empty".to_owned()),
        ValidationErrorKind::MaxLength { limit } => {
            (path, format!("must have at most {limit} characters"))
        }
        ValidationErrorKind::MaxItems { limit } => {
            (path, format!("must have at most {limit} items"))
        }
        ValidationErrorKind::MaxProperties { limit } => {
            (path, format!("must have at most {limit} members"))
        }
        ValidationErrorKind::Pattern { pattern } if pattern == "^/" => {
            (path, "must start with /".to_owned())
        }
        ValidationErrorKind::Pattern { .. } if is_capability(&path) => {
            (path, NOT_A_CAPABILITY.to_owned())
        }
        _ => (path, error.masked_with("the value").to_string()),
    }
}

fn types(kind: &TypeKind) -> String {
    let with_article = |kind: JsonType| match kind {
        JsonType::Array | JsonType::Integer | JsonType::Object => format!("an {kind}"),
        JsonType::Null => kind.to_string(),
        JsonType::Boolean | JsonType::Number | JsonType::String => format!("a {kind}"),
    };
    match kind {
        TypeKind::Single(kind) => with_article(*kind),
        TypeKind::Multiple(kinds) => {
            let kinds: Vec<_> = kinds.iter().map(with_article).collect();
            kinds.join(" or ")
        }
    }
}

/// Whether the place is an item of the older list.
fn is_capability(path: &str) -> bool {
    path.starts_with("/capabilities/")
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

pub(super) fn check_publisher(publisher: &str) -> Result<(), &'static str> {
    if !(1..=MAX_PUBLISHER_CHARS).contains(&publisher.chars().count()) {
        Err("a publisher must have 1 to 128 characters")
    } else if publisher.contains(char::is_control) {
        Err("a publisher must not contain a control character")
    } else if publisher.contains(is_invisible) {
        Err("a publisher must not contain a character that can't be seen")
    } else if publisher.trim() != publisher {
        Err("a publisher must not start or end with space")
    } else {
        Ok(())
    }
}

/// Whether a character shows nothing, or only changes how others are shown, so that two publishers would
/// look the same in every font. Letters of different scripts that look alike are another matter.
///
/// Unicode's `Default_Ignorable_Code_Point`, the separators of lines and paragraphs, and the empty pattern of
/// Braille.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

fn check_requests(requests: &Map<String, Value>, issues: &mut Issues) {
    for (name, request) in requests {
        for (pointer, text) in schema_references(name, request) {
            issues.check(&pointer, BundlePath::parse_reference(text));
        }
        if bare(name) == name && requests.contains_key(&format!("cap:{name}")) {
            let pointer = member_pointer("/capabilities", name);
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
    let mut warnings = Issues::default();
    warn_of_repeated_capabilities(value, &mut warnings);
    warn_of_unknown(value, &DOCUMENT, "", &mut warnings);
    warnings.into_list()
}

/// Finds the members for which the schema lists the known ones and no rule for others.
fn warn_of_unknown(value: &Value, schema: &Value, path: &str, warnings: &mut Issues) {
    match (value, schema.get("properties"), schema.get("items")) {
        (Value::Object(members), Some(known), _) => {
            for (name, value) in members {
                let path = member_pointer(path, name);
                if let Some(schema) = known.get(name) {
                    warn_of_unknown(value, schema, &path, warnings);
                } else if schema.get("additionalProperties").is_none() {
                    warnings.add(path, "this field is not known and has no effect");
                }
            }
        }
        (Value::Array(items), _, Some(schema)) => {
            for (index, item) in items.iter().enumerate() {
                warn_of_unknown(item, schema, &format!("{path}/{index}"), warnings);
            }
        }
        _ => {}
    }
}

fn warn_of_repeated_capabilities(value: &Value, warnings: &mut Issues) {
    let mut seen = HashSet::new();
    let names = value
        .pointer("/capabilities")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for (index, name) in names.enumerate() {
        if name.as_str().is_some_and(|name| !seen.insert(bare(name))) {
            let path = format!("/capabilities/{index}");
            warnings.add(path, "this capability is listed twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_published_schema_is_a_schema_and_describes_every_field() {
        assert!(jsonschema::meta::is_valid(&DOCUMENT));
        for (name, field) in DOCUMENT["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{name}");
        }
    }

    #[test]
    fn the_published_schema_is_what_manifests_are_checked_with() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manifest.schema.json");
        let published: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(*DOCUMENT, published);
        let of_schema: BTreeSet<_> = published["properties"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        let of_type = every_field().as_object().unwrap().clone();
        assert_eq!(of_schema, of_type.keys().collect());
        let parsed = Manifest::parse(every_field().to_string().as_bytes()).unwrap();
        assert_eq!(parsed.warnings, []);
        // Whatever the schema knows, the type knows, but for what is the editor's alone.
        let unknown: Vec<_> = parsed.manifest.unknown.keys().collect();
        assert_eq!(unknown, ["$schema"]);
    }

    fn every_field() -> Value {
        json!({
            "$schema": "https://example.com/manifest.schema.json",
            "name": "com.example.notes",
            "publisher": "Example Ltd",
            "version": "1.2.0",
            "runtime": "wasm-component@1",
            "capabilities": [],
            "entry": "dist/main.wasm",
            "ui": { "type": "iframe", "entry": "ui/index.html", "hooks": { "appMenu": {} } },
            "api": { "endpoints": [{ "method": "GET", "path": "/", "handler": "list" }] },
            "precompiled": {},
            "assets": [],
            "sbom": "sbom.json",
        })
    }

    #[test]
    fn nothing_the_schema_refers_to_is_elsewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    let reference = members.get("$ref").and_then(Value::as_str);
                    found.extend(reference.map(str::to_owned));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&DOCUMENT, &mut found);
        assert!(!found.is_empty());
        assert!(found.iter().all(|it| it.starts_with("#/")), "{found:?}");
        // And if one ever were, it is not fetched.
        for elsewhere in ["https://example.com/x.json", "file:///etc/hostname"] {
            let schema = json!({ "$ref": elsewhere });
            assert!(
                jsonschema::draft202012::new(&schema).is_err(),
                "{elsewhere}"
            );
        }
    }

    #[test]
    fn every_message_says_what_to_write() {
        let text = format!(
            r#"{{"name": "Notes", "publisher": "", "version": "1.2", "runtime": 2, "entry": "../x",
            "capabilities": {{"Bad Name": {{}}, "good": 1}}, "assets": [""], "sbom": [],
            "ui": {{"type": "tab"}}, "precompiled": {{"x": null}},
            "api": {{"endpoints": [{{"method": "GET", "path": "x", "handler": "{}"}}]}}}}"#,
            "x".repeat(513)
        );
        let issues = Manifest::parse(text.as_bytes()).unwrap_err().issues;
        let lines: Vec<_> = issues
            .iter()
            .map(|it| format!("{} {}", it.path, it.message))
            .collect();
        assert_eq!(
            lines,
            [
                "/api/endpoints/0/handler must have at most 512 characters",
                "/api/endpoints/0/path must start with /",
                "/assets/0 must not be empty",
                "/capabilities/Bad Name this is not the name of a capability",
                "/capabilities/good must be an object",
                "/entry a path must not contain '.' or '..' as a part",
                "/name an extension name must be a reverse domain of at most 128 characters in \
                 a-z, 0-9, '-' and '.', such as com.example.notes",
                "/precompiled/x must be a string",
                "/publisher a publisher must have 1 to 128 characters",
                "/runtime must be a string",
                "/sbom must be a string",
                "/ui/entry this field is required",
                "/ui/type must be one of [\"iframe\"]",
                "/version a version must be a semantic version such as 1.2.0",
            ],
        );
        for value in ["7", "[]"] {
            let issues = Manifest::parse(value.as_bytes()).unwrap_err().issues;
            assert_eq!(issues[0].message, "must be an object");
        }
        for (capabilities, message) in [
            ("true", "must be an array or an object"),
            (r#"["A"]"#, NOT_A_CAPABILITY),
        ] {
            let text = format!(r#"{{"capabilities": {capabilities}}}"#);
            let issues = Manifest::parse(text.as_bytes()).unwrap_err().issues;
            assert_eq!(issues[0].message, message);
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
