//! Which way the statements go: none reads a whole table.
//!
//! Alone in its process, because the driver logs from threads of its own, which only the process's
//! subscriber hears.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alga_model::Clock as _;
use alga_sqlite::Options;
use alga_storage::suite::{Install, Stage};
use alga_storage::{
    AuditFilter, BulkItem, Guard, Key, KeyRange, ListRequest, Maintenance as _, Namespace,
    SqliteBackend,
};
use sqlx::{AssertSqlSafe, Row as _};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// The statements that the driver says it runs.
#[derive(Debug, Clone, Default)]
struct Statements(Arc<Mutex<BTreeSet<String>>>);

#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "sqlx::query" {
            return;
        }
        let mut statement = Statement::default();
        event.record(&mut statement);
        let Statement { summary, whole } = statement;
        let text = if whole.is_empty() { summary } else { whole };
        // Several may run as one; none has a semicolon of its own.
        let statements = text.split(';').map(str::to_owned);
        self.0.lock().unwrap().extend(statements);
    }
}

/// Has every statement run.
async fn everything(stage: &Stage, backend: &SqliteBackend) {
    let install = stage.install();
    install.put("a", "1").await.unwrap();
    install
        .put_item(item("b", Some(60), Guard::Any))
        .await
        .unwrap();
    install
        .bulk_put(vec![item("c", Some(60), Guard::Any)])
        .await
        .unwrap();
    install.delete("a").await.unwrap();
    install.get("b").await.unwrap();
    install.get_many(&["b", "c"]).await.unwrap();
    install.usage().await.unwrap();
    for reverse in [false, true] {
        list(&install, reverse).await;
    }
    stage.clock.advance(Duration::from_secs(60));
    install.put("d", "1").await.unwrap();
    install
        .put_item(item("e", Some(60), Guard::Any))
        .await
        .unwrap();
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
    backend.tenants(tenant, 10).await.unwrap();
    backend.holdings(install.tenant).await.unwrap();
    backend.verify_usage(install.tenant, true).await.unwrap();
}

fn item(key: &str, ttl_seconds: Option<u64>, guard: Guard) -> BulkItem {
    BulkItem {
        key: Key::parse(key).unwrap(),
        value: "1".to_owned(),
        metadata: None,
        ttl_seconds,
        schema_version: None,
        guard,
    }
}

async fn list(install: &Install<'_>, reverse: bool) {
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

async fn plan(backend: &SqliteBackend, statement: &str) -> Vec<String> {
    sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(backend.database().reader())
        .await
        .unwrap()
        .iter()
        .map(|row| row.get("detail"))
        .collect()
}

#[tokio::test]
async fn every_statement_reaches_its_rows_through_an_index() {
    let clock = Stage::clock();
    let backend = SqliteBackend::open(Options::memory(), Arc::clone(&clock) as _)
        .await
        .unwrap();
    let backend = Arc::new(backend);
    let stage = Stage::new(Arc::clone(&backend), clock);
    let heard = Statements::default();
    let subscriber = tracing_subscriber::registry().with(heard.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    everything(&stage, &backend).await;
    let statements = heard.0.lock().unwrap().clone();
    let mut planned = 0;
    for statement in &statements {
        let about_tables = statement.contains("ext_storage_");
        for step in plan(&backend, statement).await {
            // What follows SCAN is a table or an alias of one, perhaps by way of an index, or the rows
            // of a parameter.
            let scanned = step.strip_prefix("SCAN ").unwrap_or_default();
            let name = scanned.split(' ').next().unwrap_or_default();
            let whole_table = name.starts_with("ext_storage_") || ["u", "r", "n"].contains(&name);
            assert!(!whole_table, "{step}: {statement}");
        }
        planned += usize::from(about_tables);
    }
    assert!(planned >= 20, "only {planned}: {statements:#?}");
}
