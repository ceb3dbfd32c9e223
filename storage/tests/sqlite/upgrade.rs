//! Databases of earlier releases.

use alga_sqlite::Options;
use alga_storage::{AuditFilter, Guard, Maintenance as _, SqliteBackend};
use futures_util::future::join;

use super::{column, item, put_to, stage_with};

async fn schema(backend: &SqliteBackend) -> Vec<String> {
    let schema = "SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema
                  WHERE name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY name";
    column(backend, schema).await
}

#[tokio::test]
async fn records_counters_and_audit_survive_the_way_down_and_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = || Options::file(folder.path().join("storage.sqlite3"));
    let (stage, backend) = stage_with(file()).await;
    let (install, other) = (stage.install(), stage.install());
    install.put("a", "\"kept\"").await.unwrap();
    install
        .put_item(item("b", Some(60), Guard::Any))
        .await
        .unwrap();
    install
        .put_item(item("gone", Some(60), Guard::Any))
        .await
        .unwrap();
    install.delete("gone").await.unwrap();
    put_to(&other, "cache", Guard::Any).await.unwrap();
    let before = (
        install.usage().await.unwrap(),
        install.get_many(&["a", "b", "gone"]).await.unwrap(),
        backend
            .audit(&AuditFilter::default(), None, 100)
            .await
            .unwrap(),
        schema(&backend).await,
    );
    for oldest in [3, 2, 1] {
        backend.database().migrate_down_to(oldest).await.unwrap();
        backend.database().migrate_up().await.unwrap();
        // The columns and indexes of new are those of a database that never went down.
        let after = (
            install.usage().await.unwrap(),
            install.get_many(&["a", "b", "gone"]).await.unwrap(),
            backend
                .audit(&AuditFilter::default(), None, 100)
                .await
                .unwrap(),
            schema(&backend).await,
        );
        assert_eq!(after, before, "down to {oldest}");
        for install in [&install, &other] {
            assert_eq!(
                backend.verify_usage(install.tenant, false).await.unwrap(),
                []
            );
        }
    }
    // Not above the revision of a removed record by accident: the floor was kept.
    assert_eq!(install.put("gone", "1").await.unwrap().revision.get(), 2);
}

#[tokio::test]
async fn an_older_database_knows_what_expires_after_its_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, backend) = stage_with(Options::file(folder.path().join("s.sqlite3"))).await;
    let install: alga_storage::suite::Install<'_> = stage.install();
    install
        .put_item(item("a", Some(60), Guard::Any))
        .await
        .unwrap();
    install
        .put_item(item("b", Some(90), Guard::Any))
        .await
        .unwrap();
    backend.database().migrate_down_to(1).await.unwrap();
    backend.database().migrate_up().await.unwrap();
    stage.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(backend.remove_expired(10).await.unwrap().records, 1);
    assert!(install.get("b").await.is_ok());
}

#[tokio::test]
async fn summaries_of_removals_are_what_the_way_down_loses() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, backend) = stage_with(Options::file(folder.path().join("s.sqlite3"))).await;
    let install = stage.install();
    install
        .put_item(item("a", Some(60), Guard::Any))
        .await
        .unwrap();
    stage.clock.advance(std::time::Duration::from_secs(60));
    backend.remove_expired(10).await.unwrap();
    backend.database().migrate_down_to(2).await.unwrap();
    backend.database().migrate_up().await.unwrap();
    let audit = backend
        .audit(&AuditFilter::default(), None, 100)
        .await
        .unwrap();
    let operations: Vec<_> = audit
        .iter()
        .map(|record| record.operation.as_str())
        .collect();
    assert_eq!(operations, ["put"]);
}

#[tokio::test]
async fn the_audit_of_a_batch_becomes_rows_of_their_own_on_the_way_down() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, backend) = stage_with(Options::file(folder.path().join("s.sqlite3"))).await;
    let install = stage.install();
    let items = ["c", "b", "a"].map(|key| item(key, None, Guard::Any));
    install.bulk_put(items.into()).await.unwrap();
    backend.database().migrate_down_to(2).await.unwrap();
    backend.database().migrate_up().await.unwrap();
    let audit = backend
        .audit(&AuditFilter::default(), None, 100)
        .await
        .unwrap();
    let keys: Vec<_> = audit
        .iter()
        .map(|record| (record.item, record.key.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(keys, [(0, "c"), (0, "b"), (0, "a")]);
}

#[tokio::test]
async fn the_audit_of_several_requests_becomes_rows_of_their_own_on_the_way_down() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, backend) = stage_with(Options::file(folder.path().join("s.sqlite3"))).await;
    let install = stage.install();
    let items = ["b", "a"].map(|key| item(key, None, Guard::Any));
    // On one thread both are queued before the first is written.
    let (batch, deleted) = join(install.bulk_put(items.into()), install.delete("a")).await;
    assert!(batch.is_ok() && deleted.unwrap());
    let told = async || {
        let filter = AuditFilter::default();
        let audit = backend.audit(&filter, None, 100).await.unwrap();
        let told = audit.into_iter().map(|record| {
            let key = record.key.unwrap_or_default();
            (key, record.operation, record.actor, record.request_id)
        });
        told.collect::<Vec<_>>()
    };
    let rows = async || {
        let rows: Vec<i64> = column(&backend, "SELECT records FROM ext_storage_audit").await;
        rows
    };
    let before = told().await;
    assert_eq!((before.len(), rows().await), (3, vec![3]));
    for oldest in [3, 2] {
        backend.database().migrate_down_to(oldest).await.unwrap();
        backend.database().migrate_up().await.unwrap();
        assert_eq!(told().await, before, "down to {oldest}");
        assert_eq!(rows().await, [1; 3]);
    }
}
