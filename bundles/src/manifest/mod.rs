//! Manifest v2: what an extension is and what it asks for.

mod issues;
mod validate;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alga_model::ExtensionName;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use self::issues::Issues;
pub use self::issues::{InvalidManifest, Issue};
use crate::path::{BundlePath, BundlePathError};

/// Where a manifest names its component.
const ENTRY: &str = "/entry";

/// A manifest that passed every check.
///
/// Written as JSON it has the members it was read from, those unknown to this version included.
/// [`Manifest::parse`] is the way to read one: deserializing checks no more than the types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name of the extension.
    pub name: ExtensionName,
    /// Who publishes it; see [`Manifest::check_publisher`].
    pub publisher: String,
    /// Its version.
    pub version: Version,
    /// What the component is written against.
    pub runtime: Runtime,
    /// What it asks for; [`Manifest::capabilities`] reads it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "capabilities"
    )]
    requested: Option<Requested>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "reference::optional"
    )]
    entry: Option<BundlePath>,
    /// Its pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ui: Option<Ui>,
    /// What it answers over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Api>,
    /// Kept for other tools: machine code from a bundle is never loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precompiled: Option<BTreeMap<String, String>>,
    /// Patterns of static files, for other tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<Vec<String>>,
    /// Where the bill of materials is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<String>,
    /// Members this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What a component is written against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// `wasm-component@1`.
    #[serde(rename = "wasm-component@1")]
    WasmComponent1,
    /// `wasm-js@1`, the older name of the same.
    #[serde(rename = "wasm-js@1")]
    WasmJs1,
}

/// The extension's pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ui {
    /// How they are shown.
    #[serde(rename = "type")]
    pub kind: UiKind,
    /// The page's file, also answered for its client-side routes.
    #[serde(deserialize_with = "reference::required")]
    pub entry: BundlePath,
    /// Where the product shows the extension, as the author wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Map<String, Value>>,
    /// Members this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// How pages are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UiKind {
    /// In a frame of their own.
    Iframe,
}

/// What the extension answers over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Api {
    /// One item per method and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
    /// Members this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// One method on one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The HTTP method, in capitals.
    pub method: String,
    /// The path below the extension's own root; starts with `/`.
    pub path: String,
    /// A name for people and for the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Members this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A manifest and what its author should look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The manifest.
    pub manifest: Manifest,
    /// What is odd but not wrong, such as an unknown field.
    pub warnings: Vec<Issue>,
}

/// A file of the bundle that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// JSON pointer of the place that names it.
    pub pointer: String,
    /// The file.
    pub file: BundlePath,
}

/// The capabilities as they were written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Requested {
    List(Vec<String>),
    Object(BTreeMap<String, Value>),
}

static DEFAULT_ENTRY: LazyLock<BundlePath> = LazyLock::new(|| {
    "dist/main.wasm"
        .parse()
        .expect("the default entry is a plain path")
});

impl Manifest {
    /// Where a bundle keeps its manifest.
    pub const FILE: &'static str = "manifest.json";

