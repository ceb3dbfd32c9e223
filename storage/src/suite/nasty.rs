//! Hostile text in every place that takes text, and every limit at its edge.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::time::Duration;

use alga_model::TenantId;

use super::stage::{everything, item, namespace, revision_of};
use super::{Install, Stage};
use crate::{
    BulkItem, Error, ErrorCode, Guard, Key, KeyRange, Limit, Limits, ListRequest, PutRequest,
    RequestLimits, StorageGrant,
};

/// Text that is meant to be taken for something else: keys that are also values, metadata, prefixes
/// and bounds.
const TEXTS: [&str; 42] = [
    // What SQL knows.
    "%",
    "_",
    "\\",
    "'",
    "\"",
    "''",
    "a%b",
    "a_b",
    "a\\b",
    "axb",
    "--",
    ";",
    "?1",
    "$1",
    ":key",
    "NULL",
    "' OR '1'='1",
    "'); DROP TABLE ext_storage_records; --",
    "x' UNION SELECT value FROM ext_storage_records WHERE '1'='1",
    "[a-z]*",
    // What JSON and templates know.
    "{}",
    "\\u0000",
    "${jndi}",
    // What serde_json tells itself that an object is none.
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
    // What only looks like a path.
    "...",
    " ",
    // What differs in case, or is composed otherwise.
    "K",
    "k",
    "É",
    "é",
    "e\u{301}",
    "\u{212A}",
    "ß",
    // Scripts and directions.
    "ключ",
    "مفتاح",
    "\u{202e}שלום",
    "कुंजी",
    "鍵",
    "\u{FFFF}",
    "👩‍👩‍👧",
    "\u{10FFFF}",
];

pub async fn any_text_is_a_key_and_a_value_and_nothing_else(stage: &Stage) {
    let install = stage.install();
    for text in TEXTS {
        let quoted = quoted(text);
        let put = BulkItem {
            metadata: Some(format!("{{{quoted}:{quoted}}}")),
            ..item(text, &format!("[{{{quoted}:{quoted}}}]"), Guard::Absent)
        };
        assert_eq!(
            install.put_item(put).await.unwrap().revision.get(),
            1,
            "{text}"
        );
    }
    let found = install.get_many(&TEXTS).await.unwrap();
    for (text, record) in TEXTS.into_iter().zip(found) {
        let quoted = quoted(text);
        let record = record.unwrap();
        assert_eq!(record.key.as_str(), text);
        assert_eq!(record.value.as_str(), format!("[{{{quoted}:{quoted}}}]"));
        assert_eq!(record.metadata.as_str(), format!("{{{quoted}:{quoted}}}"));
        assert_eq!(install.get(text).await.unwrap(), record);
    }
    for (index, text) in TEXTS.into_iter().enumerate() {
        assert!(install.delete(text).await.unwrap(), "{text}");
        let left = (TEXTS.len() - index - 1) as u64;
        assert_eq!(install.usage().await.unwrap().keys, left, "{text}");
    }
}

pub async fn any_text_is_a_prefix_and_a_bound_and_nothing_else(stage: &Stage) {
    let install = stage.install();
    let mut keys: Vec<String> = TEXTS
        .into_iter()
        .flat_map(|text| [text.to_owned(), format!("{text}{text}")])
        .collect();
    keys.sort();
    keys.dedup();
    for key in &keys {
        install.put(key, "1").await.unwrap();
    }
    for text in TEXTS {
        let listed = async |prefix, start, end| keys_within(&install, prefix, start, end).await;
        let wanted = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
            let mut wanted = keys.clone();
            wanted.retain(|key| is_wanted(key));
            wanted
        };
        let with_prefix = wanted(&|key| key.starts_with(text));
        assert_eq!(listed(Some(text), None, None).await, with_prefix);
        let from_it_on = wanted(&|key| text <= key);
        assert_eq!(listed(None, Some(text), None).await, from_it_on);
        let before_it = wanted(&|key| key < text);
        assert_eq!(listed(None, None, Some(text)).await, before_it);
    }
}

