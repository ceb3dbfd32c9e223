//! Counters that have drifted from what they count.

use alga_storage::suite::Install;
use alga_storage::{Counter, Drift, Guard, Maintenance as _, PostgresBackend};
use alga_test_postgres::TestDatabase;
use sqlx::Executor as _;

use crate::{item, of_each_kind, session, stage_on};

/// Does something behind the back of the store to a tenant, which is `$1`.
async fn tamper(database: &TestDatabase, install: &Install<'_>, statements: &[&'static str]) {
    let mut session = session(database).await;
    for statement in statements {
        let tampering = sqlx::query(*statement).bind(*install.tenant.as_uuid());
        let done = session.execute(tampering).await.unwrap();
        assert!(done.rows_affected() > 0, "{statement}");
    }
}

/// Whether it is below the tenant, the namespace, and what is wrong.
type Told<'d> = (bool, Option<&'d str>, Counter, Option<i64>, Option<i64>);

fn told(drifts: &[Drift]) -> Vec<Told<'_>> {
    let mut told: Vec<_> = drifts
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
        .collect();
    told.sort_by_key(|(of_install, namespace, counter, ..)| {
        (*of_install, *namespace, format!("{counter:?}"))
    });
    told
}

async fn drifts(backend: &PostgresBackend, install: &Install<'_>, repair: bool) -> Vec<Drift> {
    backend.verify_usage(install.tenant, repair).await.unwrap()
}

#[tokio::test]
async fn every_counter_that_drifted_is_told_and_mended() {
    for database in of_each_kind().await {
        let (stage, backend) = stage_on(&database).await;
        let install = stage.install();
        install.put("a", "\"abc\"").await.unwrap();
        let expiring = install.put_item(item("b", Some(60), Guard::Any)).await;
        let expiry = Some(expiring.unwrap().expires_at.unwrap().as_millis());
        put_to_cache(&install).await;
        let before = install.usage().await.unwrap();
        assert_eq!(drifts(&backend, &install, true).await, []);

        tamper(
            &database,
            &install,
            &[
                "UPDATE ext_storage_usage SET keys = keys + 1, next_expiry = NULL
                 WHERE tenant_id = $1 AND namespace = 'notes'",
                "DELETE FROM ext_storage_usage WHERE tenant_id = $1 AND namespace = 'cache'",
                "UPDATE ext_storage_records SET bytes = 1000 WHERE tenant_id = $1 AND key = 'a'",
            ],
        )
        .await;
        let found = drifts(&backend, &install, false).await;
        let of_namespaces: Vec<_> = told(&found)
            .into_iter()
            .filter(|(_, namespace, ..)| namespace.is_some())
            .collect();
        assert_eq!(
            of_namespaces,
            [
                (true, Some("cache"), Counter::Bytes, None, Some(3)),
                (true, Some("cache"), Counter::Keys, None, Some(1)),
                (true, Some("notes"), Counter::Keys, Some(3), Some(2)),
                (
                    true,
                    Some("notes"),
                    Counter::MissizedRecords,
                    Some(1),
                    Some(0)
                ),
                (true, Some("notes"), Counter::NextExpiry, None, expiry),
            ]
        );
        // What the install has handed out counts the namespace that is gone.
        let of_install = |counter| {
            let sum = found.iter().find(|drift| drift.counter == counter);
            sum.is_some_and(|drift| drift.namespace.is_none() && drift.counted < drift.stored)
        };
        assert!(of_install(Counter::Reserved), "{found:?}");
        assert!(of_install(Counter::Namespaces), "{found:?}");

        // Telling mends nothing, and mending tells the same.
        assert_eq!(drifts(&backend, &install, true).await, found);
        assert_eq!(drifts(&backend, &install, false).await, []);
        assert_eq!(install.usage().await.unwrap(), before);
        // Above what was there, though the floor was lost with its row.
        assert_eq!(put_to_cache(&install).await, 2);
        assert!(install.delete("a").await.unwrap());
        assert_eq!(drifts(&backend, &install, false).await, []);
    }
}

/// The revision that it was given.
async fn put_to_cache(install: &Install<'_>) -> u64 {
    let request = alga_storage::PutRequest {
        namespace: alga_storage::Namespace::parse("cache").unwrap(),
        item: item("k", None, Guard::Any),
        return_previous: false,
        return_current: false,
    };
    let written = install.gate().put(&install.caller, request).await.unwrap();
    written.revision.get()
}

/// Nobody's counters but the tenant's that was asked about.
#[tokio::test]
async fn mending_a_tenant_leaves_others_as_they_are() {
    for database in of_each_kind().await {
        let (stage, backend) = stage_on(&database).await;
        let (one, other) = (stage.install(), stage.install());
        for install in [&one, &other] {
            install.put("a", "1").await.unwrap();
            let add = "UPDATE ext_storage_usage SET keys = keys + 1
                       WHERE tenant_id = $1 AND namespace = 'notes'";
            tamper(&database, install, &[add]).await;
        }
        assert_eq!(drifts(&backend, &one, true).await.len(), 1);
        assert_eq!(drifts(&backend, &one, false).await, []);
        assert_eq!(drifts(&backend, &other, false).await.len(), 1);
    }
}