    /// The most bytes a manifest may have.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Parses a manifest and checks everything that can be checked without its bundle.
    ///
    /// # Errors
    ///
    /// Every issue at once, a hundred of them in words, except that text which is no JSON has just that one,
    /// at the empty path.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, InvalidManifest> {
        validate::parse(bytes)
    }

    /// Whether `publisher` may be the name of a publisher: 1–128 characters, none of them a control
    /// character or one that can't be seen, no space around them.
    pub fn check_publisher(publisher: &str) -> Result<(), &'static str> {
        validate::check_publisher(publisher)
    }

    /// The component's file.
    pub fn entry(&self) -> &BundlePath {
        self.entry.as_ref().unwrap_or(&DEFAULT_ENTRY)
    }

    /// What the extension asks for, by capability, whichever form the manifest uses.
    ///
    /// In the older list form `storage.kv` asks for reading and writing the storage namespace
    /// `default`, and any other name asks for itself with an empty object. A `cap:` in front of a
    /// name is dropped.
    pub fn capabilities(&self) -> BTreeMap<String, Value> {
        match &self.requested {
            None => BTreeMap::new(),
            Some(Requested::List(names)) => names.iter().map(|name| from_list(name)).collect(),
            Some(Requested::Object(requests)) => requests
                .iter()
                .map(|(name, request)| (bare(name).to_owned(), request.clone()))
                .collect(),
        }
    }

    /// Every file of the bundle that the manifest names.
    pub fn references(&self) -> Vec<Reference> {
        let mut references = vec![Reference {
            pointer: ENTRY.to_owned(),
            file: self.entry().clone(),
        }];
        if let Some(ui) = &self.ui {
            references.push(Reference {
                pointer: "/ui/entry".to_owned(),
                file: ui.entry.clone(),
            });
        }
        let schemas = self.schema_references().into_iter();
        references.extend(schemas.filter_map(|(pointer, file)| {
            let file = file.ok()?;
            Some(Reference { pointer, file })
        }));
        references
    }

    /// The places where a capability names a schema. [`Manifest::parse`] has seen to it that all of them
    /// are paths.
    fn schema_references(&self) -> Vec<(String, Result<BundlePath, BundlePathError>)> {
        let Some(Requested::Object(requests)) = &self.requested else {
            return Vec::new();
        };
        let texts = requests
            .iter()
            .flat_map(|(name, request)| validate::schema_references(name, request));
        texts
            .map(|(pointer, text)| (pointer, BundlePath::parse_reference(text)))
            .collect()
    }

    /// One issue for each named file that the bundle does not have, and for each name that can't be one.
    pub fn missing_files(&self, has: impl Fn(&BundlePath) -> bool) -> Vec<Issue> {
        let missing = self
            .references()
            .into_iter()
            .filter(|reference| !has(&reference.file))
            .map(|Reference { pointer, file }| {
                let message = if pointer == ENTRY {
                    format!(
                        "the bundle has no file {file}, which is its component; build it first, or name another \
                         file with `entry`"
                    )
                } else {
                    format!("the bundle has no file {file}")
                };
                Issue {
                    path: pointer,
                    message,
                }
            });
        let no_paths = self
            .schema_references()
            .into_iter()
            .filter_map(|(path, file)| {
                let message = file.err()?.to_string();
                Some(Issue { path, message })
            });
        missing.chain(no_paths).collect()
    }
}

/// The name of a capability without the `cap:` that older manifests put in front.
fn bare(name: &str) -> &str {
    name.strip_prefix("cap:").unwrap_or(name)
}

fn from_list(name: &str) -> (String, Value) {
    match bare(name) {
        "storage.kv" => (
            "alga.storage".to_owned(),
            json!({ "namespaces": [{ "name": "default", "access": ["read", "write"] }] }),
        ),
        other => (other.to_owned(), json!({})),
    }
}

mod reference {
    use serde::de::{Deserialize, Deserializer, Error};

    use crate::path::BundlePath;

    pub(super) fn required<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BundlePath, D::Error> {
        let text = String::deserialize(deserializer)?;
        BundlePath::parse_reference(&text).map_err(D::Error::custom)
    }

