//! Which way the statements go: none reads a whole table.
//!
//! Alone in its process, because statements are said on threads of their own, which only the process's
//! subscriber hears, and by connections that found it listening when they were opened.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alga_model::Clock as _;
use alga_sqlite::{DriverError, Options, STATEMENTS};
use alga_storage::suite::{Install, Stage};
use alga_storage::{
    AuditFilter, BulkItem, Guard, Key, KeyRange, ListRequest, Maintenance as _, Namespace,
    SqliteBackend,
};
use rusqlite::Connection;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// The statements that the connections say they run.
#[derive(Debug, Clone, Default)]
struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl Visit for Statements {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "statement" {
            self.0.lock().unwrap().insert(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == STATEMENTS {
            event.record(&mut self.clone());
        }
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
    let explain = format!("EXPLAIN QUERY PLAN {statement}");
    let read = move |connection: &Connection| {
        let mut statement = connection.prepare(&explain)?;
        // Parameters are unknown to the planner when a statement is prepared, here as there.
        let rows = statement.raw_query().mapped(|row| row.get("detail"));
        Ok::<_, DriverError>(rows.collect::<Result<_, _>>()?)
    };
    backend.database().read(read).await.unwrap()
}

#[tokio::test]
async fn every_statement_reaches_its_rows_through_an_index() {
    let heard = Statements::default();
    let subscriber = tracing_subscriber::registry().with(heard.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let clock = Stage::clock();
    let backend = SqliteBackend::open(Options::memory(), Arc::clone(&clock) as _)
        .await
        .unwrap();
    let backend = Arc::new(backend);
    let stage = Stage::new(Arc::clone(&backend), clock);
    // What was said until here made the schema.
    heard.0.lock().unwrap().clear();
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