pub async fn namespaces_that_look_alike_are_apart(stage: &Stage) {
    let install = stage.install();
    let longest = "n".repeat(64);
    let names = [
        "a.b",
        "a_b",
        "a-b",
        "axb",
        "a",
        "a.",
        "a--",
        "0",
        "00",
        "null",
        "select",
        "ext_storage_usage",
        &longest[..63],
        &longest,
    ];
    let all = StorageGrant::all_of(names.map(namespace));
    install.grant(Some(all), Stage::roomy(), true);
    for name in names {
        let request = PutRequest {
            namespace: namespace(name),
            item: item("k", &quoted(name), Guard::Absent),
            return_previous: false,
            return_current: false,
        };
        install.gate().put(&install.caller, request).await.unwrap();
    }
    for name in names {
        let request = ListRequest {
            namespace: namespace(name),
            include_values: true,
            ..everything()
        };
        let items = install.list(request).await.unwrap().items;
        assert_eq!(items.len(), 1, "{name}");
        assert_eq!(items[0].value.as_ref().unwrap().as_str(), quoted(name));
    }
    let mut sorted = names;
    sorted.sort_unstable();
    let counted = install.usage().await.unwrap().per_namespace;
    assert!(
        counted
            .iter()
            .map(|usage| usage.namespace.as_str())
            .eq(sorted)
    );
}

pub async fn no_spelling_of_half_a_character_gets_in(stage: &Stage) {
    let install = stage.install();
    let halves = [
        r"\ud800",
        r"\uD800",
        r"\uDbFf",
        r"\udc00",
        r"\uDFFF",
        r"\ud800\ud800",
        r"\udc00\ud800",
        r"\udc00\udc00",
        r"\ud800\u0041",
        r"\ud800x",
        r"x\ud800",
        r"\ud83d\\ude00",
        r"\ud83d \ude00",
        r"\ud83d\n",
        r"\\\ud800",
        r"\ud83d\ude00\ud83d",
    ];
    for half in halves {
        assert_refused_everywhere(&install, half).await;
    }
    for whole in [
        r"\ud83d\ude00",
        r"\uD83D\uDE00",
        r"\ud800\udc00",
        r"\udbff\udfff",
        r"\\ud800",
        "\u{10FFFF}",
    ] {
        assert_kept_everywhere(&install, whole).await;
    }
}

pub async fn no_spelling_of_the_null_character_gets_in(stage: &Stage) {
    let install = stage.install();
    for null in [r"\u0000", r"a\u0000b", r"\\\u0000", "\0", "a\0"] {
        assert_refused_everywhere(&install, null).await;
    }
    for harmless in [r"\\u0000", r"\u0001", r"\u00010", "\u{2400}", "0"] {
        assert_kept_everywhere(&install, harmless).await;
    }
}

pub async fn numbers_keep_every_digit(stage: &Stage) {
    let install = stage.install();
    let digits = "1234567890".repeat(100);
    let fraction = format!("-0.{digits}e-{digits}");
    for number in [
        "1e100000",
        "-1E+100000",
        "1e-100000",
        "-0",
        "-0.0",
        "0e0",
        "1.0",
        "1.10",
        "1234567890123456789012345678901234567890",
        "-9223372036854775809",
        "18446744073709551616",
        "9007199254740993",
        &digits,
        &fraction,
    ] {
        install
            .put_item(with_metadata(number, &format!("{{\"m\":{number}}}")))
            .await
            .unwrap();
        let record = install.get("k").await.unwrap();
        assert_eq!(record.value.as_str(), number);
        assert_eq!(record.metadata.as_str(), format!("{{\"m\":{number}}}"));
    }
}

