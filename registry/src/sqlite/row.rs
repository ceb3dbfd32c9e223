//! What a row of SQLite holds.

use alga_model::Timestamp;
use rusqlite::types::FromSql;
use uuid::Uuid;

use crate::rows::{Row, Unreadable};

impl Row for rusqlite::Row<'_> {
    fn uuid(&self, column: &'static str) -> Result<Option<Uuid>, Unreadable> {
        Ok(value::<[u8; 16]>(self, column)?.map(Uuid::from_bytes))
    }

    fn number(&self, column: &'static str) -> Result<Option<i64>, Unreadable> {
        value(self, column)
    }

    fn flag(&self, column: &'static str) -> Result<Option<bool>, Unreadable> {
        value(self, column)
    }

    fn time(&self, column: &'static str) -> Result<Option<Timestamp>, Unreadable> {
        Ok(value(self, column)?.map(Timestamp::from_millis))
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, Unreadable> {
        let value = self.get_ref(column).map_err(|_| Unreadable)?;
        value.as_str_or_null().map_err(|_| Unreadable)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, Unreadable> {
        let value = self.get_ref(column).map_err(|_| Unreadable)?;
        value.as_blob_or_null().map_err(|_| Unreadable)
    }
}

fn value<T: FromSql>(
    row: &rusqlite::Row<'_>,
    column: &'static str,
) -> Result<Option<T>, Unreadable> {
    row.get(column).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use alga_sqlite::Options;

    use crate::audit::AuditFilter;
    use crate::install::Install;
    use crate::page::PageRequest;
    use crate::registry::Registry;
    use crate::rows::tests::{an_install, assert_inconsistent, change};
    use crate::rows::{AUDIT, EXTENSIONS, INSTALLS, SWITCHES, TENANTS, VERSIONS};
    use crate::sqlite::SqliteRegistry;
    use crate::sqlite::error::SqliteError;
    use crate::switches::SwitchesEdit;
    use crate::tenant::TenantEdit;
    use crate::version::VersionKey;

    /// A registry with one install.
    async fn registry() -> (SqliteRegistry, Install) {
        let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
        let install = an_install(&registry).await;
        (registry, install)
    }

    async fn tamper(registry: &SqliteRegistry, sql: &'static str) {
        let tampered = registry
            .database
            .write(|tx| Ok::<_, SqliteError>(tx.execute(sql, ())?));
        assert_ne!(tampered.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_damaged_install_is_named() {
        for (sql, column) in [
            ("UPDATE registry_installs SET grants = '[]'", "grants"),
            (
                "UPDATE registry_installs SET config = '{\"a\":1}'",
                "config",
            ),
            ("UPDATE registry_installs SET limits = '{'", "limits"),
        ] {
            let (registry, install) = registry().await;
            tamper(&registry, sql).await;
            let found = registry.install(install.id).await;
            assert_inconsistent(found, INSTALLS, column, &install.id.to_string());
        }
    }

    #[tokio::test]
    async fn damaged_switches_are_named() {
        for (sql, column) in [
            (
                "UPDATE registry_switches SET allowed_extensions = '[\"notes\"]'",
                "allowed_extensions",
            ),
            (
                "UPDATE registry_switches SET allowed_extensions = '{}'",
                "allowed_extensions",
            ),
        ] {
            let (registry, _) = registry().await;
            let edit = SwitchesEdit::Storage(false);
            registry.edit_switches(edit, None, change()).await.unwrap();
            tamper(&registry, sql).await;
            assert_inconsistent(registry.switches().await, SWITCHES, column, "1");
            let edit = SwitchesEdit::Storage(true);
            let edited = registry.edit_switches(edit, None, change()).await;
            assert_inconsistent(edited, SWITCHES, column, "1");
        }
    }

    #[tokio::test]
    async fn damaged_settings_of_a_tenant_are_named() {
        let (registry, install) = registry().await;
        let edit = TenantEdit::Storage(false);
        let edited = registry
            .edit_tenant(install.tenant, edit, None, change())
            .await;
        let key = edited.unwrap().tenant.to_string();
        tamper(&registry, "UPDATE registry_tenants SET limits = '{'").await;
        let found = registry.tenant_settings(install.tenant).await;
        assert_inconsistent(found, TENANTS, "limits", &key);
        let listed = registry.tenants_with_settings(PageRequest::first(1)).await;
        assert_inconsistent(listed, TENANTS, "limits", &key);
    }

    #[tokio::test]
    async fn an_install_names_the_extension_that_is_damaged() {
        let (registry, install) = registry().await;
        tamper(&registry, "UPDATE registry_extensions SET name = 'notes'").await;
        let found = registry.install(install.id).await;
        assert_inconsistent(found, EXTENSIONS, "name", &install.extension_id.to_string());
    }

    #[tokio::test]
    async fn a_text_that_is_not_utf_8_is_an_inconsistency() {
        let (registry, install) = registry().await;
        tamper(
            &registry,
            "UPDATE registry_versions SET manifest = CAST(x'ff' AS TEXT)",
        )
        .await;
        let found = registry.version(&VersionKey::Id(install.version_id)).await;
        assert_inconsistent(found, VERSIONS, "manifest", &install.version_id.to_string());
    }

    #[tokio::test]
    async fn a_damaged_audit_record_is_named() {
        for (sql, column) in [
            (
                "UPDATE registry_audit SET details = '' WHERE seq = 1",
                "details",
            ),
            (
                "UPDATE registry_audit SET extension = '' WHERE seq = 1",
                "extension",
            ),
        ] {
            let (registry, _) = registry().await;
            tamper(&registry, sql).await;
            let found = registry
                .audit(&AuditFilter::default(), PageRequest::first(10))
                .await;
            assert_inconsistent(found, AUDIT, column, "1");
        }
    }

    #[tokio::test]
    async fn an_action_of_a_later_release_is_read() {
        let (registry, _) = registry().await;
        tamper(
            &registry,
            "UPDATE registry_audit SET action = 'install.purge' WHERE seq = 1",
        )
        .await;
        let page = registry
            .audit(&AuditFilter::default(), PageRequest::first(1))
            .await
            .unwrap();
        assert_eq!(page.items[0].action, "install.purge");
    }
}
