//! Operations on several records.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use super::Stage;
use super::stage::{item, revision_of};
use crate::{BulkError, BulkItem, Error, FailedItem, Guard};

pub async fn get_many_answers_in_order_with_misses(stage: &Stage) {
    let install = stage.install();
    install.put("a", "1").await.unwrap();
    install.put("b", "2").await.unwrap();
    let found = install.get_many(&["b", "missing", "a", "b"]).await.unwrap();
    let values: Vec<_> = found
        .iter()
        .map(|record| record.as_ref().map(|r| r.value.as_str()))
        .collect();
    assert_eq!(values, [Some("2"), None, Some("1"), Some("2")]);
}

pub async fn a_bulk_put_is_all_or_nothing_and_names_the_item(stage: &Stage) {
    let install = stage.install();
    install.put("taken", "0").await.unwrap();
    let items = vec![
        item("a", "1", Guard::Absent),
        item("taken", "1", Guard::Absent),
        item("b", "1", Guard::Any),
    ];
    let BulkError {
        item: failed,
        error,
    } = install.bulk_put(items).await.unwrap_err();
    assert_eq!(
        failed,
        Some(FailedItem {
            index: 1,
            key: "taken".to_owned()
        })
    );
    let Error::RevisionMismatch(conflict) = error else {
        panic!("expected a conflict, not {error}")
    };
    assert_eq!(conflict.current_revision, Some(revision_of(1)));
    assert!(
        install
            .get_many(&["a", "b"])
            .await
            .unwrap()
            .iter()
            .all(Option::is_none)
    );
    assert_eq!(install.usage().await.unwrap().keys, 1);

    let items = vec![
        item("b", "1", Guard::Absent),
        item("taken", "2", Guard::Exactly(revision_of(1))),
    ];
    let written = install.bulk_put(items).await.unwrap();
    let revisions: Vec<_> = written
        .iter()
        .map(|w| (w.key.as_str(), w.revision.get()))
        .collect();
    assert_eq!(revisions, [("b", 1), ("taken", 2)]);
}

pub async fn sizes_and_counts_at_their_limits(stage: &Stage) {
    let install = stage.install();
    let items = |count: usize| {
        (0..count)
            .map(|i| item(&format!("k{i}"), "1", Guard::Any))
            .collect::<Vec<_>>()
    };
    let code =
        |outcome: Result<_, BulkError>| outcome.map(|_: Vec<_>| ()).map_err(|failed| failed.error);
    assert!(matches!(
        code(install.bulk_put(items(0)).await),
        Err(Error::ValidationFailed(_))
    ));
    assert!(code(install.bulk_put(items(20)).await).is_ok());
    assert!(matches!(
        code(install.bulk_put(items(21)).await),
        Err(Error::LimitExceeded(_))
    ));
    let twice = vec![item("k", "1", Guard::Any), item("k", "2", Guard::Any)];
    assert!(matches!(
        code(install.bulk_put(twice).await),
        Err(Error::ValidationFailed(_))
    ));

    // Eight values of 64 KiB less the two bytes of their metadata are just 512 KiB.
    let large = |bytes: usize| -> Vec<BulkItem> {
        let value = |bytes: usize| format!("\"{}\"", "v".repeat(bytes - 2));
        let mut items: Vec<_> = (0..7)
            .map(|i| item(&format!("k{i}"), &value(65_534), Guard::Any))
            .collect();
        items.push(item("last", &value(bytes), Guard::Any));
        items
    };
    assert!(code(install.bulk_put(large(65_534)).await).is_ok());
    let Err(Error::LimitExceeded(limit)) = code(install.bulk_put(large(65_535)).await) else {
        panic!("a batch above the limit was stored");
    };
    assert_eq!(
        (limit.name, limit.limit, limit.actual),
        ("batch-bytes", 524_288, 524_289)
    );

    let keys: Vec<String> = (0..101).map(|i| format!("k{i}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(install.get_many(&keys[..100]).await.unwrap().len(), 100);
    assert!(matches!(
        install.get_many(&keys).await,
        Err(Error::LimitExceeded(_))
    ));
    assert!(matches!(
        install.get_many(&[]).await,
        Err(Error::ValidationFailed(_))
    ));
}
