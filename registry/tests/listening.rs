//! What one process changes, another one hears.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use alga_model::{ContentHash, InstallId, Secret, TenantId, Timestamp};
use alga_postgres::Options;
use alga_registry::{
    Change, Changed, Grants, Install, InstallEdit, InstallState, Listener, NewInstall, NewVersion,
    PostgresRegistry, Registry, RegistryDatabase, RegistryError, SqliteRegistry, SwitchesEdit,
    TenantEdit, Version,
};
use alga_test_postgres::TestDatabase;
use sqlx::{Connection as _, Executor as _, PgConnection};

/// Longer than anything that arrives takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry and somebody who listens to it, as another process would.
struct Stage {
    url: String,
    registry: PostgresRegistry,
    listener: Box<dyn Listener>,
}

impl Stage {
    async fn open() -> Self {
        let url = TestDatabase::create().await.url;
        let registry = open(&url).await;
        let listener = open(&url).await.listen().await.unwrap().unwrap();
        Self {
            url,
            registry,
            listener,
        }
    }

    async fn heard(&mut self) -> Changed {
        let next = tokio::time::timeout(PATIENCE, self.listener.next()).await;
        next.unwrap().unwrap()
    }

    async fn version(&self, version: &str) -> Version {
        let new = NewVersion {
            name: "com.example.notes".parse().unwrap(),
            publisher: "Example Inc.".to_owned(),
            version: version.to_owned(),
            content_hash: ContentHash::of(version.as_bytes()),
            manifest: "{}".to_owned(),
            size: 5,
        };
        let registered = self
            .registry
            .register_version(&new, change())
            .await
            .unwrap();
        registered.version
    }

    /// A new install, which was heard of.
    async fn install(&mut self) -> Install {
        let version = self.version("1.0.0").await;
        let new = NewInstall::new(TenantId::generate(), version.id);
        let install = self.registry.create_install(&new, change()).await.unwrap();
        assert_eq!(self.heard().await, Changed::Install(install.id));
        install
    }

    async fn edit(&self, id: InstallId, edit: InstallEdit) {
        let edited = self.registry.edit_install(id, edit, None, change());
        edited.await.unwrap();
    }

    async fn execute(&self, sql: &'static str) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        connection.execute(sql).await.unwrap();
    }
}

async fn open(url: &str) -> PostgresRegistry {
    let options = Options::at(Secret::new(url.to_owned()));
    PostgresRegistry::open(&options).await.unwrap()
}

fn change() -> Change<'static> {
    Change {
        actor: "admin",
        request_id: None,
        now: Timestamp::from_millis(1_795_286_981_000),
    }
}

#[tokio::test]
async fn every_change_of_an_install_is_heard() {
    let mut stage = Stage::open().await;
    let Install { id, .. } = stage.install().await;
    let limits = serde_json::json!({"quotas": {"namespaces": 7}});
    for edit in [
        InstallEdit::State(InstallState::Disabled),
        InstallEdit::Grants(Grants::from([("storage".to_owned(), limits.clone())])),
        InstallEdit::Limits(Some(limits)),
        InstallEdit::Config(BTreeMap::from([("a".to_owned(), "1".to_owned())]).into()),
        InstallEdit::State(InstallState::Uninstalled),
    ] {
        stage.edit(id, edit.clone()).await;
        assert_eq!(stage.heard().await, Changed::Install(id), "{edit:?}");
    }
}

#[tokio::test]
async fn a_change_of_version_is_heard() {
    let mut stage = Stage::open().await;
    let Install { id, .. } = stage.install().await;
    let newer = stage.version("2.0.0").await;
    let upgraded = stage
        .registry
        .upgrade_install(id, newer.id, Grants::new(), None, change());
    upgraded.await.unwrap();
    assert_eq!(stage.heard().await, Changed::Install(id));
    let back = stage.registry.roll_back_install(id, None, change());
    back.await.unwrap();
    assert_eq!(stage.heard().await, Changed::Install(id));
}

