//! What unit tests play on: databases in memory, and a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use alga_model::{ContentHash, InstallId, ManualClock, Secret, TenantId, Timestamp};
use alga_registry::{
    Change, Grants, Install, NewInstall, NewVersion, Registry as _, SqliteRegistry,
};
use alga_sqlite::Options;
use alga_storage::{
    Actor, BulkItem, CAPABILITY, Caller, CursorKey, Gate, Guard, Key, Limits, LocalService,
    Namespace, PutRequest, SqliteBackend,
};
use serde_json::json;

use crate::activity::{Activity, ActivityLimits};
use crate::admin::{Admin, Administration, Author};
use crate::installs::Installs;
use crate::storage_place::StoragePlace;

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) registry: Arc<SqliteRegistry>,
    pub(crate) storage: Arc<SqliteBackend>,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        let start = Timestamp::from_millis(1_800_000_000_000);
        let clock = Arc::new(ManualClock::starting_at(start));
        let registry = SqliteRegistry::open(Options::memory()).await.unwrap();
        let of_storage = Arc::clone(&clock) as _;
        let storage = SqliteBackend::open(Options::memory(), of_storage)
            .await
            .unwrap();
        Self {
            clock,
            registry: Arc::new(registry),
            storage: Arc::new(storage),
        }
    }

    /// A change that an administrator makes now.
    pub(crate) fn change(&self) -> Change<'static> {
        use alga_model::Clock as _;
        Change {
            actor: "admin",
            request_id: None,
            now: self.clock.now(),
        }
    }

    /// Installs `com.example.notes` for `tenant`, with the namespace `notes`.
    pub(crate) async fn install(&self, tenant: TenantId) -> Install {
        let version = NewVersion {
            name: "com.example.notes".parse().unwrap(),
            publisher: "Tests".to_owned(),
            version: "1.0.0".to_owned(),
            content_hash: ContentHash::of(b"notes"),
            manifest: "{}".to_owned(),
            size: 5,
        };
        let registered = self
            .registry
            .register_version(&version, self.change())
            .await
            .unwrap();
        let notes = json!({"namespaces": [{"name": "notes", "access": ["read", "write"]}]});
        let new = NewInstall {
            grants: Grants::from([(CAPABILITY.to_owned(), notes)]),
            ..NewInstall::new(tenant, registered.version.id)
        };
        self.registry
            .create_install(&new, self.change())
            .await
            .unwrap()
    }

    /// An administrator's work on these databases.
    pub(crate) fn administration(&self) -> Administration {
        Administration::Here {
            admin: Box::new(self.admin()),
            author: Author::operator("admin"),
        }
    }

    /// What does an administrator's work.
    pub(crate) fn admin(&self) -> Admin {
        Admin {
            registry: Arc::clone(&self.registry) as _,
            storage: StoragePlace::Here(Arc::clone(&self.storage) as _),
            installs: self.installs_with(Limits::default()),
            extensions: None,
            activity: Some(Activity::new(
                Arc::clone(&self.clock) as _,
                ActivityLimits::default(),
            )),
            uploads: None,
            clock: Arc::clone(&self.clock) as _,
        }
    }

    /// A look at the registry as it is now, with these limits for everybody.
    pub(crate) fn installs_with(&self, limits: Limits) -> Arc<Installs> {
        Arc::new(Installs::new(Arc::clone(&self.registry) as _, limits))
    }

    /// A look that sees no change that it isn't told of.
    pub(crate) fn installs_that_last(&self) -> Arc<Installs> {
        let (registry, day) = (Arc::clone(&self.registry), Duration::from_secs(86_400));
        Arc::new(Installs::remembering(registry, Limits::default(), day))
    }

    /// Writes a record to the namespace `notes`, as a guest whose request is `req-1`.
    pub(crate) async fn put(
        &self,
        install: InstallId,
        key: &str,
        value: &str,
        ttl_seconds: Option<u64>,
    ) {
        let service = LocalService::new(
            Arc::clone(&self.storage) as _,
            CursorKey::new(Secret::new([7; 32]), None),
            LocalService::DEFAULT_TIMEOUT,
        );
        let gate = Gate::new(self.installs_with(Limits::default()), Arc::new(service));
        let caller = Caller {
            install,
            actor: Actor::Invocation("run-1".into()),
            request_id: "req-1".into(),
            may_use_storage: true,
            operation_id: None,
        };
        let item = BulkItem {
            key: Key::parse(key).unwrap(),
            value: value.to_owned(),
            metadata: None,
            ttl_seconds,
            schema_version: None,
            guard: Guard::Any,
        };
        let request = PutRequest {
            namespace: Namespace::parse("notes").unwrap(),
            item,
            return_previous: false,
            return_current: false,
        };
        gate.put(&caller, request).await.unwrap();
    }
}
