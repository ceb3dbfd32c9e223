//! A gate over a backend, with installs, grants and a clock that a test controls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alga_model::{InstallId, ManualClock, Secret, TenantId, Timestamp};
use async_trait::async_trait;

use crate::{
    Actor, Backend, BulkItem, BulkPutRequest, Caller, CursorKey, DeleteRequest, Error, Gate,
    GetManyRequest, GetRequest, GrantSource, Guard, Key, KeyRange, Limits, ListRequest,
    LocalService, Maintenance, Namespace, Page, PutRequest, RateLimit, Rates, Record, Revision,
    Snapshot, StorageClient, StorageGrant, Usage, Written,
};

/// What a behaviour plays on.
#[derive(Debug)]
pub struct Stage {
    gate: Gate,
    maintenance: Arc<dyn Maintenance>,
    installs: Arc<Installs>,
    /// The clock that the backend goes by.
    pub clock: Arc<ManualClock>,
}

#[derive(Debug, Default)]
struct Installs(Mutex<HashMap<InstallId, Arc<Snapshot>>>);

#[async_trait]
impl GrantSource for Installs {
    async fn snapshot(&self, install: InstallId) -> Result<Option<Arc<Snapshot>>, Error> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&install)
            .cloned())
    }
}

impl Stage {
    /// A clock for a backend that is being made.
    pub fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::starting_at(Timestamp::from_millis(
            1_800_000_000_000,
        )))
    }

    /// A stage over `backend`, which goes by `clock`.
    pub fn new<B: Backend + Maintenance>(backend: Arc<B>, clock: Arc<ManualClock>) -> Self {
        let maintenance = Arc::clone(&backend) as _;
        let client = LocalService::new(
            backend,
            CursorKey::new(Secret::new([42; 32]), None),
            LocalService::DEFAULT_TIMEOUT,
        );
        Self::over(Arc::new(client), maintenance, clock)
    }

    /// A stage over a service, wherever its backend is.
    pub fn over(
        client: Arc<dyn StorageClient>,
        maintenance: Arc<dyn Maintenance>,
        clock: Arc<ManualClock>,
    ) -> Self {
        let installs = Arc::<Installs>::default();
        let grants = Arc::clone(&installs) as Arc<dyn GrantSource>;
        Self {
            gate: Gate::new(grants, client),
            maintenance,
            installs,
            clock,
        }
    }

    /// The same stage with `client` before its gate, which is reached through it.
    #[must_use]
    pub fn behind(self, client: Arc<dyn StorageClient>) -> Self {
        Self {
            gate: Gate::before_another(self.grants(), client),
            ..self
        }
    }

    /// The gate, for a server to serve.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What the installs may do.
    pub fn grants(&self) -> Arc<dyn GrantSource> {
        Arc::clone(&self.installs) as _
    }

    /// The same database, to an operator.
    pub fn maintenance(&self) -> &dyn Maintenance {
        &*self.maintenance
    }

    /// Limits that no behaviour meets by accident.
    pub fn roomy() -> Limits {
        let plenty = RateLimit {
            per_second: 1_000_000,
            burst: 1_000_000,
        };
        Limits {
            rates: Rates::new(plenty, plenty, Rates::TENANT_FACTOR),
            ..Limits::default()
        }
    }

    /// A new install of a new tenant, with the namespaces `notes` and `cache`.
    pub fn install(&self) -> Install<'_> {
        self.install_with(TenantId::generate(), Self::roomy())
    }

    /// A new install of `tenant`, with the namespaces `notes` and `cache`.
    pub fn install_with(&self, tenant: TenantId, limits: Limits) -> Install<'_> {
        let install = Install {
            stage: self,
            tenant,
            caller: Caller {
                install: InstallId::generate(),
                actor: Actor::Invocation("suite".into()),
                request_id: "suite".into(),
                may_use_storage: true,
                operation_id: None,
            },
        };
        install.grant(
            Some(StorageGrant::all_of(["notes", "cache"].map(namespace))),
            limits,
            true,
        );
        install
    }
}

/// One install, and short words for its operations in the namespace `notes`.
#[derive(Debug, Clone)]
pub struct Install<'a> {
    stage: &'a Stage,
    /// Whose install it is.
    pub tenant: TenantId,
    /// Who calls.
    pub caller: Caller,
}

