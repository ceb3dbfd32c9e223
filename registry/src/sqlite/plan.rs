//! How SQLite would run a statement, for the tests of the statements.

use alga_sqlite::Options;
use rusqlite::Connection;

use super::SqliteRegistry;

/// Asserts that `sql` finds every row through an index and sorts nothing.
pub(super) async fn assert_searches(sql: &str) {
    let plan = plan_of(sql).await;
    let is_direct = plan
        .iter()
        .all(|step| !step.contains("SCAN") && !step.contains("TEMP B-TREE"));
    assert!(
        is_direct && plan.iter().any(|step| step.contains("SEARCH")),
        "{sql}\n{plan:#?}"
    );
}

/// Asserts that `sql` finds every row through an index, the first ones through `index`, and sorts
/// nothing.
pub(super) async fn assert_uses(sql: &str, index: &str) {
    assert_searches(sql).await;
    let plan = plan_of(sql).await;
    let is_used = plan
        .first()
        .is_some_and(|step| step.split(" (").next().unwrap_or(step).ends_with(index));
    assert!(is_used, "{index}: {sql}\n{plan:#?}");
}

/// The steps of `sql`.
pub(super) async fn plan_of(sql: &str) -> Vec<String> {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let explain = ["EXPLAIN QUERY PLAN ", sql].concat();
    let plan = move |connection: &Connection| {
        let mut statement = connection.prepare(&explain)?;
        // Not bound: the plan is the same for all values.
        let steps = statement.raw_query().mapped(|step| step.get("detail"));
        Ok(steps.collect::<Result<_, _>>()?)
    };
    registry.read(plan).await.unwrap()
}
