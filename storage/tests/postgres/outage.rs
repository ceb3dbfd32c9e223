//! A server that is gone for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alga_model::Secret;
use alga_postgres::Options;
use alga_storage::suite::{Install, Stage};
use alga_storage::{Error, Maintenance as _, PostgresBackend};
use alga_test_postgres::DurableServer;

/// How often the server is killed.
const ROUNDS: usize = 50;
const WRITERS: usize = 4;
/// Writes that are answered before it is killed again.
const BETWEEN: u64 = 40;

/// What the writers and whoever kills the server tell one another.
#[derive(Debug, Default)]
struct Told {
    answered: AtomicU64,
    stop: AtomicBool,
}

/// Increments a record of its own until told to stop, and gives its last revision that was answered.
async fn write(install: &Install<'_>, writer: usize, told: &Told) -> u64 {
    let key = format!("w{writer}");
    let mut answered = 0;
    let mut failures = 0;
    while !told.stop.load(Ordering::Relaxed) || failures > 0 {
        match install.put(&key, "1").await {
            Ok(written) => {
                let revision = written.revision.get();
                assert!(revision > answered, "{revision} came after {answered}");
                // What was not answered may have been done.
                assert!(
                    revision <= answered + 1 + failures,
                    "{revision} after {answered}"
                );
                (answered, failures) = (revision, 0);
                told.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::Unavailable(_)) => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_the_server_and_nobody_has_to_start_again() {
    let server = Arc::new(DurableServer::start());
    let options = Options::at(Secret::new(server.url()));
    let clock = Stage::clock();
    let backend = PostgresBackend::open_with_clock(&options, Arc::clone(&clock) as _);
    let backend = Arc::new(backend.await.unwrap());
    let stage = Stage::new(Arc::clone(&backend), clock);
    let install = stage.install();
    let told = Told::default();
    let writers = (0..WRITERS).map(|writer| write(&install, writer, &told));
    let outages = async {
        for round in (1..).take(ROUNDS) {
            while told.answered.load(Ordering::Relaxed) < round * BETWEEN {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let server = Arc::clone(&server);
            let outage = move || {
                server.kill();
                server.restart();
            };
            tokio::task::spawn_blocking(outage).await.unwrap();
        }
        told.stop.store(true, Ordering::Relaxed);
    };
    let (answered, ()) = tokio::join!(futures_util::future::join_all(writers), outages);
    for (writer, answered) in answered.into_iter().enumerate() {
        let stored = install.get(&format!("w{writer}")).await.unwrap();
        assert_eq!(stored.revision.get(), answered, "writer {writer}");
    }
    assert_eq!(
        backend.verify_usage(install.tenant, false).await.unwrap(),
        []
    );
    // Each change is in the audit once.
    let filter = alga_storage::AuditFilter {
        tenant: Some(install.tenant),
        ..alga_storage::AuditFilter::default()
    };
    let audit = backend.audit(&filter, None, 1_000_000).await.unwrap();
    let mut told: Vec<_> = audit
        .iter()
        .map(|record| (record.key.clone(), record.revision_after))
        .collect();
    let all = told.len();
    told.sort();
    told.dedup();
    let revisions = answered_in_all(&install).await;
    assert_eq!((all, told.len()), (revisions, revisions));
}

async fn answered_in_all(install: &Install<'_>) -> usize {
    let mut all = 0;
    for writer in 0..WRITERS {
        let stored = install.get(&format!("w{writer}")).await.unwrap();
        all += usize::try_from(stored.revision.get()).unwrap();
    }
    all
}