    pub(super) fn optional<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BundlePath>, D::Error> {
        required(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &Value) -> Result<Parsed, InvalidManifest> {
        Manifest::parse(value.to_string().as_bytes())
    }

    fn minimal() -> Value {
        json!({
            "name": "com.example.notes",
            "publisher": "Example Ltd",
            "version": "1.2.0",
            "runtime": "wasm-component@1",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut manifest = minimal();
        manifest[name] = value;
        manifest
    }

    fn issue_paths(value: &Value) -> Vec<String> {
        parse(value)
            .unwrap_err()
            .issues
            .into_iter()
            .map(|issue| issue.path)
            .collect()
    }

    fn full() -> Value {
        json!({
            "name": "com.example.notes",
            "publisher": "Example Ltd",
            "version": "1.2.0-beta.1+5",
            "runtime": "wasm-js@1",
            "capabilities": {
                "alga.storage": { "namespaces": [
                    { "name": "notes", "access": ["read"], "schemaReference": "./schemas/note.json" },
                ]},
                "http.fetch": {},
            },
            "entry": "dist/notes.wasm",
            "ui": { "type": "iframe", "entry": "ui/index.html", "hooks": { "appMenu": { "label": "Notes" } }, "theme": 1 },
            "api": { "endpoints": [{ "method": "GET", "path": "/notes", "handler": "list", "cache": true }], "v": 2 },
            "precompiled": { "aarch64": "x.cwasm" },
            "assets": ["ui/**/*"],
            "sbom": "sbom.json",
            "colour": { "deep": [1, 2.5, null] },
        })
    }

    #[test]
    fn the_shortest_manifest_has_the_usual_entry_and_asks_for_nothing() {
        let parsed = parse(&minimal()).unwrap();
        assert_eq!(parsed.manifest.entry().as_str(), "dist/main.wasm");
        assert_eq!(parsed.manifest.capabilities(), BTreeMap::new());
        assert_eq!(parsed.warnings, []);
    }

    #[test]
    fn a_manifest_survives_reading_and_writing_with_its_unknown_fields() {
        for value in [minimal(), full()] {
            assert_eq!(
                serde_json::to_value(parse(&value).unwrap().manifest).unwrap(),
                value
            );
        }
    }

    #[test]
    fn unknown_fields_are_warned_about_by_path() {
        let warnings = parse(&full()).unwrap().warnings;
        let paths: Vec<_> = warnings
            .iter()
            .map(|warning| warning.path.as_str())
            .collect();
        assert_eq!(
            paths,
            ["/api/endpoints/0/cache", "/api/v", "/colour", "/ui/theme"]
        );
    }

    #[test]
    fn both_forms_of_capabilities_read_the_same() {
        let list = parse(&with(
            "capabilities",
            json!(["cap:storage.kv", "http.fetch"]),
        ))
        .unwrap();
        let storage = json!({ "namespaces": [{ "name": "default", "access": ["read", "write"] }] });
        let object = json!({ "alga.storage": storage, "cap:http.fetch": {} });
        let object = parse(&with("capabilities", object)).unwrap();
        assert_eq!(list.manifest.capabilities(), object.manifest.capabilities());
        assert_eq!(list.manifest.capabilities()["alga.storage"], storage);
        assert_eq!(list.manifest.capabilities()["http.fetch"], json!({}));
    }

    #[test]
    fn every_file_that_is_named_is_a_reference() {
        let manifest = parse(&full()).unwrap().manifest;
        let references = manifest.references();
        let named: Vec<_> = references
            .iter()
            .map(|r| (r.pointer.as_str(), r.file.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                ("/entry", "dist/notes.wasm"),
                ("/ui/entry", "ui/index.html"),
                (
                    "/capabilities/alga.storage/namespaces/0/schemaReference",
                    "schemas/note.json"
                ),
            ]
        );
        let missing = manifest.missing_files(|file| file.as_str() == "ui/index.html");
        assert_eq!(missing.len(), 2);
        assert_eq!(
            missing[0].message,
            "the bundle has no file dist/notes.wasm, which is its component; build it first, or name another file \
             with `entry`"
        );
    }

    #[test]
    fn every_issue_is_listed_with_its_path() {
        let text = r#"{
            "name": "Notes", "publisher": " x", "version": "1.2", "runtime": "wasm-js@2",
            "capabilities": { "alga.storage": { "namespaces": [{ "schemaReference": "../../etc/passwd" }] }, "Bad Name": {} },
            "entry": "/main.wasm",
            "ui": { "entry": "ui/../../index.html", "hooks": 3 },
            "api": { "endpoints": [
                { "method": "FETCH", "path": "notes" },
                { "method": "GET", "path": "/" },
                { "method": "GET", "path": "/" },
                { "path": "/x" }
            ] },
            "assets": [1], "sbom": 5, "sbom": "x"
        }"#;
        let issues = Manifest::parse(text.as_bytes()).unwrap_err().issues;
        let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/api/endpoints/0/method",
                "/api/endpoints/0/path",
                "/api/endpoints/2",
                "/api/endpoints/3/method",
                "/assets/0",
                "/capabilities/Bad Name",
                "/capabilities/alga.storage/namespaces/0/schemaReference",
                "/entry",
                "/name",
                "/publisher",
                "/runtime",
                "/sbom",
                "/ui/entry",
                "/ui/hooks",
                "/ui/type",
                "/version",
            ]
        );
    }

