//! Writes that share a transaction.

use std::time::Duration;

use alga_model::Clock as _;
use alga_storage::suite::Stage;
use alga_storage::{
    Actor, AuditFilter, Caller, Error, Guard, Limits, Maintenance as _, Namespace, Quotas,
    SqliteBackend,
};
use futures_util::future::{join, join3};

use super::{column, item, put_to, stage};

async fn namespaces(backend: &SqliteBackend) -> Vec<String> {
    column(
        backend,
        "SELECT namespace FROM ext_storage_usage WHERE namespace <> '' ORDER BY namespace",
    )
    .await
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
    let filter = AuditFilter::default();
    let records = backend.audit(&filter, None, 100).await.unwrap();
    let operations: Vec<_> = records.iter().map(|record| &*record.operation).collect();
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
    let filter = AuditFilter::default();
    let records = backend.audit(&filter, None, 100).await.unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.operation.as_str(),
                record.revision_before,
                record.revision_after,
                record.bytes,
            )
        })
        .collect();
    // Bytes are those of the value and of `{}`, the metadata.
    assert_eq!(
        told,
        [
            ("put", None, Some(1), 9),
            ("put", Some(1), Some(2), 14),
            ("delete", Some(2), None, 14),
        ]
    );
    for record in &records {
        let Caller {
            install: id,
            actor,
            request_id,
            ..
        } = &install.caller;
        assert_eq!((record.tenant_id, record.install_id), (install.tenant, *id));
        assert_eq!(record.extension.as_deref(), Some("com.example.suite"));
        assert_eq!(
            (record.namespace.as_str(), record.key.as_deref()),
            ("notes", Some("k"))
        );
        assert_eq!(record.actor, actor.to_string());
        assert_eq!(record.request_id.as_deref(), Some(&**request_id));
        assert_eq!((record.item, record.records), (0, 1));
        assert_eq!(record.time, stage.clock.now());
    }
    // Nothing of what was written is in any row, under whatever name.
    let rows: Vec<String> = column(&backend, "SELECT json_array(hex(tenant_id), extension, namespace, operation, actor, request_id, changes)
         FROM ext_storage_audit").await;
    assert!(
        rows.iter()
            .all(|row| !row.contains("first") && !row.contains("second"))
    );
}

#[tokio::test]
async fn each_item_of_a_batch_is_told_in_its_order() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    install.put("b", "1").await.unwrap();
    let items = ["c", "b", "a"].map(|key| item(key, None, Guard::Any));
    install.bulk_put(items.into()).await.unwrap();
    let records = backend
        .audit(&AuditFilter::default(), None, 100)
        .await
        .unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.item,
                record.key.as_deref().unwrap_or_default(),
                record.revision_before,
                record.revision_after,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, "b", None, Some(1)),
            (0, "c", None, Some(1)),
            (1, "b", Some(1), Some(2)),
            (2, "a", None, Some(1)),
        ]
    );
    assert_eq!(records[1].id, records[3].id);
    let rest = backend
        .audit(&AuditFilter::default(), Some(records[0].id), 1)
        .await
        .unwrap();
    assert_eq!(rest, records[1..]);
}

/// How many records each row of the audit tells of, and whether of several requests.
async fn audit_rows(backend: &SqliteBackend) -> Vec<String> {
    let rows = "SELECT records || iif(operation IS NULL, ' of several', ' of one')
                FROM ext_storage_audit ORDER BY audit_id";
    column(backend, rows).await
}

#[tokio::test]
async fn what_a_group_changed_in_a_namespace_shares_a_row_and_says_who_changed_it() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    let mut another = stage.install_with(install.tenant, Stage::roomy());
    another.caller.install = install.caller.install;
    another.caller.request_id = "another request".into();
    another.caller.actor = Actor::Admin("somebody".into());
    let items = |count: usize| (0..count).map(|n| item(&format!("k{n}"), None, Guard::Any));
    let (first, second, elsewhere) = join3(
        install.bulk_put(items(2).collect()),
        another.delete("k1"),
        put_to(&install, "cache", Guard::Any),
    )
    .await;
    assert!(first.is_ok() && second.unwrap() && elsewhere.is_ok());
    let mut rows = audit_rows(&backend).await;
    rows.sort();
    assert_eq!(rows, ["1 of one", "3 of several"]);
    let filter = AuditFilter::default();
    let mut records = backend.audit(&filter, None, 100).await.unwrap();
    records.retain(|record| record.namespace == "notes");
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.item,
                record.key.as_deref().unwrap_or_default(),
                &*record.operation,
                record.revision_after,
                &*record.actor,
                record.request_id.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    let (actor, request) = (
        install.caller.actor.to_string(),
        &*install.caller.request_id,
    );
    assert_eq!(
        told,
        [
            (0, "k0", "put", Some(1), &*actor, request),
            (1, "k1", "put", Some(1), &*actor, request),
            (2, "k1", "delete", None, "admin:somebody", "another request"),
        ]
    );
}

#[tokio::test]
async fn a_row_of_the_audit_has_no_more_changes_than_a_request_may_have() {
    let (stage, backend) = stage().await;
    let mut limits = Stage::roomy();
    limits.request.bulk_items = 100;
    let install = stage.install_with(alga_model::TenantId::generate(), limits);
    let items = |from: usize, count: usize| {
        let items = (from..from + count).map(|n| item(&format!("k{n}"), None, Guard::Any));
        install.bulk_put(items.collect())
    };
    let (a, b, c) = join3(items(0, 60), items(60, 40), items(100, 100)).await;
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let mut rows = audit_rows(&backend).await;
    rows.sort();
    assert_eq!(rows, ["100 of one", "100 of several"]);
}

