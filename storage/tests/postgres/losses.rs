//! Operations that meet a connection, an answer or a host that is lost, or a lock that is held for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_model::Secret;
use alga_postgres::Options;
use alga_storage::suite::{Install, Stage};
use alga_storage::{
    AuditFilter, CursorKey, Error, LocalService, Maintenance as _, PostgresBackend,
};
use alga_test_postgres::{Passage, Proxy, TestDatabase};
use sqlx::{Connection as _, PgConnection};

use crate::session;

/// How long an operation may take.
const IN_TIME: Duration = Duration::from_secs(1);

/// A stage whose backend has one connection, which is at `url`.
async fn stage_at(url: &str) -> (Stage, Arc<PostgresBackend>) {
    let options = Options {
        max_connections: 1.try_into().unwrap(),
        ..Options::at(Secret::new(url.to_owned()))
    };
    let clock = Stage::clock();
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _);
    let backend = Arc::new(backend.await.unwrap());
    let cursor_key = CursorKey::new(Secret::new([1; 32]), None);
    let service = LocalService::new(Arc::clone(&backend) as _, cursor_key, IN_TIME);
    let stage = Stage::over(Arc::new(service), Arc::clone(&backend) as _, clock);
    (stage, backend)
}

fn is_unavailable<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable(_)))
}

/// So many changes are in the audit, and the counters are right.
async fn there_were_changes(backend: &PostgresBackend, install: &Install<'_>, changes: usize) {
    let filter = AuditFilter {
        tenant: Some(install.tenant),
        ..AuditFilter::default()
    };
    let audit = backend.audit(&filter, None, 100).await.unwrap();
    assert_eq!(audit.len(), changes);
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unavailable_and_there_once() {
    let database = TestDatabase::create().await;
    let proxy = Proxy::before(&database.url).await;
    let (stage, backend) = stage_at(&proxy.url_of(&database.url)).await;
    let install = stage.install();
    // Prepares the statement, so that the answer that is lost is that of the write itself.
    install.put("k", "1").await.unwrap();
    proxy.set(Passage::AnswersLost);
    let written = install.put("k", "2").await;
    assert!(is_unavailable(&written), "{written:?}");
    proxy.set(Passage::Open);
    let stored = install.get("k").await.unwrap();
    assert_eq!((stored.revision.get(), stored.value.as_str()), (2, "2"));
    there_were_changes(&backend, &install, 2).await;
    assert!(install.delete("k").await.unwrap());
    proxy.set(Passage::AnswersLost);
    install.put("k", "3").await.unwrap_err();
    proxy.set(Passage::Open);
    // What was not even prepared was not done, or once.
    let known = install.get("k").await.is_ok();
    there_were_changes(&backend, &install, 3 + usize::from(known)).await;
}

#[tokio::test]
async fn a_host_that_vanishes_is_unavailable_in_time_and_its_connections_are_not_used_again() {
    let database = TestDatabase::create().await;
    let proxy = Proxy::before(&database.url).await;
    let (stage, backend) = stage_at(&proxy.url_of(&database.url)).await;
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    proxy.set(Passage::Silent);
    for _ in 0..2 {
        let started = Instant::now();
        let (read, written) = tokio::join!(install.get("k"), install.put("k", "2"));
        assert!(is_unavailable(&read), "{read:?}");
        assert!(is_unavailable(&written), "{written:?}");
        let took = started.elapsed();
        assert!(took < IN_TIME * 2, "{took:?}");
    }
    proxy.set(Passage::Open);
    let before = proxy.accepted();
    let revision = install.get("k").await.unwrap().revision.get();
    assert!(proxy.accepted() > before, "an old connection was used");
    // Those that arrived when the host came back may be done, each of them once.
    assert!((1..=3).contains(&revision), "{revision}");
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn where_the_sessions_were_ended_a_read_is_answered_and_a_write_done_at_most_once() {
    const END: &str = "
        SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let database = TestDatabase::create().await;
    let (stage, backend) = stage_at(&database.url).await;
    let install = stage.install();
    let mut session = session(&database).await;
    install.put("k", "1").await.unwrap();
    let mut done = 1;
    for _ in 0..3 {
        sqlx::query(END).execute(&mut session).await.unwrap();
        assert_eq!(install.get("k").await.unwrap().revision.get(), done);
        sqlx::query(END).execute(&mut session).await.unwrap();
        let written = install.put("k", "1").await;
        assert!(written.is_ok() || is_unavailable(&written), "{written:?}");
        let stored = install.get("k").await.unwrap().revision.get();
        assert!((done..=done + 1).contains(&stored), "{stored} after {done}");
        done = stored;
    }
    there_were_changes(&backend, &install, usize::try_from(done).unwrap()).await;
}

/// Locks the counters of a tenant, until it is dropped.
async fn lock_counters<'s>(
    session: &'s mut PgConnection,
    install: &Install<'_>,
) -> sqlx::Transaction<'s, sqlx::Postgres> {
    const LOCK: &str = "SELECT FROM ext_storage_usage WHERE tenant_id = $1 FOR UPDATE";
    let mut transaction = session.begin().await.unwrap();
    let locking = sqlx::query(LOCK).bind(*install.tenant.as_uuid());
    locking.execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test]
async fn counting_may_take_longer_than_a_statement() {
    let database = TestDatabase::create().await;
    let options = Options {
        statement_timeout: Duration::from_millis(100),
        ..Options::at(Secret::new(database.url.clone()))
    };
    let clock = Stage::clock();
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _);
    let backend = Arc::new(backend.await.unwrap());
    let stage = Stage::new(Arc::clone(&backend), clock);
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    let mut other = session(&database).await;
    let lock = lock_counters(&mut other, &install).await;
    let verifying = backend.verify_usage(install.tenant, true);
    let writing = async {
        for _ in 0..3 {
            let written = install.put("k", "1").await;
            assert!(is_unavailable(&written), "{written:?}");
        }
        lock.rollback().await.unwrap();
    };
    let (drifts, ()) = tokio::join!(verifying, writing);
    assert_eq!(drifts.unwrap(), []);
}
