//! A database that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_model::{Secret, TenantId};
use alga_sqlite::{DriverError, Options};
use alga_storage::suite::Stage;
use alga_storage::{
    BulkItem, CursorKey, Error, Guard, Limits, LocalService, Maintenance as _, Quotas,
    SqliteBackend,
};
use futures_util::future::{join, join_all};

use super::{item, put_to, stage, stage_with, tamper};

/// Has the connection that writes refuse to commit, or no longer.
async fn refuse_commits(backend: &SqliteBackend, refuse: bool) {
    backend
        .database()
        .with_writer(move |connection| {
            let hook = refuse.then_some(|| true);
            Ok::<_, DriverError>(connection.commit_hook(hook)?)
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_fails_all_its_writes_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = Options::file(folder.path().join("storage.sqlite3"));
    let (stage, backend) = stage_with(file).await;
    let install = stage.install();
    install.put("before", "1").await.unwrap();
    refuse_commits(&backend, true).await;
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    let writes = join_all(keys.iter().map(|key| install.put(key, "1"))).await;
    for written in writes {
        assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    }
    assert_eq!(install.usage().await.unwrap().keys, 1);
    refuse_commits(&backend, false).await;
    assert_eq!(install.put("k0", "1").await.unwrap().revision.get(), 1);
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn a_damaged_row_is_no_matter_to_its_neighbours() {
    let (stage, backend) = stage().await;
    let (damaged, healthy) = (stage.install(), stage.install());
    put_to(&damaged, "notes", Guard::Any).await.unwrap();
    tamper(&backend, "UPDATE ext_storage_records SET revision = 0").await;
    // Polled one after the other on one thread, they are one group.
    let (refused, written) = join(
        put_to(&damaged, "notes", Guard::Any),
        put_to(&healthy, "notes", Guard::Any),
    )
    .await;
    assert!(matches!(refused, Err(Error::Internal(_))), "{refused:?}");
    assert_eq!(written.unwrap().revision.get(), 1);
}

#[tokio::test]
async fn a_write_that_gets_no_room_in_time_is_unavailable() {
    const BACKLOG: u64 = 20_000;
    let (stage, backend) = stage().await;
    let hasty = LocalService::new(
        Arc::clone(&backend) as _,
        CursorKey::new(Secret::new([1; 32]), None),
        Duration::from_millis(20),
    );
    let hasty = Stage::over(
        Arc::new(hasty),
        Arc::clone(&backend) as _,
        Arc::clone(&stage.clock),
    );
    let limits = |bytes_per_tenant| {
        let mut limits = Limits {
            quotas: Quotas {
                bytes_per_tenant,
                keys_per_namespace: u64::MAX,
                ..Quotas::default()
            },
            ..Stage::roomy()
        };
        limits.request.bulk_items = 100;
        limits
    };
    let install = stage.install_with(TenantId::generate(), limits(u64::MAX));
    for first in (0..BACKLOG).step_by(100) {
        let items = (first..first + 100).map(|i| item(&format!("{i}"), Some(60), Guard::Any));
        let items: Vec<BulkItem> = items.collect();
        install.bulk_put(items).await.unwrap();
    }
    stage.clock.advance(Duration::from_secs(60));
    // All of it has to go before this fits.
    let hasty = hasty.install_with(install.tenant, limits(10));
    let started = Instant::now();
    let refused = hasty.put("large", "12345678").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    // Nobody waits for it any more, so the removal has stopped, and the rest is still there.
    let left = backend.remove_expired(u32::MAX).await.unwrap();
    assert!(
        left.records > 0 && !left.more,
        "{left:?} after {:?}",
        started.elapsed()
    );
    assert_eq!(
        hasty.put("large", "12345678").await.unwrap().revision.get(),
        1
    );
}

#[tokio::test]
async fn a_damaged_tenant_keeps_neither_itself_from_writing_nor_others_from_being_swept() {
    let (stage, backend) = stage().await;
    let (damaged, healthy) = (stage.install(), stage.install());
    for install in [&damaged, &healthy] {
        install
            .put_item(item("k", Some(60), Guard::Any))
            .await
            .unwrap();
        // The damaged one has waited longest.
        stage.clock.advance(Duration::from_secs(1));
    }
    tamper(
        &backend,
        "UPDATE ext_storage_usage SET namespace = 'no such name'
         WHERE namespace = 'notes' AND next_expiry = (SELECT min(next_expiry) FROM ext_storage_usage)",
    )
    .await;
    stage.clock.advance(Duration::from_secs(60));
    let removed = backend.remove_expired(10).await.unwrap();
    assert_eq!((removed.records, removed.more), (1, true));
    assert_eq!(healthy.usage().await.unwrap().keys, 0);
    assert!(matches!(
        backend.remove_expired(10).await,
        Err(Error::Internal(_))
    ));
    assert_eq!(
        put_to(&damaged, "cache", Guard::Any)
            .await
            .unwrap()
            .revision
            .get(),
        1
    );
}

#[tokio::test]
async fn room_that_a_damaged_row_holds_is_refused_at_once() {
    let (stage, backend) = stage().await;
    let limits = Limits {
        quotas: Quotas {
            bytes_per_install: 20,
            ..Quotas::default()
        },
        ..Stage::roomy()
    };
    let install = stage.install_with(TenantId::generate(), limits);
    install
        .put_item(item("k", Some(60), Guard::Any))
        .await
        .unwrap();
    tamper(
        &backend,
        "UPDATE ext_storage_usage SET namespace = 'no such name' WHERE namespace = 'notes'",
    )
    .await;
    stage.clock.advance(Duration::from_secs(60));
    let started = Instant::now();
    let refused = install.put("large", "\"12345678901234567\"").await;
    assert!(
        matches!(refused, Err(Error::QuotaExceeded(_))),
        "{refused:?}"
    );
    assert!(started.elapsed() < LocalService::DEFAULT_TIMEOUT / 2);
}

#[tokio::test]
async fn a_record_that_expires_while_a_read_waits_is_not_seen() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    install
        .put_item(item("k", Some(60), Guard::Any))
        .await
        .unwrap();
    // In memory there is one connection, for which the reads wait.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (taken, is_taken) = tokio::sync::oneshot::channel();
    let holding = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move {
            let hold = move |_: &mut rusqlite::Connection| {
                taken.send(()).unwrap();
                released.recv().unwrap();
                Ok::<_, DriverError>(())
            };
            backend.database().with_writer(hold).await.unwrap();
        }
    });
    is_taken.await.unwrap();
    let mut got = Box::pin(install.get("k"));
    assert!(futures_util::poll!(&mut got).is_pending());
    stage.clock.advance(Duration::from_secs(60));
    release.send(()).unwrap();
    holding.await.unwrap();
    assert!(matches!(got.await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    let (stage, backend) = stage().await;
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    backend.database().close().await;
    let (got, put, deleted) = (
        install.get("k").await.map(drop),
        install.put("k", "2").await.map(drop),
        install.delete("k").await.map(drop),
    );
    for refused in [got, put, deleted] {
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
}