impl Install<'_> {
    /// Replaces what the install may do.
    pub fn grant(&self, grant: Option<StorageGrant>, limits: Limits, active: bool) {
        let extension = "com.example.suite".parse().expect("the name is valid");
        let snapshot = Snapshot {
            tenant: self.tenant,
            extension,
            grant,
            limits,
            active,
            switched_on: true,
        };
        let mut installs = self
            .stage
            .installs
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        installs.insert(self.caller.install, Arc::new(snapshot));
    }

    /// The gate, for calls that have no short word.
    pub fn gate(&self) -> &Gate {
        &self.stage.gate
    }

    /// Reads a record.
    pub async fn get(&self, key: &str) -> Result<Record, Error> {
        let request = GetRequest {
            namespace: notes(),
            key: key_of(key),
            if_revision: None,
        };
        self.gate().get(&self.caller, request).await
    }

    /// Reads a record if it has a revision.
    pub async fn get_if(&self, key: &str, revision: u64) -> Result<Record, Error> {
        let if_revision = Some(revision_of(revision));
        let request = GetRequest {
            namespace: notes(),
            key: key_of(key),
            if_revision,
        };
        self.gate().get(&self.caller, request).await
    }

    /// Reads several records.
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Record>>, Error> {
        let keys = keys.iter().map(|key| key_of(key)).collect();
        self.gate()
            .get_many(
                &self.caller,
                GetManyRequest {
                    namespace: notes(),
                    keys,
                },
            )
            .await
    }

    /// Writes a record under a guard.
    pub async fn put_if(&self, key: &str, value: &str, guard: Guard) -> Result<Written, Error> {
        self.put_item(item(key, value, guard)).await
    }

    /// Writes a record whatever is there.
    pub async fn put(&self, key: &str, value: &str) -> Result<Written, Error> {
        self.put_if(key, value, Guard::Any).await
    }

    /// Writes a record and asks for what was and is there.
    pub async fn put_item(&self, item: BulkItem) -> Result<Written, Error> {
        let request = PutRequest {
            namespace: notes(),
            item,
            return_previous: true,
            return_current: true,
        };
        self.gate().put(&self.caller, request).await
    }

    /// Writes several records.
    pub async fn bulk_put(&self, items: Vec<BulkItem>) -> Result<Vec<Written>, crate::BulkError> {
        self.gate()
            .bulk_put(
                &self.caller,
                BulkPutRequest {
                    namespace: notes(),
                    items,
                },
            )
            .await
    }

    /// Removes a record under a guard.
    pub async fn delete_if(&self, key: &str, guard: Guard) -> Result<bool, Error> {
        let request = DeleteRequest {
            namespace: notes(),
            key: key_of(key),
            guard,
        };
        self.gate().delete(&self.caller, request).await
    }

    /// Removes a record whatever is there.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        self.delete_if(key, Guard::Any).await
    }

    /// Lists a page.
    pub async fn list(&self, request: ListRequest) -> Result<Page, Error> {
        self.gate().list(&self.caller, request).await
    }

    /// What is used.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.gate().usage(&self.caller).await
    }
}

/// The namespace called `name`.
pub(super) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).expect("the namespace is valid")
}

pub(super) fn notes() -> Namespace {
    namespace("notes")
}

pub(super) fn key_of(key: &str) -> Key {
    Key::parse(key).expect("the key is valid")
}

pub(super) fn revision_of(number: u64) -> Revision {
    Revision::parse(number).expect("the revision is valid")
}

pub(super) fn item(key: &str, value: &str, guard: Guard) -> BulkItem {
    BulkItem {
        key: key_of(key),
        value: value.to_owned(),
        metadata: None,
        ttl_seconds: None,
        schema_version: None,
        guard,
    }
}

/// The first page of everything.
pub(super) fn everything() -> ListRequest {
    ListRequest {
        namespace: notes(),
        range: KeyRange::parse(None, None, None).expect("no bounds are valid"),
        reverse: false,
        limit: None,
        cursor: None,
        include_values: false,
        include_metadata: false,
    }
}
