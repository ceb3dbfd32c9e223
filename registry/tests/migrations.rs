//! The schema of the registry goes up, down and up again.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use alga_model::{ContentHash, TenantId, Timestamp};
use alga_registry::{
    AuditAction, AuditFilter, AuditRecord, Change, Install, InstallEdit, MAX_PAGE_ITEMS,
    NewInstall, NewVersion, PageRequest, Registry, SqliteRegistry, Switches, SwitchesEdit,
    TenantEdit, TenantSettings,
};
use alga_sqlite::{Database, DriverError, Options};
use rusqlite::Connection;
use serde_json::json;

/// The statements of the schema, without the table in which SQLite keeps the last number of an
/// AUTOINCREMENT column, which can't be dropped.
async fn statements(database: &Database) -> Vec<String> {
    let sql = "SELECT coalesce(sql, name) FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name";
    let statements = |connection: &Connection| {
        let mut statement = connection.prepare(sql)?;
        let found = statement.query_map((), |row| row.get(0))?;
        Ok::<_, DriverError>(found.collect::<Result<_, _>>()?)
    };
    database.read(statements).await.unwrap()
}

async fn versions(database: &Database) -> Vec<i64> {
    let status = database.migration_status().await.unwrap();
    status.iter().map(|migration| migration.version).collect()
}

#[tokio::test]
async fn going_down_and_up_again_leaves_the_same_schema() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let database = registry.database();
    let versions = versions(database).await;
    let before = statements(database).await;
    for down_to in versions.iter().rev().skip(1).chain([&0]) {
        database.migrate_down_to(*down_to).await.unwrap();
        let status = database.migration_status().await.unwrap();
        assert!(
            status
                .iter()
                .all(|migration| migration.applied == (migration.version <= *down_to)),
            "{status:#?}"
        );
        assert_ne!(statements(database).await, before);
        database.migrate_up().await.unwrap();
        assert_eq!(statements(database).await, before);
    }
}

#[tokio::test]
async fn going_all_the_way_down_leaves_only_the_history() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let database = registry.database();
    database.migrate_down_to(0).await.unwrap();
    let left = statements(database).await;
    assert_eq!(left.len(), 2, "{left:#?}");
    assert!(
        left.iter()
            .all(|statement| statement.contains("_registry_migrations")),
        "{left:#?}"
    );
}

fn change() -> Change<'static> {
    Change {
        actor: "admin",
        request_id: None,
        now: Timestamp::from_millis(0),
    }
}

/// An install with limits of its own, that were changed once.
async fn install_with_limits(registry: &SqliteRegistry) -> Install {
    let notes = NewVersion {
        name: "com.example.notes".parse().unwrap(),
        publisher: "Example Inc.".to_owned(),
        version: "1.0.0".to_owned(),
        content_hash: ContentHash::of(b"notes"),
        manifest: "{}".to_owned(),
        size: 5,
    };
    let registered = registry.register_version(&notes, change()).await.unwrap();
    let new = NewInstall::new(TenantId::generate(), registered.version.id);
    let install = registry.create_install(&new, change()).await.unwrap();
    let limits = Some(json!({ "keysPerNamespace": 10 }));
    let edited = registry
        .set_limits(install.id, limits, None, change())
        .await;
    edited.unwrap()
}

async fn records_of(registry: &SqliteRegistry, action: AuditAction) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        action: Some(action),
        ..AuditFilter::default()
    };
    let page = PageRequest::first(MAX_PAGE_ITEMS);
    registry.audit(&filter, page).await.unwrap().items
}

#[tokio::test]
async fn limits_and_their_records_survive_the_change_of_their_name() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let install = install_with_limits(&registry).await;
    let records = records_of(&registry, AuditAction::InstallLimits).await;
    assert_eq!(records.len(), 1);
    let database = registry.database();
    database.migrate_down_to(1).await.unwrap();
    let sql = "SELECT quotas, (SELECT count(*) FROM registry_audit WHERE action = 'install.quotas')
        FROM registry_installs";
    let former = |connection: &Connection| {
        let former = connection.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)));
        former.map_err(DriverError::from)
    };
    let former: (String, i64) = database.read(former).await.unwrap();
    assert_eq!(former, (r#"{"keysPerNamespace":10}"#.to_owned(), 1));

    database.migrate_up().await.unwrap();
    let found = registry.install(install.id).await.unwrap();
    assert_eq!(found, Some(install));
    let found = records_of(&registry, AuditAction::InstallLimits).await;
    assert_eq!(found, records);
}

#[tokio::test]
async fn going_back_before_upgrades_forgets_what_they_replaced() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let install = install_with_limits(&registry).await;
    let second = NewVersion {
        name: install.extension_name.clone(),
        publisher: "Example Inc.".to_owned(),
        version: "2.0.0".to_owned(),
        content_hash: ContentHash::of(b"more notes"),
        manifest: "{}".to_owned(),
        size: 10,
    };
    let second = registry.register_version(&second, change()).await.unwrap();
    let grants = install.grants.clone();
    let upgrade = registry.upgrade_install(install.id, second.version.id, grants, None, change());
    let upgraded = upgrade.await.unwrap();
    assert!(upgraded.former.is_some());
    let database = registry.database();
    database.migrate_down_to(2).await.unwrap();
    database.migrate_up().await.unwrap();
    let expected = Install {
        former: None,
        ..upgraded
    };
    let found = registry.install(install.id).await.unwrap();
    assert_eq!(found, Some(expected));
}

#[tokio::test]
async fn settings_go_with_their_tables_and_leave_their_records() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let tenant = TenantId::generate();
    let off = SwitchesEdit::Storage(false);
    registry
        .edit_switches(off.clone(), None, change())
        .await
        .unwrap();
    let tenant_off = TenantEdit::Storage(false);
    registry
        .edit_tenant(tenant, tenant_off, None, change())
        .await
        .unwrap();
    let database = registry.database();
    database.migrate_down_to(1).await.unwrap();
    database.migrate_up().await.unwrap();

    assert_eq!(registry.switches().await.unwrap(), Switches::default());
    let settings = registry.tenant_settings(tenant).await.unwrap();
    assert_eq!(settings, TenantSettings::unchanged(tenant));
    for action in [AuditAction::SwitchesStorage, AuditAction::TenantStorage] {
        assert_eq!(records_of(&registry, action).await.len(), 1);
    }
    let edited = registry.edit_switches(off, Some(0), change()).await;
    assert_eq!(edited.unwrap().generation, 1);
}

#[tokio::test]
async fn a_concurrency_goes_with_its_column() {
    let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
    let install = install_with_limits(&registry).await;
    let edit = InstallEdit::Concurrency(Some(3));
    let edited = registry
        .edit_install(install.id, edit, None, change())
        .await
        .unwrap();
    let database = registry.database();
    database.migrate_down_to(4).await.unwrap();
    database.migrate_up().await.unwrap();
    let expected = Install {
        concurrency: None,
        ..edited
    };
    let found = registry.install(install.id).await.unwrap();
    assert_eq!(found, Some(expected));
}
