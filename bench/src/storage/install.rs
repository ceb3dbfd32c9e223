//! One install that may do anything in its namespaces, as a guest's calls meet it.

use std::sync::Arc;

use alga_model::{InstallId, Secret, TenantId};
use alga_runner::http::StorageApi;
use alga_storage::{
    Actor, Backend, BulkItem, BulkPutRequest, Caller, CursorKey, Error, Gate, GetRequest,
    GrantSource, Guard, Key, KeyRange, Limits, ListRequest, LocalService, Namespace, Page,
    PutRequest, Quotas, RateLimit, Rates, Record, RequestLimits, Snapshot, StorageClient,
    StorageGrant, Written,
};
use async_trait::async_trait;

/// An install, behind a gate of its own.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    gate: Gate,
    grants: Arc<Fixed>,
    caller: Caller,
    tenant: TenantId,
}

/// What the install's grants were last read as, as the runner's cache has them.
#[derive(Debug)]
struct Fixed(Arc<Snapshot>);

#[async_trait]
impl GrantSource for Fixed {
    async fn snapshot(&self, _: InstallId) -> Result<Option<Arc<Snapshot>>, Error> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

impl Install {
    /// A new install of `tenant`, whose records `backend` keeps. It may use `namespaces`.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        tenant: TenantId,
        namespaces: impl IntoIterator<Item = Namespace>,
    ) -> anyhow::Result<Self> {
        let grants = Arc::new(Fixed(Arc::new(Snapshot {
            tenant,
            extension: "com.example.bench".parse()?,
            grant: Some(StorageGrant::all_of(namespaces)),
            limits: roomy(),
            active: true,
            switched_on: true,
        })));
        let service = LocalService::new(
            backend,
            CursorKey::new(Secret::new([42; 32]), None),
            LocalService::DEFAULT_TIMEOUT,
        );
        Ok(Self {
            gate: Gate::new(Arc::clone(&grants) as _, Arc::new(service)),
            grants,
            caller: Caller {
                install: InstallId::generate(),
                actor: Actor::Invocation("019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e5f".into()),
                request_id: "019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e60".into(),
                may_use_storage: true,
                operation_id: None,
            },
            tenant,
        })
    }

    /// The same install, for a server to serve.
    pub(crate) fn served(&self) -> StorageApi {
        StorageApi::new(self.gate.clone(), Arc::clone(&self.grants) as _)
    }

    /// The same install, asked through `client`.
    pub(crate) fn behind(&self, client: Arc<dyn StorageClient>) -> Self {
        Self {
            gate: Gate::before_another(Arc::clone(&self.grants) as _, client),
            ..self.clone()
        }
    }

    /// Whose install it is.
    pub(crate) const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Which install it is.
    pub(crate) const fn id(&self) -> InstallId {
        self.caller.install
    }

    pub(crate) async fn get(&self, namespace: &Namespace, key: Key) -> Result<Record, Error> {
        let request = GetRequest {
            namespace: namespace.clone(),
            key,
            if_revision: None,
        };
        self.gate.get(&self.caller, request).await
    }

    pub(crate) async fn put(
        &self,
        namespace: &Namespace,
        key: Key,
        value: String,
    ) -> Result<Written, Error> {
        let request = PutRequest {
            namespace: namespace.clone(),
            item: item(key, value),
            return_previous: false,
            return_current: false,
        };
        self.gate.put(&self.caller, request).await
    }

    pub(crate) async fn bulk_put(
        &self,
        namespace: &Namespace,
        records: Vec<(Key, String)>,
    ) -> Result<Vec<Written>, Error> {
        let items = records.into_iter().map(|(key, value)| item(key, value));
        let request = BulkPutRequest {
            namespace: namespace.clone(),
            items: items.collect(),
        };
        let written = self.gate.bulk_put(&self.caller, request).await;
        written.map_err(|failed| failed.error)
    }

    /// A page with values, the first or the one a cursor names.
    pub(crate) async fn list(
        &self,
        namespace: &Namespace,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<Page, Error> {
        let request = ListRequest {
            namespace: namespace.clone(),
            range: KeyRange::parse(None, None, None)?,
            reverse: false,
            limit: Some(limit),
            cursor,
            include_values: true,
            include_metadata: false,
        };
        self.gate.list(&self.caller, request).await
    }
}

/// Limits that no benchmark meets.
fn roomy() -> Limits {
    let plenty = RateLimit {
        per_second: 100_000_000,
        burst: 100_000_000,
    };
    Limits {
        request: RequestLimits {
            bulk_items: 100,
            bulk_bytes: 1 << 20,
            ..RequestLimits::default()
        },
        quotas: Quotas {
            namespaces: 1_000,
            keys_per_namespace: 10_000_000,
            bytes_per_install: 1 << 40,
            bytes_per_tenant: 1 << 40,
            ..Quotas::default()
        },
        rates: Rates::new(plenty, plenty, Rates::TENANT_FACTOR),
    }
}

fn item(key: Key, value: String) -> BulkItem {
    BulkItem {
        key,
        value,
        metadata: None,
        ttl_seconds: None,
        schema_version: None,
        guard: Guard::Any,
    }
}