    #[test]
    fn everything_required_is_missed_by_name() {
        assert_eq!(
            issue_paths(&json!({})),
            ["/name", "/publisher", "/runtime", "/version"]
        );
        assert_eq!(
            issue_paths(&with("ui", json!({}))),
            ["/ui/entry", "/ui/type"]
        );
    }

    #[test]
    fn what_is_no_object_has_one_issue_at_the_root() {
        for text in [
            "",
            "{",
            "{} x",
            "[]",
            "7",
            "\u{feff}{}",
            "{\"a\":\"\\ud800\"}",
        ] {
            let issues = Manifest::parse(text.as_bytes()).unwrap_err().issues;
            assert_eq!(issues.len(), 1, "{text}: {issues:?}");
            assert_eq!(issues[0].path, "", "{text}");
        }
        assert_eq!(
            Manifest::parse(b"{\"a\":\"\xff\"}").unwrap_err().issues[0].path,
            ""
        );
    }

    #[test]
    fn the_size_limit_is_exact() {
        let text = minimal().to_string();
        let padded = |len: usize| format!("{text}{}", " ".repeat(len - text.len()));
        assert!(Manifest::parse(padded(Manifest::MAX_BYTES).as_bytes()).is_ok());
        let error = Manifest::parse(padded(Manifest::MAX_BYTES + 1).as_bytes()).unwrap_err();
        assert_eq!(
            error.issues[0].message,
            "a manifest must be at most 262144 bytes, this one has 262145"
        );
    }

    #[test]
    fn a_publisher_is_1_to_128_characters_that_can_be_seen_without_space_around_them() {
        let all = ["x".to_owned(), "ä".repeat(128), "A & B Ltd".to_owned()];
        for good in all
            .into_iter()
            .chain(["株式会社".to_owned(), "e\u{301}".to_owned()])
        {
            assert!(parse(&with("publisher", json!(good))).is_ok(), "{good}");
        }
        for bad in [
            String::new(),
            "ä".repeat(129),
            "x ".to_owned(),
            "a\u{7}b".to_owned(),
            " ".to_owned(),
            "Example\u{200B} Ltd".to_owned(),
            "Example \u{202E}Ltd".to_owned(),
            "\u{FEFF}Example Ltd".to_owned(),
            "Example Ltd\u{3164}".to_owned(),
        ] {
            assert_eq!(
                issue_paths(&with("publisher", json!(bad))),
                ["/publisher"],
                "{bad:?}"
            );
        }
    }

    #[test]
    fn only_semantic_versions_are_versions() {
        for bad in ["1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "latest", ""] {
            assert_eq!(
                issue_paths(&with("version", json!(bad))),
                ["/version"],
                "{bad}"
            );
        }
    }

    #[test]
    fn two_spellings_of_one_capability_are_an_issue() {
        let object = json!({ "http.fetch": {}, "cap:http.fetch": { "hosts": ["*"] } });
        assert_eq!(
            issue_paths(&with("capabilities", object)),
            ["/capabilities/http.fetch"]
        );
        let list = parse(&with(
            "capabilities",
            json!(["storage.kv", "cap:storage.kv"]),
        ))
        .unwrap();
        assert_eq!(list.warnings[0].path, "/capabilities/1");
    }

