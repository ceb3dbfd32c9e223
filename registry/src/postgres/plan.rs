//! How PostgreSQL would run a statement, for the tests of the statements.

use alga_model::Secret;
use alga_postgres::Options;
use alga_test_postgres::TestDatabase;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::PostgresRegistry;

/// An empty registry that is asked for plans.
pub(super) struct Plans {
    url: String,
}

impl Plans {
    pub(super) async fn new() -> Self {
        let url = TestDatabase::create().await.url;
        let options = Options::at(Secret::new(url.clone()));
        let registry = PostgresRegistry::open(&options).await.unwrap();
        registry.database().close().await;
        Self { url }
    }

    /// Fills tables, so that the planner knows one index from another.
    pub(super) async fn filled_by(self, sql: &str) -> Self {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let fill = [sql, "; ANALYZE"].concat();
        connection.execute(AssertSqlSafe(fill)).await.unwrap();
        connection.close().await.unwrap();
        self
    }

    /// Asserts that `sql` finds every row through an index and sorts nothing.
    pub(super) async fn assert_searches(&self, sql: &str) {
        let plan = self.of(sql).await;
        let is_direct = !plan.contains("Seq Scan on registry_") && !plan.contains("Sort  (");
        assert!(is_direct && plan.contains("Index"), "{sql}\n{plan}");
    }

    /// Asserts that `sql` finds every row through an index, some through `index`, and sorts nothing.
    pub(super) async fn assert_uses(&self, sql: &str, index: &str) {
        self.assert_searches(sql).await;
        let plan = self.of(sql).await;
        let using = [" using ", index, " on "].concat();
        let bitmap = ["Bitmap Index Scan on ", index, " "].concat();
        assert!(
            plan.contains(&using) || plan.contains(&bitmap),
            "{index}: {sql}\n{plan}"
        );
    }

    /// The plan of `sql` for whatever parameters, where a way around whole tables and around sorting
    /// is taken if there is one: over empty tables neither costs anything.
    pub(super) async fn of(&self, sql: &str) -> String {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let parameters = (1..).take_while(|number| sql.contains(&format!("${number}")));
        let nulls = vec!["NULL"; parameters.count()].join(", ");
        let execute = if nulls.is_empty() {
            "EXPLAIN EXECUTE planned".to_owned()
        } else {
            format!("EXPLAIN EXECUTE planned ({nulls})")
        };
        let prepare = format!(
            "SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off;
            SET plan_cache_mode = force_generic_plan; PREPARE planned AS {sql}"
        );
        connection.execute(AssertSqlSafe(prepare)).await.unwrap();
        let steps: Vec<String> = sqlx::query_scalar(AssertSqlSafe(execute))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        steps.join("\n")
    }
}