#[tokio::test]
async fn changes_of_tenants_and_switches_are_heard() {
    let mut stage = Stage::open().await;
    let tenant = TenantId::generate();
    for on in [false, true] {
        let edit = TenantEdit::Storage(on);
        let edited = stage.registry.edit_tenant(tenant, edit, None, change());
        edited.await.unwrap();
        assert_eq!(stage.heard().await, Changed::Tenant(tenant));
        let edit = SwitchesEdit::Storage(on);
        let edited = stage.registry.edit_switches(edit, None, change());
        edited.await.unwrap();
        assert_eq!(stage.heard().await, Changed::All);
    }
}

#[tokio::test]
async fn what_changes_nothing_is_not_heard() {
    let mut stage = Stage::open().await;
    let Install { id, .. } = stage.install().await;
    // As it is, and refused.
    stage
        .edit(id, InstallEdit::State(InstallState::Enabled))
        .await;
    let edit = InstallEdit::State(InstallState::Disabled);
    let refused = stage.registry.edit_install(id, edit, Some(99), change());
    refused.await.unwrap_err();
    // Undone at the very end, where the audit has no number to give.
    stage.execute("DELETE FROM registry_audit_last").await;
    let tenant = TenantId::generate();
    let edit = TenantEdit::Storage(false);
    let undone = stage
        .registry
        .edit_tenant(tenant, edit.clone(), None, change());
    undone.await.unwrap_err();
    stage
        .execute("INSERT INTO registry_audit_last (id, seq) VALUES (1, 1000)")
        .await;
    let done = stage
        .registry
        .edit_switches(SwitchesEdit::Storage(false), None, change());
    done.await.unwrap();
    assert_eq!(stage.heard().await, Changed::All);
}

#[tokio::test]
async fn what_a_newer_release_says_may_be_anything() {
    let mut stage = Stage::open().await;
    stage
        .execute("SELECT pg_notify('alga_registry', 'bundle 7')")
        .await;
    assert_eq!(stage.heard().await, Changed::All);
}

#[tokio::test]
async fn who_begins_to_listen_disturbs_nobody() {
    let mut stage = Stage::open().await;
    let other = open(&stage.url).await.listen().await.unwrap();
    drop(other);
    let tenant = TenantId::generate();
    let edited = stage
        .registry
        .edit_tenant(tenant, TenantEdit::Storage(false), None, change());
    edited.await.unwrap();
    assert_eq!(stage.heard().await, Changed::Tenant(tenant));
}

#[tokio::test]
async fn who_is_cut_off_is_told_so() {
    let mut stage = Stage::open().await;
    stage
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'alga-runner listener'",
        )
        .await;
    let cut = tokio::time::timeout(PATIENCE, stage.listener.next()).await;
    assert!(
        matches!(cut, Ok(Err(RegistryError::Unavailable { .. }))),
        "{cut:?}"
    );
}

#[tokio::test]
async fn nobody_listens_where_nothing_arrives() {
    let url = TestDatabase::create().await.url;
    let elsewhere = TestDatabase::create().await.url;
    let options = Options {
        direct_url: Some(Secret::new(url.clone())),
        ..Options::at(Secret::new(url.clone()))
    };
    PostgresRegistry::open(&options).await.unwrap();
    // As behind a pooler, what is sent arrives in a session that is not the listener's.
    let options = Options {
        direct_url: Some(Secret::new(elsewhere)),
        migrate_on_open: false,
        ..options
    };
    let registry = PostgresRegistry::open(&options).await.unwrap();
    let refused = registry.listen().await;
    assert!(
        matches!(refused, Err(RegistryError::Unavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_tells_nothing() {
    let registry = SqliteRegistry::open(alga_sqlite::Options::memory()).await;
    assert!(registry.unwrap().listen().await.unwrap().is_none());
}