    #[test]
    fn the_message_does_not_repeat_the_manifest() {
        let long = "x".repeat(60_000);
        for manifest in [
            with("runtime", json!(long)),
            with("capabilities", json!({ long.as_str(): {} })),
            with("capabilities", json!([long])),
            with("entry", json!(long)),
            with(
                "ui",
                json!({ "type": long, "entry": long, long.as_str(): 1 }),
            ),
        ] {
            let error = parse(&manifest).unwrap_err();
            assert!(error.to_string().len() < 700, "{error}");
        }
        let warnings = parse(&with(&long, json!(1))).unwrap().warnings;
        assert!(warnings[0].path.len() < 100, "{warnings:?}");
    }

    #[test]
    fn a_hostile_manifest_has_no_more_to_say_than_others() {
        let issues = |manifest: &Value| {
            let error = parse(manifest).unwrap_err();
            assert!(error.to_string().len() < 1_000, "{error}");
            error.issues
        };
        let endpoints = vec![json!({}); 80_000];
        let of_endpoints = issues(&with("api", json!({ "endpoints": endpoints })));
        assert_eq!(of_endpoints.len(), 101);
        // Two fields of each are missing, and there are too many.
        let others = "and 159901 more";
        assert_eq!(of_endpoints[100].message, others);
        assert_eq!(issues(&with("assets", json!(vec![1; 120_000]))).len(), 101);
        let repeated = "\"sbom\": \"\", ".repeat(10_000);
        let text = format!("{{{repeated}\"name\": 1}}");
        let repeated = Manifest::parse(text.as_bytes()).unwrap_err().issues;
        assert!(repeated.len() <= 101, "{}", repeated.len());

        let unknown = (0..20_000).map(|number| (number.to_string(), json!(1)));
        let mut odd = minimal();
        odd.as_object_mut().unwrap().extend(unknown);
        let warnings = parse(&odd).unwrap().warnings;
        assert_eq!(warnings.len(), 101);
        assert_eq!(warnings[100].message, "and 19900 more");
    }

    #[test]
    fn nothing_gets_past_the_checks_as_another_text() {
        let storage = r#"{\"namespaces\": [{\"name\": \"a\", \"name\": \"secrets\", \"schemaReference\": \"../../etc/passwd\"}]}"#;
        let smuggled = format!(r#"{{"$serde_json::private::RawValue": "{storage}"}}"#);
        let rest = minimal().to_string();
        let rest = rest.strip_prefix('{').unwrap();
        for member in [
            format!(r#""capabilities": {{"alga.storage": {smuggled}}}"#),
            format!(r#""capabilities": {smuggled}"#),
            format!(r#""ui": {{"type": "iframe", "entry": "a", "hooks": {{"x": {smuggled}}}}}"#),
            format!(r#""colour": [{smuggled}]"#),
            r#""capabilities": {"x.y": {"$serde_json::private::Number": "7"}}"#.to_owned(),
        ] {
            let text = format!("{{{member}, {rest}");
            let issues = Manifest::parse(text.as_bytes()).unwrap_err().issues;
            assert_eq!(issues.len(), 1, "{issues:?}");
            assert!(
                issues[0].message.contains("must not begin with"),
                "{issues:?}"
            );
        }
    }

    #[test]
    fn a_reference_that_is_no_path_is_an_issue_also_of_a_manifest_that_nobody_checked() {
        let asked = json!({ "alga.storage": { "namespaces": [{ "schemaReference": "../x" }] } });
        let unchecked = with("capabilities", asked);
        let manifest: Manifest = serde_json::from_value(unchecked).unwrap();
        let issues = manifest.missing_files(|_| true);
        assert_eq!(issues.len(), 1);
        let place = "/capabilities/alga.storage/namespaces/0/schemaReference";
        assert_eq!(issues[0].path, place);
    }
}