pub async fn nesting_ends_at_128(stage: &Stage) {
    let install = stage.install();
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let both = |depth: usize| {
        let (opening, closing) = ("[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2));
        let innermost = if depth.is_multiple_of(2) { "1" } else { "[]" };
        format!("{opening}{innermost}{closing}")
    };
    for depth in [127, 128] {
        for value in [arrays(depth), objects(depth), both(depth)] {
            install
                .put_item(with_metadata(&value, &objects(depth)))
                .await
                .unwrap();
            let record = install.get("k").await.unwrap();
            assert_eq!(
                (record.value.as_str(), record.metadata.as_str()),
                (value.as_str(), objects(depth).as_str())
            );
        }
    }
    for depth in [129, 10_000] {
        for value in [
            arrays(depth),
            objects(depth),
            both(depth),
            "[".repeat(depth),
        ] {
            assert_eq!(
                code(install.put("k", &value).await),
                ErrorCode::ValidationFailed,
                "{depth}"
            );
        }
    }
    let metadata = with_metadata("1", &objects(129));
    assert_eq!(
        code(install.put_item(metadata).await),
        ErrorCode::ValidationFailed
    );
}

pub async fn members_are_the_same_however_they_are_spelled(stage: &Stage) {
    let install = stage.install();
    for (one, other) in [
        ("a", "a"),
        ("", ""),
        ("a", r"\u0061"),
        (r"\u006A", r"\u006a"),
        ("/", r"\/"),
        (r"\n", r"\u000A"),
        (r"\\", r"\u005c"),
        (r#"\""#, r"\u0022"),
        ("é", r"\u00e9"),
        ("😀", r"\ud83d\uDE00"),
        ("long name", r"long\u0020name"),
    ] {
        for object in [
            format!(r#"{{"{one}":1,"{other}":2}}"#),
            format!(r#"{{"{one}":1,"x":[],"{other}":1}}"#),
        ] {
            for value in [
                object.clone(),
                format!("[{object}]"),
                format!("{{\"o\":{object}}}"),
            ] {
                assert_eq!(
                    code(install.put("k", &value).await),
                    ErrorCode::ValidationFailed,
                    "{value}"
                );
            }
            let metadata = with_metadata("1", &object);
            assert_eq!(
                code(install.put_item(metadata).await),
                ErrorCode::ValidationFailed,
                "{object}"
            );
        }
    }
    for apart in [
        r#"{"a":1,"A":1}"#,
        r#"{"a":1,"a ":1}"#,
        r#"{"é":1,"e\u0301":1}"#,
        r#"{"a":{"a":1},"b":{"a":1}}"#,
        r#"{"a":1,"\\u0061":1}"#,
        "{\"K\":1,\"k\":1,\"\u{212A}\":1}",
    ] {
        install.put_item(with_metadata(apart, apart)).await.unwrap();
        assert_eq!(install.get("k").await.unwrap().value.as_str(), apart);
    }
}

pub async fn bytes_are_counted_not_characters(stage: &Stage) {
    let install = stage.install();
    // 256 bytes each; one more does not fit, whatever the last character takes.
    for longest in [
        "k".repeat(256),
        "é".repeat(128),
        format!("{}k", "鍵".repeat(85)),
        "👩".repeat(64),
        format!("{}é", "e\u{301}".repeat(84) + "ab"),
    ] {
        assert_eq!(longest.len(), 256);
        let mut shorter = longest.clone();
        let last = shorter.pop().unwrap();
        for key in [&shorter, &longest] {
            assert_eq!(
                install
                    .put_if(key, "1", Guard::Absent)
                    .await
                    .unwrap()
                    .revision
                    .get(),
                1
            );
            assert_eq!(install.get(key).await.unwrap().key.as_str(), key);
        }
        assert_eq!(
            keys_within(&install, Some(&longest), None, None).await,
            [longest.as_str()]
        );
        let both = keys_within(&install, Some(&shorter), None, None).await;
        assert_eq!(both, [shorter.as_str(), longest.as_str()]);
        for longer in [
            format!("{longest}k"),
            format!("k{longest}"),
            format!("{longest}{last}"),
        ] {
            assert!(Key::parse(longer.clone()).is_err());
            assert!(KeyRange::parse(Some(&longer), None, None).is_err());
            assert!(KeyRange::parse(None, Some(&longer), None).is_err());
            assert!(KeyRange::parse(None, None, Some(&longer)).is_err());
        }
    }
    let install = install_with(stage, |limits| {
        (limits.value_bytes, limits.metadata_bytes) = (10, 15);
    });
    assert!(install.put("k", "\"éé👩\"").await.is_ok());
    assert_eq!(
        limit(install.put("k", "\"ééé👩\"").await),
        ("value-bytes", 10, 12)
    );
    assert!(
        install
            .put_item(with_metadata("1", r#"{"é":"👩é"}"#))
            .await
            .is_ok()
    );
    let larger = with_metadata("1", r#"{"é":"👩éx"}"#);
    assert_eq!(
        limit(install.put_item(larger).await),
        ("metadata-bytes", 15, 16)
    );
}

pub async fn revisions_beyond_all_that_are_stored_are_conflicts(stage: &Stage) {
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    for revision in [2, u64::from(u32::MAX) + 1, i64::MAX.unsigned_abs()] {
        let guard = Guard::Exactly(revision_of(revision));
        for key in ["k", "absent"] {
            assert_eq!(
                code(install.get_if(key, revision).await),
                ErrorCode::RevisionMismatch
            );
            assert_eq!(
                code(install.put_if(key, "2", guard).await),
                ErrorCode::RevisionMismatch
            );
            assert_eq!(
                code(install.delete_if(key, guard).await),
                ErrorCode::RevisionMismatch
            );
        }
    }
    assert_eq!(install.get("k").await.unwrap().revision.get(), 1);
}

pub async fn each_limit_of_a_request_is_that_of_the_install(stage: &Stage) {
    let install = install_with(stage, |limits| {
        *limits = RequestLimits {
            value_bytes: 8,
            metadata_bytes: 9,
            ttl: (Duration::from_secs(5), Duration::from_secs(7)),
            bulk_items: 3,
            bulk_bytes: 20,
            keys: 4,
            page_items: (5, 2),
            page_bytes: 1_000,
        }
    });
    for bytes in [7, 8] {
        assert!(install.put("k", &"1".repeat(bytes)).await.is_ok());
    }
    assert_eq!(
        limit(install.put("k", &"1".repeat(9)).await),
        ("value-bytes", 8, 9)
    );
    for metadata in ["{\"m\":10}", "{\"m\":100}"] {
        assert!(install.put_item(with_metadata("1", metadata)).await.is_ok());
    }
    let larger = with_metadata("1", "{\"m\":1000}");
    assert_eq!(
        limit(install.put_item(larger).await),
        ("metadata-bytes", 9, 10)
    );

    let living = async |seconds| {
        let ttl_seconds = Some(seconds);
        install
            .put_item(BulkItem {
                ttl_seconds,
                ..item("k", "1", Guard::Any)
            })
            .await
    };
    for seconds in [5, 6, 7] {
        assert!(living(seconds).await.is_ok());
    }
    assert_eq!(limit(living(4).await), ("ttl-seconds", 5, 4));
    assert_eq!(limit(living(8).await), ("ttl-seconds", 7, 8));

    let batch = async |sizes: &[usize]| {
        let items = sizes.iter().enumerate();
        let items = items.map(|(i, size)| item(&format!("k{i}"), &"1".repeat(*size), Guard::Any));
        install
            .bulk_put(items.collect())
            .await
            .map_err(|failed| failed.error)
    };
    for sizes in [&[1, 1][..], &[1, 1, 1], &[5, 4, 4], &[5, 5, 4]] {
        assert!(batch(sizes).await.is_ok(), "{sizes:?}");
    }
    assert_eq!(limit(batch(&[1, 1, 1, 1]).await), ("items", 3, 4));
    assert_eq!(limit(batch(&[5, 5, 5]).await), ("batch-bytes", 20, 21));

    for keys in [&["a", "b", "c"][..], &["a", "b", "c", "d"]] {
        assert!(install.get_many(keys).await.is_ok());
    }
    assert_eq!(limit(install.get_many(&["a"; 5]).await), ("keys", 4, 5));

    let page = async |limit| {
        install
            .list(ListRequest {
                limit,
                ..everything()
            })
            .await
    };
    for asked in [4, 5] {
        assert!(page(Some(asked)).await.is_ok());
    }
    assert_eq!(page(None).await.unwrap().items.len(), 2);
    assert_eq!(limit(page(Some(6)).await), ("limit", 5, 6));
}

pub async fn a_page_ends_before_the_byte_that_is_too_much(stage: &Stage) {
    // Three records of 8 bytes: a key of 1, a value of 5 and metadata of 2.
    for (page_bytes, expected) in [(1, 1), (15, 1), (16, 2), (17, 2), (23, 2), (24, 3), (25, 3)] {
        let install = install_with(stage, |limits| limits.page_bytes = page_bytes);
        for key in ["a", "b", "c"] {
            install.put(key, "12345").await.unwrap();
        }
        for reverse in [false, true] {
            let request = ListRequest {
                include_values: true,
                include_metadata: true,
                reverse,
                ..everything()
            };
            let page = install.list(request).await.unwrap();
            assert_eq!(page.items.len(), expected, "{page_bytes}");
            assert_eq!(page.next_cursor.is_some(), expected < 3, "{page_bytes}");
        }
    }
}

fn install_with(stage: &Stage, change: impl FnOnce(&mut RequestLimits)) -> Install<'_> {
    let mut limits: Limits = Stage::roomy();
    change(&mut limits.request);
    stage.install_with(TenantId::generate(), limits)
}

fn with_metadata(value: &str, metadata: &str) -> BulkItem {
    BulkItem {
        metadata: Some(metadata.to_owned()),
        ..item("k", value, Guard::Any)
    }
}

/// The text as JSON.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn code<T>(outcome: Result<T, Error>) -> ErrorCode {
    match outcome {
        Ok(_) => panic!("what should be refused was accepted"),
        Err(error) => error.code(),
    }
}

fn limit<T>(outcome: Result<T, Error>) -> (&'static str, u64, u64) {
    match outcome {
        Err(Error::LimitExceeded(Limit {
            name,
            limit,
            actual,
        })) => (name, limit, actual),
        Err(other) => panic!("expected a limit, not {other}"),
        Ok(_) => panic!("what is above the limit was accepted"),
    }
}

/// JSON texts in which a string stands wherever one may.
fn with_string(string: &str) -> [String; 4] {
    [
        format!("\"{string}\""),
        format!("[1,[\"{string}\"]]"),
        format!("{{\"m\":\"{string}\"}}"),
        format!("{{\"{string}\":1}}"),
    ]
}

async fn assert_refused_everywhere(install: &Install<'_>, string: &str) {
    for value in with_string(string) {
        let refused = install.put("k", &value).await;
        assert_eq!(code(refused), ErrorCode::ValidationFailed, "{value}");
        let refused = install
            .put_item(with_metadata("1", &format!("{{\"o\":{value}}}")))
            .await;
        assert_eq!(code(refused), ErrorCode::ValidationFailed, "{value}");
    }
}

async fn assert_kept_everywhere(install: &Install<'_>, string: &str) {
    for value in with_string(string) {
        let metadata = format!("{{\"o\":{value}}}");
        install
            .put_item(with_metadata(&value, &metadata))
            .await
            .unwrap();
        let record = install.get("k").await.unwrap();
        assert_eq!(
            (record.value.as_str(), record.metadata.as_str()),
            (value.as_str(), metadata.as_str())
        );
    }
}

async fn keys_within(
    install: &Install<'_>,
    prefix: Option<&str>,
    start: Option<&str>,
    end: Option<&str>,
) -> Vec<String> {
    let request = ListRequest {
        range: KeyRange::parse(prefix, start, end).unwrap(),
        limit: Some(1_000),
        ..everything()
    };
    let page = install.list(request).await.unwrap();
    page.items
        .into_iter()
        .map(|listed| listed.key.to_string())
        .collect()
}
