//! Values, metadata and keys at their edges.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use super::Stage;
use super::stage::item;
use crate::{BulkItem, Error, Guard, Limits};

pub async fn values_come_back_as_compact_text(stage: &Stage) {
    let install = stage.install();
    for (text, compact) in [
        (
            "{ \"b\" : 1e5, \"a\" : [ -0, 1E+2 ] }",
            "{\"b\":1e5,\"a\":[-0,1E+2]}",
        ),
        ("1e100000", "1e100000"),
        (
            "1234567890123456789012345678901234567890",
            "1234567890123456789012345678901234567890",
        ),
        (
            r#""a \u00e9 \/ é 😀 \ud83d\ude00 ' % _ ""#,
            r#""a \u00e9 \/ é 😀 \ud83d\ude00 ' % _ ""#,
        ),
        ("null", "null"),
        ("\"\"", "\"\""),
        (
            "\"'; DROP TABLE ext_storage_records; --\"",
            "\"'; DROP TABLE ext_storage_records; --\"",
        ),
    ] {
        let metadata = Some(format!("{{ \"m\" : {text} }}"));
        install
            .put_item(BulkItem {
                metadata,
                ..item("k", text, Guard::Any)
            })
            .await
            .unwrap();
        let record = install.get("k").await.unwrap();
        assert_eq!(record.value.as_str(), compact);
        assert_eq!(record.metadata.as_str(), format!("{{\"m\":{compact}}}"));
    }
}

pub async fn what_no_database_can_hold_is_refused_alike(stage: &Stage) {
    let install = stage.install();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for refused in [
        "",
        "nul",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "{\"a\":1,\"\\u0061\":2}",
        &deep(129),
    ] {
        assert!(
            matches!(
                install.put("k", refused).await,
                Err(Error::ValidationFailed(_))
            ),
            "{refused}"
        );
    }
    for accepted in [deep(127), deep(128)] {
        install.put("k", &accepted).await.unwrap();
        assert_eq!(install.get("k").await.unwrap().value.as_str(), accepted);
    }
    for metadata in ["null", "[]", "1", "\"{}\"", "{", "{\"a\":1,\"a\":2}"] {
        let refused = BulkItem {
            metadata: Some(metadata.to_owned()),
            ..item("k", "1", Guard::Any)
        };
        assert!(
            matches!(
                install.put_item(refused).await,
                Err(Error::ValidationFailed(_))
            ),
            "{metadata}"
        );
    }
}

pub async fn sizes_are_allowed_to_the_limit_and_no_further(stage: &Stage) {
    let install = stage.install();
    let limits = Limits::default().request;
    let text = |bytes: u64| format!("  \"{}\"", "v".repeat(usize::try_from(bytes).unwrap() - 2));
    install
        .put("k", &text(limits.value_bytes - 1))
        .await
        .unwrap();
    install.put("k", &text(limits.value_bytes)).await.unwrap();
    let Err(Error::LimitExceeded(limit)) = install.put("k", &text(limits.value_bytes + 1)).await
    else {
        panic!("a value above the limit was stored");
    };
    assert_eq!(
        (limit.name, limit.limit, limit.actual),
        ("value-bytes", 65_536, 65_537)
    );

    let object = |bytes: u64| Some(format!("{{\"m\":{}}}", text(bytes - 6).trim_start()));
    let put = async |metadata| {
        install
            .put_item(BulkItem {
                metadata,
                ..item("k", "1", Guard::Any)
            })
            .await
    };
    put(object(limits.metadata_bytes - 1)).await.unwrap();
    put(object(limits.metadata_bytes)).await.unwrap();
    let Err(Error::LimitExceeded(limit)) = put(object(limits.metadata_bytes + 1)).await else {
        panic!("metadata above the limit was stored");
    };
    assert_eq!(
        (limit.name, limit.limit, limit.actual),
        ("metadata-bytes", 4_096, 4_097)
    );
}

pub async fn text_that_could_never_fit_is_not_looked_at(stage: &Stage) {
    let install = stage.install();
    // White space counts for nothing, up to a point.
    let padded = |spaces: usize| format!("{}1", " ".repeat(spaces));
    install.put("k", &padded(4 * 65_536 - 1)).await.unwrap();
    let Err(Error::LimitExceeded(limit)) = install.put("k", &padded(4 * 65_536)).await else {
        panic!("a text beyond all bounds was read");
    };
    assert_eq!(
        (limit.name, limit.limit, limit.actual),
        ("value-bytes", 65_536, 262_145)
    );
    let not_json = "[".repeat(4 * 65_536 + 1);
    assert!(matches!(
        install.put("k", &not_json).await,
        Err(Error::LimitExceeded(_))
    ));
}

pub async fn a_schema_version_that_does_not_exist_is_refused(stage: &Stage) {
    let install = stage.install();
    for version in [0, 1, u32::MAX] {
        let item = BulkItem {
            schema_version: Some(version),
            ..item("k", "1", Guard::Any)
        };
        assert!(
            matches!(
                install.put_item(item).await,
                Err(Error::ValidationFailed(_))
            ),
            "{version}"
        );
    }
}

pub async fn nasty_keys_are_only_keys(stage: &Stage) {
    let install = stage.install();
    let widest = "\u{10FFFF}".repeat(64);
    let keys = [
        "%",
        "_",
        "\\",
        "'",
        "\"",
        "--",
        ";",
        "' OR '1'='1",
        "ключ",
        "鍵",
        "مفتاح",
        "👩‍👩‍👧",
        "\u{202e}",
        "...",
        " ",
        &widest,
    ];
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(
            install
                .put_if(key, &i.to_string(), Guard::Absent)
                .await
                .unwrap()
                .revision
                .get(),
            1
        );
    }
    let found = install.get_many(&keys).await.unwrap();
    for (i, record) in found.into_iter().enumerate() {
        let record = record.unwrap();
        assert_eq!(
            (record.key.as_str(), record.value.as_str()),
            (keys[i], i.to_string().as_str())
        );
    }
    for key in keys {
        assert!(install.delete(key).await.unwrap(), "{key}");
    }
    assert_eq!(install.usage().await.unwrap().keys, 0);
}
