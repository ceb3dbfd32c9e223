//! Counters that have drifted from what they count.

use std::time::Duration;

use alga_storage::suite::Install;
use alga_storage::{Counter, Drift, Guard, Maintenance as _, Removed};

use super::{item, put_to, stage, tamper};

async fn fill(install: &Install<'_>) {
    install.put("a", "\"abc\"").await.unwrap();
    install
        .put_item(item("b", Some(60), Guard::Any))
        .await
        .unwrap();
    put_to(install, "cache", Guard::Any).await.unwrap();
}

/// Whether it is below the tenant, the namespace, and what is wrong.
type Told<'d> = (bool, Option<&'d str>, Counter, Option<i64>, Option<i64>);

fn told(drifts: &[Drift]) -> Vec<Told<'_>> {
    drifts
        .iter()
        .map(|drift| {
            (
                drift.install_id.is_some(),
                drift.namespace.as_deref(),
                drift.counter,
                drift.stored,
                drift.counted,
            )
        })
        .collect()
}

#[tokio::test]
async fn counters_of_ordinary_use_have_no_drift() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    fill(&install).await;
    install.delete("a").await.unwrap();
    stage.clock.advance(Duration::from_secs(60));
    install.put("c", "1").await.unwrap();
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
    assert_eq!(
        backend.verify_usage(install.tenant, true).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn every_counter_that_drifted_is_told_and_mended() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    fill(&install).await;
    let before = install.usage().await.unwrap();
    tamper(
        &backend,
        "UPDATE ext_storage_usage SET keys = keys + 1 WHERE namespace = 'notes';
         UPDATE ext_storage_usage SET bytes = 0, namespaces = 7 WHERE namespace = '' AND install_id <> x'';
         UPDATE ext_storage_usage SET next_expiry = NULL WHERE install_id = x'';
         DELETE FROM ext_storage_usage WHERE namespace = 'cache';",
    )
    .await;
    let first_expiry = Some(
        install
            .get("b")
            .await
            .unwrap()
            .expires_at
            .unwrap()
            .as_millis(),
    );
    let drifts = backend.verify_usage(install.tenant, false).await.unwrap();
    assert_eq!(
        told(&drifts),
        [
            (false, None, Counter::NextExpiry, None, first_expiry),
            (true, None, Counter::Bytes, Some(0), Some(13)),
            (true, None, Counter::Namespaces, Some(7), Some(2)),
            (true, Some("cache"), Counter::Keys, None, Some(1)),
            (true, Some("cache"), Counter::Bytes, None, Some(3)),
            (true, Some("notes"), Counter::Keys, Some(3), Some(2)),
        ]
    );
    // Telling mends nothing.
    assert_eq!(
        backend.verify_usage(install.tenant, true).await.unwrap(),
        drifts
    );
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
    assert_eq!(install.usage().await.unwrap(), before);
}

#[tokio::test]
async fn a_wrong_size_of_a_record_is_told_and_mended() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    fill(&install).await;
    tamper(
        &backend,
        "UPDATE ext_storage_records SET bytes = 1000 WHERE key = 'a'",
    )
    .await;
    let drifts = backend.verify_usage(install.tenant, true).await.unwrap();
    assert_eq!(
        told(&drifts),
        [(
            true,
            Some("notes"),
            Counter::MissizedRecords,
            Some(1),
            Some(0)
        )]
    );
    assert!(install.delete("a").await.unwrap());
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn what_is_mended_is_of_one_tenant() {
    let (stage, backend) = stage().await;
    let (one, two) = (stage.install(), stage.install());
    fill(&one).await;
    fill(&two).await;
    tamper(&backend, "UPDATE ext_storage_usage SET keys = 99").await;
    assert_ne!(backend.verify_usage(one.tenant, true).await.unwrap(), []);
    assert_eq!(backend.verify_usage(one.tenant, false).await.unwrap(), []);
    assert_ne!(backend.verify_usage(two.tenant, false).await.unwrap(), []);
}

#[tokio::test]
async fn a_sweep_comes_to_an_end_after_a_repair() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    // The totals of the tenant still say when the first one would have expired.
    install
        .put_item(item("a", Some(60), Guard::Any))
        .await
        .unwrap();
    install.put("a", "1").await.unwrap();
    tamper(
        &backend,
        "UPDATE ext_storage_usage SET keys = 9 WHERE namespace = 'notes'",
    )
    .await;
    assert_ne!(
        backend.verify_usage(install.tenant, true).await.unwrap(),
        []
    );
    stage.clock.advance(Duration::from_secs(60));
    backend.remove_expired(10).await.unwrap();
    assert_eq!(
        backend.remove_expired(10).await.unwrap(),
        Removed::default()
    );
    assert!(install.get("a").await.is_ok());
}

#[tokio::test]
async fn records_that_are_not_json_are_told_and_left_alone() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    fill(&install).await;
    let damage = "UPDATE ext_storage_records SET value = '{oops}' WHERE key = 'b';
                  UPDATE ext_storage_records SET bytes = octet_length(value) + octet_length(metadata);";
    tamper(&backend, damage).await;
    backend.verify_usage(install.tenant, true).await.unwrap();
    for repair in [false, true, false] {
        let drifts = backend.verify_usage(install.tenant, repair).await.unwrap();
        let malformed = (
            true,
            Some("notes"),
            Counter::MalformedRecords,
            Some(1),
            Some(0),
        );
        assert_eq!(told(&drifts), [malformed]);
        assert!(!drifts[0].counter.is_repairable());
    }
}
