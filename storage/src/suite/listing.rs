//! Pages, ranges and cursors.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use super::Stage;
use super::stage::{everything, item};
use crate::suite::Install;
use crate::{BulkItem, Error, Guard, KeyRange, ListRequest, Page};

async fn all_keys(install: &Install<'_>, mut request: ListRequest) -> Vec<String> {
    let mut keys = Vec::new();
    loop {
        let Page { items, next_cursor } = install.list(request.clone()).await.unwrap();
        keys.extend(items.into_iter().map(|listed| listed.key.to_string()));
        if next_cursor.is_none() {
            return keys;
        }
        request.cursor = next_cursor;
    }
}

fn range(prefix: Option<&str>, start: Option<&str>, end: Option<&str>) -> ListRequest {
    ListRequest {
        range: KeyRange::parse(prefix, start, end).unwrap(),
        ..everything()
    }
}

pub async fn pages_give_every_record_once_in_byte_order(stage: &Stage) {
    let install = stage.install();
    let mut keys: Vec<String> = (0..60).map(|i| format!("k{}", i * 7 % 60)).collect();
    keys.extend(["Z", "a", "ä", "日本", "\u{FFFF}", "😀", "~", "!"].map(String::from));
    for key in &keys {
        install.put(key, "1").await.unwrap();
    }
    keys.sort();
    for limit in [1, 2, 7, 25, 67, 68, 69, 1_000] {
        let request = ListRequest {
            limit: Some(limit),
            ..everything()
        };
        assert_eq!(
            all_keys(&install, request.clone()).await,
            keys,
            "limit {limit}"
        );
        let backwards: Vec<_> = keys.iter().rev().cloned().collect();
        assert_eq!(
            all_keys(
                &install,
                ListRequest {
                    reverse: true,
                    ..request
                }
            )
            .await,
            backwards
        );
    }
    assert_eq!(install.list(everything()).await.unwrap().items.len(), 25);
}

pub async fn prefixes_are_literal(stage: &Stage) {
    let install = stage.install();
    for key in ["a%b", "a_b", "a\\b", "axb", "a", "b", "A%b", "日本", "日"] {
        install.put(key, "1").await.unwrap();
    }
    let listed = async |prefix| all_keys(&install, range(Some(prefix), None, None)).await;
    assert_eq!(listed("a%").await, ["a%b"]);
    assert_eq!(listed("a_").await, ["a_b"]);
    assert_eq!(listed("a\\").await, ["a\\b"]);
    assert_eq!(listed("a").await, ["a", "a%b", "a\\b", "a_b", "axb"]);
    assert_eq!(listed("日").await, ["日", "日本"]);
    assert!(listed("zz").await.is_empty());
    assert_eq!(listed("").await.len(), 9);
}

pub async fn ranges_include_their_start_and_exclude_their_end(stage: &Stage) {
    let install = stage.install();
    for key in ["a", "b", "c", "d"] {
        install.put(key, "1").await.unwrap();
    }
    for reverse in [false, true] {
        let listed = async |prefix, start, end| {
            let request = ListRequest {
                reverse,
                limit: Some(1),
                ..range(prefix, start, end)
            };
            let mut keys = all_keys(&install, request).await;
            keys.sort();
            keys
        };
        assert_eq!(listed(None, Some("b"), Some("d")).await, ["b", "c"]);
        assert_eq!(listed(None, Some("b"), None).await, ["b", "c", "d"]);
        assert_eq!(listed(None, None, Some("b")).await, ["a"]);
        assert_eq!(listed(Some("c"), Some("a"), Some("d")).await, ["c"]);
        assert!(listed(None, Some("c"), Some("c")).await.is_empty());
        assert!(listed(None, Some("d"), Some("a")).await.is_empty());
    }
}

pub async fn a_page_ends_at_its_bytes(stage: &Stage) {
    let install = stage.install();
    let value = format!("\"{}\"", "v".repeat(65_534));
    for i in 0..20 {
        install.put(&format!("k{i:02}"), &value).await.unwrap();
    }
    let request = ListRequest {
        include_values: true,
        limit: Some(1_000),
        ..everything()
    };
    let page = install.list(request.clone()).await.unwrap();
    // 65 536 bytes of value, 3 of key: 15 records lie below 1 MiB, 16 above.
    assert_eq!(page.items.len(), 15);
    assert!(page.next_cursor.is_some());
    assert_eq!(all_keys(&install, request).await.len(), 20);
    assert_eq!(install.list(everything()).await.unwrap().items.len(), 20);
}

pub async fn values_and_metadata_come_where_asked(stage: &Stage) {
    let install = stage.install();
    let metadata = Some("{\"m\":1}".to_owned());
    install
        .put_item(BulkItem {
            metadata,
            ..item("k", "2", Guard::Any)
        })
        .await
        .unwrap();
    for (include_values, include_metadata) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let request = ListRequest {
            include_values,
            include_metadata,
            ..everything()
        };
        let listed = install.list(request).await.unwrap().items.remove(0);
        let text = |json: Option<crate::JsonText>| json.map(crate::JsonText::into_string);
        assert_eq!(text(listed.value), include_values.then(|| "2".to_owned()));
        assert_eq!(
            text(listed.metadata),
            include_metadata.then(|| "{\"m\":1}".to_owned())
        );
        assert_eq!(listed.revision.get(), 1);
    }
}

pub async fn limits_and_cursors_at_their_edges(stage: &Stage) {
    let install = stage.install();
    let with_limit = |limit| ListRequest {
        limit: Some(limit),
        ..everything()
    };
    assert!(matches!(
        install.list(with_limit(0)).await,
        Err(Error::ValidationFailed(_))
    ));
    assert!(install.list(with_limit(1)).await.is_ok());
    assert!(install.list(with_limit(1_000)).await.is_ok());
    assert!(matches!(
        install.list(with_limit(1_001)).await,
        Err(Error::LimitExceeded(_))
    ));
    for cursor in ["", "x", "AAAA", "not base64!", &"A".repeat(10_000)] {
        let request = ListRequest {
            cursor: Some(cursor.to_owned()),
            ..everything()
        };
        assert!(
            matches!(install.list(request).await, Err(Error::ValidationFailed(_))),
            "{cursor}"
        );
    }
}
