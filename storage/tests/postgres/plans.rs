//! Which way the statements go, those inside functions too: none reads a whole table.
//!
//! The server itself says how it ran each statement, with `auto_explain`.

use std::time::Duration;

use alga_model::Clock as _;
use alga_storage::suite::{Install, Stage};
use alga_storage::{
    AuditFilter, Guard, KeyRange, ListRequest, Maintenance as _, Namespace, OperationId,
    PostgresBackend,
};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, Executor as _};

use crate::notices::Notices;
use crate::{item, session, stage_on};

/// Enough of everything that reading all of it would be the dearer way.
async fn fill(database: &TestDatabase) {
    const FILL: [&str; 5] = [
        "INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
         SELECT md5((n % 50)::text)::uuid, md5('i' || n % 100)::uuid, 'n' || n % 5, 'k' || n, 1, 3,
                CASE WHEN n % 4 = 0 THEN now() + n * interval '1 minute' END, now(), now(), '{}', '1'
         FROM generate_series(1, 20000) AS n",
        "INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, next_expiry)
         SELECT md5((n % 50)::text)::uuid, md5('i' || n)::uuid, 'n' || n % 5, 5, 15, now() + n * interval '1 minute'
         FROM generate_series(1, 5000) AS n",
        "INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, records, bytes, changes)
         SELECT md5((n % 50)::text)::uuid, ext_storage_uuid7_1(1900000000000000 + n), now(), md5('i' || n % 100)::uuid, 'e', 'n',
                'put', 'a', 1, 3, '[]'
         FROM generate_series(1, 20000) AS n",
        "INSERT INTO ext_storage_idempotency
            (tenant_id, install_id, operation_id, digest, expires_at, result)
         SELECT md5((n % 50)::text)::uuid, md5('i' || n % 100)::uuid, gen_random_uuid(), '', now(), '[]'
         FROM generate_series(1, 5000) AS n",
        "ANALYZE",
    ];
    let mut session = session(database).await;
    for statement in FILL {
        session.execute(statement).await.unwrap();
    }
}

/// Has whoever connects from now on be told of every plan.
async fn explain_all(database: &TestDatabase) {
    let mut session = session(database).await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut session)
        .await
        .unwrap();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        "auto_explain.log_level = notice",
        "client_min_messages = notice",
    ] {
        let alter = format!("ALTER DATABASE {name} SET {setting}");
        session.execute(sqlx::AssertSqlSafe(alter)).await.unwrap();
    }
    session.close().await.unwrap();
}

/// Has every statement run that a guest causes.
pub(crate) async fn ask_for_everything(stage: &Stage, install: &Install<'_>) {
    for _ in 0..6 {
        plain_put(install, "a").await;
        install.put("a", "1").await.unwrap();
    }
    install.put_if("a", "1", Guard::Exists).await.unwrap();
    install.put_if("a", "1", Guard::Absent).await.unwrap_err();
    let items = (0..20).map(|nth| item(&format!("b{nth}"), Some(60), Guard::Any));
    install.bulk_put(items.collect()).await.unwrap();
    install.delete("a").await.unwrap();
    install.get("b1").await.unwrap();
    install.get_many(&["b1", "c"]).await.unwrap();
    install.usage().await.unwrap();
    for reverse in [false, true] {
        let request = ListRequest {
            namespace: Namespace::parse("notes").unwrap(),
            range: KeyRange::parse(Some("b"), None, None).unwrap(),
            reverse,
            limit: None,
            cursor: None,
            include_values: true,
            include_metadata: false,
        };
        install.list(request).await.unwrap();
    }
    stage.clock.advance(Duration::from_secs(60));
    install.put("d", "1").await.unwrap();
    let items = (0..20).map(|nth| item(&format!("e{nth}"), Some(60), Guard::Any));
    install.bulk_put(items.collect()).await.unwrap();
    let mut known = install.clone();
    known.caller.operation_id = Some(OperationId::generate());
    known.put("known", "1").await.unwrap();
    known.put("known", "1").await.unwrap();
}

/// Has every statement run that an operator causes.
async fn look_after_everything(stage: &Stage, install: &Install<'_>, backend: &PostgresBackend) {
    stage.clock.advance(Duration::from_secs(60));
    backend.remove_expired(10).await.unwrap();
    let tenant = Some(install.tenant);
    let some = AuditFilter {
        tenant,
        install: Some(install.caller.install),
        since: Some(stage.clock.now()),
        until: Some(stage.clock.now()),
    };
    for filter in [AuditFilter::default(), some] {
        backend.audit(&filter, None, 10).await.unwrap();
    }
    backend.remove_audit(stage.clock.now(), 10).await.unwrap();
    let forgotten = backend.remove_answers(10).await;
    assert_eq!(forgotten.unwrap().records, 10);
    backend.tenants(tenant, 10).await.unwrap();
    backend.holdings(install.tenant).await.unwrap();
}

/// Asks for nothing but that it is written.
async fn plain_put(install: &Install<'_>, key: &str) {
    let request = alga_storage::PutRequest {
        namespace: Namespace::parse("notes").unwrap(),
        item: item(key, None, Guard::Any),
        return_previous: false,
        return_current: false,
    };
    install.gate().put(&install.caller, request).await.unwrap();
}

/// The plans of all that guests and operators cause.
async fn plans_on(database: &TestDatabase) -> Vec<String> {
    let (told, _until_the_end) = Notices::listen();
    // Makes the tables.
    drop(stage_on(database).await);
    fill(database).await;
    explain_all(database).await;
    let (stage, backend) = stage_on(database).await;
    told.take();
    let install = stage.install();
    ask_for_everything(&stage, &install).await;
    look_after_everything(&stage, &install, &backend).await;
    told.take()
}

#[tokio::test]
async fn every_statement_reaches_its_rows_through_an_index() {
    let plans = plans_on(&TestDatabase::create().await).await;
    let about_tables: Vec<_> = plans
        .iter()
        .filter(|plan| plan.contains("ext_storage_"))
        .collect();
    assert!(about_tables.len() > 60, "only {}: {plans:#?}", plans.len());
    let nested = about_tables
        .iter()
        .filter(|plan| plan.contains("FOR UPDATE"));
    assert!(
        nested.count() > 5,
        "functions are not looked into: {plans:#?}"
    );
    for plan in about_tables {
        assert!(!plan.contains("Seq Scan on ext_storage_"), "{plan}");
    }
}
