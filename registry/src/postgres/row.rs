//! What a row of PostgreSQL holds.

use alga_model::Timestamp;
use alga_postgres::Time;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};
use uuid::Uuid;

use crate::rows::{Row, Unreadable};

impl Row for PgRow {
    fn uuid(&self, column: &'static str) -> Result<Option<Uuid>, Unreadable> {
        value(self, column)
    }

    fn number(&self, column: &'static str) -> Result<Option<i64>, Unreadable> {
        value(self, column)
    }

    fn flag(&self, column: &'static str) -> Result<Option<bool>, Unreadable> {
        value(self, column)
    }

    fn time(&self, column: &'static str) -> Result<Option<Timestamp>, Unreadable> {
        let time: Option<Time> = value(self, column)?;
        Ok(time.map(|time| time.0))
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, Unreadable> {
        value(self, column)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, Unreadable> {
        value(self, column)
    }
}

fn value<'r, T>(row: &'r PgRow, column: &'static str) -> Result<Option<T>, Unreadable>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use alga_model::Secret;
    use alga_postgres::Options;
    use alga_test_postgres::TestDatabase;
    use sqlx::{Executor as _, PgConnection};

    use super::super::{PostgresError, PostgresRegistry};
    use crate::audit::AuditFilter;
    use crate::page::PageRequest;
    use crate::registry::Registry;
    use crate::rows::tests::{an_install, assert_inconsistent};
    use crate::rows::{AUDIT, EXTENSIONS, INSTALLS, SWITCHES};

    async fn registry() -> PostgresRegistry {
        let url = Secret::new(TestDatabase::create().await.url);
        PostgresRegistry::open(&Options::at(url)).await.unwrap()
    }

    async fn tamper(registry: &PostgresRegistry, sql: &'static str) {
        let tampered = registry
            .database()
            .write(async |connection: &mut PgConnection| {
                Ok::<_, PostgresError>(connection.execute(sql).await?.rows_affected())
            });
        assert_ne!(tampered.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_damaged_install_is_named() {
        let registry = registry().await;
        let install = an_install(&registry).await;
        for (sql, column) in [
            ("UPDATE registry_installs SET grants = '[]'", "grants"),
            (
                "UPDATE registry_installs SET grants = '{}', config = '{\"a\":1}'",
                "config",
            ),
            (
                "UPDATE registry_installs SET config = '{}', concurrency = 5000000000",
                "concurrency",
            ),
        ] {
            tamper(&registry, sql).await;
            let found = registry.install(install.id).await;
            assert_inconsistent(found, INSTALLS, column, &install.id.to_string());
        }
        tamper(&registry, "UPDATE registry_installs SET concurrency = NULL").await;
        tamper(&registry, "UPDATE registry_extensions SET name = 'notes'").await;
        let found = registry.install(install.id).await;
        assert_inconsistent(found, EXTENSIONS, "name", &install.extension_id.to_string());
    }

    #[tokio::test]
    async fn damaged_switches_are_named() {
        let registry = registry().await;
        tamper(
            &registry,
            "UPDATE registry_switches SET allowed_extensions = '{}'",
        )
        .await;
        let found = registry.switches().await;
        assert_inconsistent(found, SWITCHES, "allowed_extensions", "1");
    }

    #[tokio::test]
    async fn a_damaged_audit_record_is_named() {
        let registry = registry().await;
        an_install(&registry).await;
        let damage = "UPDATE registry_audit SET extension = '' WHERE seq = 1";
        tamper(&registry, damage).await;
        let page = PageRequest::first(10);
        let found = registry.audit(&AuditFilter::default(), page).await;
        assert_inconsistent(found, AUDIT, "extension", "1");
    }
}