#[tokio::test]
async fn a_group_of_many_places_is_stored_whole() {
    let (stage, backend) = stage().await;
    let installs: Vec<_> = (0..60).map(|_| stage.install()).collect();
    let some = |i: usize| (0..=i % 6).map(|n| item(&format!("k{n}"), None, Guard::Any));
    let writes = installs
        .iter()
        .enumerate()
        .map(|(i, install)| install.bulk_put(some(i).collect()));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    for (i, install) in installs.iter().enumerate() {
        assert_eq!(install.usage().await.unwrap().keys, i as u64 % 6 + 1);
        assert_eq!(
            backend.verify_usage(install.tenant, false).await.unwrap(),
            []
        );
        let filter = AuditFilter {
            tenant: Some(install.tenant),
            ..AuditFilter::default()
        };
        let told = backend.audit(&filter, None, 100).await.unwrap();
        assert_eq!(told.len(), i % 6 + 1);
        let (first, actor) = (&told[0], install.caller.actor.to_string());
        assert_eq!(
            (first.install_id, &first.actor),
            (install.caller.install, &actor)
        );
    }
}

#[tokio::test]
async fn a_batch_finds_each_of_its_records_however_far_apart_they_lie() {
    let (stage, _backend) = stage().await;
    let install = stage.install();
    let key = |number: usize| format!("k{number:03}");
    for number in (0..100).filter(|number| number % 10 != 5) {
        install.put(&key(number), "1").await.unwrap();
    }
    // Side by side; with more records between them than are looked at; all of them new; at both ends.
    for (numbers, old) in [
        ((20..40).collect::<Vec<_>>(), 18),
        ((0..100).step_by(5).collect(), 12),
        ((0..10).map(|nth| nth * 10 + 5).collect(), 10),
        ((200..220).collect(), 0),
        ((0..4).chain(90..105).collect(), 14),
    ] {
        let before = install.usage().await.unwrap().keys;
        let items = numbers
            .iter()
            .map(|number| item(&key(*number), None, Guard::Any));
        let written = install.bulk_put(items.collect()).await.unwrap();
        let replaced = written.iter().filter(|one| one.revision.get() > 1).count();
        assert_eq!(replaced, old, "{numbers:?}");
        let added = install.usage().await.unwrap().keys - before;
        assert_eq!(added, (numbers.len() - old) as u64, "{numbers:?}");
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

// The bound of expiry is raised where nothing was found, and the write that raised it must keep it so.
#[tokio::test]
async fn an_overwrite_of_what_would_have_expired_is_looked_for_once() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    install
        .put_item(item("k", Some(60), Guard::Any))
        .await
        .unwrap();
    stage.clock.advance(Duration::from_secs(50));
    install
        .put_item(item("k", Some(60), Guard::Any))
        .await
        .unwrap();
    stage.clock.advance(Duration::from_secs(20));
    install.put("other", "1").await.unwrap();
    let bounds: Vec<Option<i64>> = column(
        &backend,
        "SELECT next_expiry FROM ext_storage_usage WHERE install_id = x'' OR namespace <> ''",
    )
    .await;
    let expires_at = install.get("k").await.unwrap().expires_at.unwrap();
    assert_eq!(bounds, [Some(expires_at.as_millis()); 2]);
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_anything_is_removed_for_it() {
    let (stage, _) = stage().await;
    let quotas = Quotas {
        bytes_per_install: 600,
        ..Quotas::default()
    };
    let limits = Limits {
        quotas,
        ..Stage::roomy()
    };
    let install = stage.install_with(alga_model::TenantId::generate(), limits);
    for i in 0..200 {
        let expiring = item(&format!("e{i}"), Some(60), Guard::Any);
        install.put_item(expiring).await.unwrap();
    }
    stage.clock.advance(Duration::from_secs(60));
    let large = format!("\"{}\"", "x".repeat(700));
    let refused = install.put("large", &large).await;
    assert!(
        matches!(refused, Err(Error::QuotaExceeded(_))),
        "{refused:?}"
    );
    assert!(install.usage().await.unwrap().expired_keys >= 100);
}

#[tokio::test]
async fn of_those_who_wait_for_room_the_first_gets_it() {
    const BACKLOG: usize = 2_500;
    let (stage, _) = stage().await;
    let mut limits = Limits {
        quotas: Quotas {
            bytes_per_install: 10_000,
            ..Quotas::default()
        },
        ..Stage::roomy()
    };
    limits.request.bulk_items = 100;
    let install = stage.install_with(alga_model::TenantId::generate(), limits);
    // More than is removed at once, so that those who need the room have to wait for several groups.
    for first in (0..BACKLOG).step_by(100) {
        let items = (first..first + 100).map(|n| item(&format!("e{n}"), Some(60), Guard::Any));
        install.bulk_put(items.collect()).await.unwrap();
    }
    stage.clock.advance(Duration::from_secs(60));
    let large = format!("\"{}\"", "x".repeat(6_000));
    let (first, second, third) = join3(
        install.put("first", &large),
        install.put("second", &large),
        async {
            tokio::task::yield_now().await;
            install.put("third", &large).await
        },
    )
    .await;
    first.unwrap();
    for refused in [second, third] {
        assert!(
            matches!(refused, Err(Error::QuotaExceeded(_))),
            "{refused:?}"
        );
    }
}
