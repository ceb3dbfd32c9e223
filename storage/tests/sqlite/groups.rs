//! Writes that share a transaction.

use alga_storage::suite::Stage;
use alga_storage::{Caller, Error, Guard, Limits, Namespace, Quotas, SqliteBackend};
use futures_util::future::join;
use sqlx::Row as _;

use super::{put_to, stage};

async fn namespaces(backend: &SqliteBackend) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT namespace FROM ext_storage_usage WHERE namespace <> '' ORDER BY namespace",
    )
    .fetch_all(backend.database().reader())
    .await
    .unwrap()
}

// On one thread both writes are queued before the writing task gets its turn: they form a group.
#[tokio::test]
async fn a_refused_write_leaves_no_trace_beside_one_that_happens() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    let (refused, written) = join(
        put_to(&install, "cache", Guard::Exists),
        put_to(&install, "notes", Guard::Any),
    )
    .await;
    assert!(matches!(refused, Err(Error::RevisionMismatch(_))));
    assert_eq!(written.unwrap().revision.get(), 1);
    assert_eq!(namespaces(&backend).await, ["notes"]);
}

#[tokio::test]
async fn writes_of_a_group_see_each_other_in_the_order_of_their_arrival() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    let (put, deleted) = join(
        put_to(&install, "notes", Guard::Absent),
        install.delete("k"),
    )
    .await;
    assert_eq!(put.unwrap().revision.get(), 1);
    assert!(deleted.unwrap());
    let (deleted, put) = join(
        install.delete("k"),
        put_to(&install, "notes", Guard::Absent),
    )
    .await;
    assert!(!deleted.unwrap());
    assert_eq!(put.unwrap().revision.get(), 2);
    let operations: Vec<String> =
        sqlx::query_scalar("SELECT operation FROM ext_storage_audit ORDER BY audit_id")
            .fetch_all(backend.database().reader())
            .await
            .unwrap();
    assert_eq!(operations, ["put", "delete", "put"]);
}

#[tokio::test]
async fn each_change_leaves_one_audit_record_that_tells_all_but_the_value() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    install.put("k", "\"first\"").await.unwrap();
    install.put("k", "\"the second\"").await.unwrap();
    install
        .put_if("k", "\"refused\"", Guard::Absent)
        .await
        .unwrap_err();
    install.delete("k").await.unwrap();
    install.delete("k").await.unwrap();
    let rows = sqlx::query("SELECT * FROM ext_storage_audit ORDER BY audit_id")
        .fetch_all(backend.database().reader())
        .await
        .unwrap();
    let told: Vec<(String, Option<i64>, Option<i64>, i64)> = rows
        .iter()
        .map(|row| {
            (
                row.get("operation"),
                row.get("revision_before"),
                row.get("revision_after"),
                row.get("bytes"),
            )
        })
        .collect();
    // Bytes are those of the value and of `{}`, the metadata.
    let expected = [
        ("put", None, Some(1), 9),
        ("put", Some(1), Some(2), 14),
        ("delete", Some(2), None, 14),
    ];
    assert_eq!(
        told,
        expected.map(|(operation, before, after, bytes)| (
            operation.to_owned(),
            before,
            after,
            bytes
        ))
    );
    for row in &rows {
        let Caller {
            install: id,
            actor,
            request_id,
            ..
        } = &install.caller;
        assert_eq!(
            row.get::<Vec<u8>, _>("tenant_id"),
            install.tenant.as_bytes()
        );
        assert_eq!(row.get::<Vec<u8>, _>("install_id"), id.as_bytes());
        assert_eq!(row.get::<String, _>("extension"), "com.example.suite");
        assert_eq!(
            (
                row.get::<String, _>("namespace"),
                row.get::<String, _>("key")
            ),
            ("notes".into(), "k".into())
        );
        assert_eq!(row.get::<String, _>("actor"), actor.to_string());
        assert_eq!(row.get::<String, _>("request_id"), &**request_id);
        assert!(row.get::<i64, _>("at") > 0);
    }
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_is_not_written_late() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    // Polled once, so that it is queued, and then forgotten.
    let mut abandoned = Box::pin(put_to(&install, "cache", Guard::Any));
    assert!(futures_util::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    put_to(&install, "notes", Guard::Any).await.unwrap();
    assert_eq!(namespaces(&backend).await, ["notes"]);
}

#[tokio::test]
async fn an_install_whose_quota_was_lowered_can_still_shrink() {
    let (stage, _) = stage().await;
    let install = stage.install();
    install.put("a", "1234567890").await.unwrap();
    install.put("b", "1234567890").await.unwrap();
    let grant = alga_storage::StorageGrant::all_of([Namespace::parse("notes").unwrap()]);
    let quotas = Quotas {
        bytes_per_install: 5,
        keys_per_namespace: 1,
        ..Quotas::default()
    };
    install.grant(
        Some(grant),
        Limits {
            quotas,
            ..Stage::roomy()
        },
        true,
    );
    assert!(matches!(
        install.put("a", "12345678901").await,
        Err(Error::QuotaExceeded(_))
    ));
    install.put("a", "123456789").await.unwrap();
    assert!(install.delete("b").await.unwrap());
}
