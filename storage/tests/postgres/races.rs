//! Writes that meet in the database.

use std::time::Duration;

use alga_model::TenantId;
use alga_storage::suite::{Install, Stage};
use alga_storage::{Guard, Limits, Maintenance as _, Namespace, PutRequest, Quotas};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, PgConnection};

use crate::{is_on_citus, item, of_each_kind, session, stage_on};

/// Waits until a session waits for a lock, on whichever node.
async fn somebody_waits(session: &mut PgConnection) {
    const WAITING: &str = "
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    const WAITING_ON_A_NODE: &str = "
        SELECT count(*) FROM citus_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let statement = if is_on_citus(session).await {
        WAITING_ON_A_NODE
    } else {
        WAITING
    };
    loop {
        let waiting: i64 = sqlx::query_scalar(statement)
            .fetch_one(&mut *session)
            .await
            .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A write that reads the floor while a delete commits would give a revision that was there before.
#[tokio::test]
async fn a_put_that_met_a_delete_goes_on_above_what_was_deleted() {
    for database in of_each_kind().await {
        a_put_meets_a_delete(&database).await;
    }
}

async fn a_put_meets_a_delete(database: &TestDatabase) {
    let (stage, _backend) = stage_on(database).await;
    for guard in [Guard::Any, Guard::Absent] {
        let install = stage.install();
        for _ in 0..5 {
            install.put("k", "1").await.unwrap();
        }
        let mut deleting = session(database).await;
        let mut transaction = deleting.begin().await.unwrap();
        let deleted: String = sqlx::query_scalar(
            "SELECT code FROM ext_storage_delete_1($1, $2, 'notes', 'k', NULL, 'e', 'a', 'r')",
        )
        .bind(install.tenant.as_uuid())
        .bind(install.caller.install.as_uuid())
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        assert_eq!(deleted, "deleted");
        let commit = async {
            somebody_waits(&mut session(database).await).await;
            transaction.commit().await.unwrap();
        };
        // With nothing to answer with, as most puts: the short way.
        let put = PutRequest {
            namespace: Namespace::parse("notes").unwrap(),
            item: item("k", None, guard),
            return_previous: false,
            return_current: false,
        };
        let (written, ()) = tokio::join!(install.gate().put(&install.caller, put), commit);
        assert_eq!(written.unwrap().revision.get(), 6, "{guard:?}");
    }
}

/// Whatever they write: tenant, installs and namespaces are locked in one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_at_their_quotas_and_a_sweep_never_lock_one_another_out() {
    for database in of_each_kind().await {
        sixty_four_writers_and_a_sweep(&database).await;
    }
}

async fn sixty_four_writers_and_a_sweep(database: &TestDatabase) {
    let (stage, backend) = stage_on(database).await;
    let tenant = TenantId::generate();
    let limits = Limits {
        quotas: Quotas {
            bytes_per_install: 1_500,
            bytes_per_tenant: 2_500,
            keys_per_namespace: 60,
            ..Quotas::default()
        },
        ..Stage::roomy()
    };
    let installs: Vec<_> = (0..2).map(|_| stage.install_with(tenant, limits)).collect();
    let writers = (0..64_u64).zip(installs.iter().cycle());
    let storm = writers.map(|(writer, install)| storm_of(install, writer));
    let sweep = async {
        for _ in 0..50 {
            stage.clock.advance(Duration::from_secs(5));
            backend.remove_expired(100).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(futures_util::future::join_all(storm), sweep);
    let deadlocks = deadlocks(&mut session(database).await).await;
    assert_eq!(deadlocks, 0);
    assert_eq!(backend.verify_usage(tenant, false).await.unwrap(), []);
    let holdings = backend.holdings(tenant).await.unwrap();
    let bytes: u64 = holdings.iter().map(|holding| holding.bytes).sum();
    assert!(bytes <= 2_500, "{holdings:?}");
}

/// How many a server has ended, on whichever node. Those between nodes, which Citus ends, aren't among them.
async fn deadlocks(session: &mut PgConnection) -> i64 {
    const DEADLOCKS: &str =
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    const DEADLOCKS_ON_NODES: &str = "
        SELECT sum(result::bigint)::bigint FROM run_command_on_all_nodes(
            'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()')";
    let statement = if is_on_citus(session).await {
        DEADLOCKS_ON_NODES
    } else {
        DEADLOCKS
    };
    sqlx::query_scalar(statement)
        .fetch_one(session)
        .await
        .unwrap()
}

async fn storm_of(install: &Install<'_>, writer: u64) {
    for round in 0..25_u64 {
        let key = format!("k{}", (writer * 7 + round * 3) % 50);
        let is_odd = (writer + round) % 2 == 1;
        let namespace = Namespace::parse(if is_odd { "notes" } else { "cache" }).unwrap();
        let ttl = (round % 3 == 0).then_some(60);
        let done = match round % 5 {
            0 => {
                let request = alga_storage::DeleteRequest {
                    namespace,
                    key: alga_storage::Key::parse(key).unwrap(),
                    guard: Guard::Any,
                };
                install
                    .gate()
                    .delete(&install.caller, request)
                    .await
                    .map(drop)
            }
            1 => {
                let items = (0..3).map(|nth| item(&format!("{key}-{nth}"), ttl, Guard::Any));
                let request = alga_storage::BulkPutRequest {
                    namespace,
                    items: items.collect(),
                };
                let written = install.gate().bulk_put(&install.caller, request).await;
                written.map(drop).map_err(|refused| refused.error)
            }
            _ => {
                let mut item = item(&key, ttl, Guard::Any);
                item.value = format!("\"{}\"", "x".repeat(usize::try_from(round).unwrap()));
                let request = PutRequest {
                    namespace,
                    item,
                    return_previous: false,
                    return_current: false,
                };
                install.gate().put(&install.caller, request).await.map(drop)
            }
        };
        match done {
            Ok(()) | Err(alga_storage::Error::QuotaExceeded(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// One replica at a time sweeps a tenant; another one leaves it alone.
#[tokio::test]
async fn two_replicas_never_sweep_a_tenant_at_once() {
    let database = TestDatabase::create().await;
    let (stage, backend) = stage_on(&database).await;
    let install = stage.install();
    let items = (0..20).map(|nth| item(&format!("k{nth}"), Some(60), Guard::Any));
    install.bulk_put(items.collect()).await.unwrap();
    stage.clock.advance(Duration::from_secs(60));
    let mut other = session(&database).await;
    let mut sweeping = other.begin().await.unwrap();
    let lock =
        "SELECT pg_try_advisory_xact_lock(hashtextextended('ext_storage_sweep:' || $1::text, 0))";
    let locked: bool = sqlx::query_scalar(lock)
        .bind(*install.tenant.as_uuid())
        .fetch_one(&mut *sweeping)
        .await
        .unwrap();
    assert!(locked);
    assert_eq!(backend.remove_expired(100).await.unwrap().records, 0);
    sweeping.rollback().await.unwrap();
    assert_eq!(backend.remove_expired(100).await.unwrap().records, 20);
}

/// A namespace that lost its reserve, as after a repair, is given another one by the next write, though it
/// doesn't grow.
#[tokio::test]
async fn a_namespace_without_room_asks_once_and_not_every_time() {
    const TAKE_BACK: &str = "UPDATE ext_storage_usage SET reserved = 3 WHERE tenant_id = $1";
    const ROOM: &str = "SELECT (reserved - bytes)::bigint FROM ext_storage_usage
        WHERE tenant_id = $1 AND namespace = 'notes'";
    let database = TestDatabase::create().await;
    let (stage, backend) = stage_on(&database).await;
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    let mut session = session(&database).await;
    let tenant = *install.tenant.as_uuid();
    let taking = sqlx::query(TAKE_BACK).bind(tenant);
    taking.execute(&mut session).await.unwrap();
    install.put("k", "2").await.unwrap();
    let room: i64 = sqlx::query_scalar(ROOM)
        .bind(tenant)
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert!(room > 3, "{room}");
    let drift = backend.verify_usage(install.tenant, false).await.unwrap();
    assert_eq!(drift, []);
}

/// A limit that was raised and lowered again leaves no reserve behind.
#[tokio::test]
async fn no_namespace_grows_inside_a_reserve_of_higher_limits() {
    let database = TestDatabase::create().await;
    let (stage, _backend) = stage_on(&database).await;
    let install = stage.install();
    let put = async |namespace: &str, key: &str| {
        let request = PutRequest {
            namespace: Namespace::parse(namespace).unwrap(),
            item: item(key, None, Guard::Any),
            return_previous: false,
            return_current: false,
        };
        install.gate().put(&install.caller, request).await
    };
    let limit_to = |bytes| {
        let limits = Limits {
            quotas: Quotas {
                bytes_per_install: bytes,
                ..Quotas::default()
            },
            ..Stage::roomy()
        };
        let grant = alga_storage::StorageGrant::all_of(
            ["notes", "cache"].map(|name| Namespace::parse(name).unwrap()),
        );
        install.grant(Some(grant), limits, true);
    };
    for namespace in ["notes", "cache"] {
        put(namespace, "a").await.unwrap();
    }
    // Both hold 3 bytes, and were given a reserve of 4 KiB and more.
    limit_to(9);
    put("notes", "b").await.unwrap();
    for (namespace, key) in [("notes", "c"), ("cache", "b")] {
        let refused = put(namespace, key).await.unwrap_err();
        assert!(
            matches!(&refused, alga_storage::Error::QuotaExceeded(quota) if (quota.used, quota.attempted) == (9, 12)),
            "{refused:?}"
        );
    }
    limit_to(12);
    put("cache", "b").await.unwrap();
    limit_to(9);
    put("notes", "a").await.unwrap();
    put("notes", "c").await.unwrap_err();
}
