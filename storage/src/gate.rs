//! The gate: every check that comes before a database, in the order of the contract.
//!
//! Names were checked when the request was parsed. Then come the switches, capability, namespace,
//! access, rate, and last the request's own limits and JSON. A caller learns nothing about limits or data it may
//! not use, and nothing is counted against a rate that was not allowed in the first place.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_model::{InstallId, Outages, TenantId};
use foldhash::fast::RandomState;

use crate::contract::{
    BulkItem, BulkPutRequest, DeleteRequest, GetManyRequest, GetRequest, Guard, JsonText,
    ListRequest, Listed, Namespace, OperationId, Page, PutRequest, Record, RequestLimits, Usage,
    Written,
};
use crate::error::{BulkError, Error, FailedItem, Limit, Violation};
use crate::grant::{Access, GrantSource, Snapshot};
use crate::measured::{Measured, Operation, duration};
use crate::rate::RateLimiter;
use crate::refusals::Refusals;
use crate::service::{CheckedItem, CheckedList, Put, Scope, StorageClient};

/// Who calls, and for which install.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The install whose data is meant.
    pub install: InstallId,
    /// Whom the audit names.
    pub actor: Actor,
    /// The id that joins logs, audit and the caller's own records.
    pub request_id: Arc<str>,
    /// False where this call was narrowed to other capabilities than storage.
    pub may_use_storage: bool,
    /// What the call is known by where it is a write that may be repeated.
    pub operation_id: Option<OperationId>,
}

/// Whom the audit names as the cause of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A guest, by the id of its invocation.
    Invocation(Arc<str>),
    /// An administrator or a command, by name.
    Admin(Arc<str>),
    /// A service that acts for an install, by the name of its token and perhaps of whom it acts for.
    Service(Arc<str>),
}

impl Actor {
    const INVOCATION: &'static str = "invocation:";

    /// The guest that a text names, written as this writes it.
    pub fn of_invocation(text: &str) -> Option<Self> {
        let id = text.strip_prefix(Self::INVOCATION)?;
        Some(Self::Invocation(id.into()))
    }

    /// A service, and for whom it says that it acts.
    pub fn of_service(service: &str, acts_for: Option<&str>) -> Self {
        Self::Service(match acts_for {
            Some(whom) => format!("{service}/{whom}").into(),
            None => service.into(),
        })
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invocation(id) => write!(f, "{}{id}", Self::INVOCATION),
            Self::Admin(name) => write!(f, "admin:{name}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}

/// Decides whether an operation may happen, and has it done.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    grants: Arc<dyn GrantSource>,
    client: Arc<dyn StorageClient>,
    /// None where whoever serves the client takes the rates.
    rate: Option<RateLimiter>,
    refusals: Refusals,
    outages: Outages,
    measured: Measured,
}

impl Gate {
    /// A gate before `client` that asks `grants` before every operation.
    pub fn new(grants: Arc<dyn GrantSource>, client: Arc<dyn StorageClient>) -> Self {
        Self::with(grants, client, Some(RateLimiter::default()))
    }

    /// A gate before a `client` whose service has a gate of its own: rates are taken there, once.
    pub fn before_another(grants: Arc<dyn GrantSource>, client: Arc<dyn StorageClient>) -> Self {
        Self::with(grants, client, None)
    }

    fn with(
        grants: Arc<dyn GrantSource>,
        client: Arc<dyn StorageClient>,
        rate: Option<RateLimiter>,
    ) -> Self {
        Self(Arc::new(Parts {
            grants,
            client,
            rate,
            refusals: Refusals::default(),
            outages: Outages::default(),
            measured: Measured::default(),
        }))
    }

    /// What the doors of this gate have said of a storage that fails.
    pub fn outages(&self) -> &Outages {
        &self.0.outages
    }

    /// Reads one record.
    pub async fn get(&self, caller: &Caller, request: GetRequest) -> Result<Record, Error> {
        self.observed(caller, Operation::Get, async {
            let scope = self
                .admit(caller, &request.namespace, Access::Read, 1)
                .await?;
            let found = self.0.client.get(&scope, request).await?;
            self.0.measured.read.increment(found.size());
            Ok(found)
        })
        .await
    }

    /// Reads several records of one namespace; answers in the order asked.
    pub async fn get_many(
        &self,
        caller: &Caller,
        request: GetManyRequest,
    ) -> Result<Vec<Option<Record>>, Error> {
        self.observed(caller, Operation::GetMany, async {
            let tokens = request.keys.len();
            let scope = self
                .admit(caller, &request.namespace, Access::Read, tokens)
                .await?;
            ensure_at_most("keys", scope.request_limits().keys, request.keys.len())?;
            if request.keys.is_empty() {
                return Err(Violation::argument("keys", "at least one key is needed"));
            }
            let found = self.0.client.get_many(&scope, request).await?;
            self.0
                .measured
                .read
                .increment(found.iter().flatten().map(Record::size).sum());
            Ok(found)
        })
        .await
    }

    /// Writes one record.
    pub async fn put(&self, caller: &Caller, request: PutRequest) -> Result<Written, Error> {
        self.observed(caller, Operation::Put, async {
            let scope = self
                .admit(caller, &request.namespace, Access::Write, 1)
                .await?;
            let put = Put {
                items: vec![check_item(request.item, scope.request_limits())?],
                namespace: request.namespace,
                return_previous: request.return_previous,
                return_current: request.return_current,
            };
            let written = self.store(&scope, put).await;
            written
                .map_err(|failed| failed.error)?
                .into_iter()
                .next()
                .ok_or_else(|| Error::Internal("a put was answered with nothing".into()))
        })
        .await
    }

    /// Writes several records of one namespace, all or none.
    pub async fn bulk_put(
        &self,
        caller: &Caller,
        request: BulkPutRequest,
    ) -> Result<Vec<Written>, BulkError> {
        self.observed(caller, Operation::BulkPut, async {
            let tokens = request.items.len();
            let scope = self
                .admit(caller, &request.namespace, Access::Write, tokens)
                .await?;
            let put = Put {
                items: check_items(request.items, scope.request_limits())?,
                namespace: request.namespace,
                return_previous: false,
                return_current: false,
            };
            self.store(&scope, put).await
        })
        .await
    }

    /// Removes one record; true where there was one.
    pub async fn delete(&self, caller: &Caller, request: DeleteRequest) -> Result<bool, Error> {
        self.observed(caller, Operation::Delete, async {
            let scope = self
                .admit(caller, &request.namespace, Access::Write, 1)
                .await?;
            if request.guard == Guard::Absent {
                return Err(Violation::argument(
                    "ifRevision",
                    "a delete can't ask for the absence of the record",
                ));
            }
            self.0.client.delete(&scope, request).await
        })
        .await
    }

    /// Lists records in key order, a page at a time.
    pub async fn list(&self, caller: &Caller, request: ListRequest) -> Result<Page, Error> {
        self.observed(caller, Operation::List, async {
            let scope = self
                .admit(caller, &request.namespace, Access::Read, 1)
                .await?;
            let limit = page_limit(request.limit, scope.request_limits())?;
            let list = CheckedList { request, limit };
            let page = self.0.client.list(&scope, list).await?;
            self.0
                .measured
                .read
                .increment(page.items.iter().map(Listed::size).sum());
            Ok(page)
        })
        .await
    }

    /// What the install holds and may hold.
    pub async fn usage(&self, caller: &Caller) -> Result<Usage, Error> {
        self.observed(caller, Operation::Usage, async {
            let (scope, install) = self.active(caller).await?;
            install.grant.as_ref().ok_or(Error::CapabilityDenied)?;
            self.take(&scope, Access::Read, 1)?;
            self.0.client.usage(&scope).await
        })
        .await
    }

    async fn store(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        let bytes = put.items.iter().map(CheckedItem::size).sum();
        let written = self.0.client.put(scope, put).await?;
        self.0.measured.written.increment(bytes);
        Ok(written)
    }

    /// The checks that don't look into the request: capability, namespace, access, rate.
    async fn admit(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        access: Access,
        tokens: usize,
    ) -> Result<Scope, Error> {
        let (scope, install) = self.active(caller).await?;
        let grant = install.grant.as_ref().ok_or(Error::CapabilityDenied)?;
        grant.ensure(namespace, access)?;
        self.take(&scope, access, tokens)?;
        Ok(scope)
    }

    /// The install, if it runs and this call may use storage at all.
    async fn active(&self, caller: &Caller) -> Result<(Scope, Arc<Snapshot>), Error> {
        let install = self
            .0
            .grants
            .snapshot(caller.install)
            .await?
            .ok_or(Error::CapabilityDenied)?;
        if !install.switched_on || !install.active || !caller.may_use_storage {
            return Err(Error::CapabilityDenied);
        }
        let scope = Scope {
            tenant: install.tenant,
            install: caller.install,
            extension: install.extension.clone(),
            limits: install.limits,
            actor: caller.actor.clone(),
            request_id: Arc::clone(&caller.request_id),
            operation_id: caller.operation_id,
        };
        Ok((scope, install))
    }

    fn take(&self, scope: &Scope, access: Access, tokens: usize) -> Result<(), Error> {
        let Some(rate) = &self.0.rate else {
            return Ok(());
        };
        let ids: (TenantId, InstallId) = (scope.tenant, scope.install);
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        rate.take(ids, access, tokens, &scope.limits.rates)
            .map_err(|retry_after| Error::RateLimited { retry_after })
    }

    /// Counts and times an operation by what came of it.
    async fn observed<T, E: AsRef<Error>>(
        &self,
        caller: &Caller,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let answer = work.await;
        match &answer {
            Ok(_) => self.0.measured.done(operation, start.elapsed()),
            Err(error) => {
                let error = error.as_ref();
                self.0.refusals.note(caller, operation.as_str(), error);
                duration(operation, error.code().as_str()).record(start.elapsed());
            }
        }
        answer
    }
}

fn check_items(
    items: Vec<BulkItem>,
    limits: &RequestLimits,
) -> Result<Vec<CheckedItem>, BulkError> {
    ensure_at_most("items", limits.bulk_items, items.len())?;
    if items.is_empty() {
        return Err(Violation::argument("items", "at least one item is needed").into());
    }
    let mut keys = HashSet::with_capacity_and_hasher(items.len(), RandomState::default());
    let mut bytes = 0;
    let mut checked = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let key = item.key.clone();
        let failed = |error| BulkError {
            item: Some(FailedItem {
                index,
                key: key.as_str().to_owned(),
            }),
            error,
        };
        if !keys.insert(key.clone()) {
            return Err(failed(Violation::argument(
                "key",
                "the key occurs twice in this request",
            )));
        }
        let item = check_item(item, limits).map_err(failed)?;
        bytes += item.size();
        checked.push(item);
    }
    if bytes > limits.bulk_bytes {
        return Err(Error::LimitExceeded(Limit {
            name: "batch-bytes",
            limit: limits.bulk_bytes,
            actual: bytes,
        })
        .into());
    }
    Ok(checked)
}

fn check_item(item: BulkItem, limits: &RequestLimits) -> Result<CheckedItem, Error> {
    let ttl = item
        .ttl_seconds
        .map(|seconds| check_ttl(seconds, limits))
        .transpose()?;
    let value = check_json("value", "value-bytes", limits.value_bytes, &item.value)?;
    let metadata = match &item.metadata {
        None => JsonText::empty_object(),
        Some(text) => check_json("metadata", "metadata-bytes", limits.metadata_bytes, text)?,
    };
    if !metadata.is_object() {
        return Err(Violation::argument("metadata", "metadata is a JSON object"));
    }
    Ok(CheckedItem {
        key: item.key,
        value,
        metadata,
        ttl,
        schema_version: item.schema_version,
        guard: item.guard,
    })
}

/// How much longer than its limit a text may be before white space is removed. More is not even
/// looked at: a guest must not make the host read megabytes that can't be stored.
const WHITE_SPACE_FACTOR: u64 = 4;

fn check_json(
    argument: &str,
    name: &'static str,
    limit: u64,
    text: &str,
) -> Result<JsonText, Error> {
    let ensure_at_most = |limit: u64, actual: u64, allowed: u64| {
        if actual > allowed {
            Err(Error::LimitExceeded(Limit {
                name,
                limit,
                actual,
            }))
        } else {
            Ok(())
        }
    };
    ensure_at_most(
        limit,
        text.len() as u64,
        limit.saturating_mul(WHITE_SPACE_FACTOR),
    )?;
    let json = JsonText::parse(text).map_err(|error| Violation::json(argument, error))?;
    ensure_at_most(limit, json.size(), limit)?;
    Ok(json)
}

fn check_ttl(seconds: u64, limits: &RequestLimits) -> Result<Duration, Error> {
    let (shortest, longest) = limits.ttl;
    let ttl = Duration::from_secs(seconds);
    if (shortest..=longest).contains(&ttl) {
        return Ok(ttl);
    }
    let broken = if ttl < shortest { shortest } else { longest };
    Err(Error::LimitExceeded(Limit {
        name: "ttl-seconds",
        limit: broken.as_secs(),
        actual: seconds,
    }))
}

fn page_limit(asked: Option<u32>, limits: &RequestLimits) -> Result<u32, Error> {
    let (most, default) = limits.page_items;
    match asked {
        None => Ok(default),
        Some(0) => Err(Violation::argument(
            "limit",
            "a page has at least one record",
        )),
        Some(limit) if limit > most => Err(Error::LimitExceeded(Limit {
            name: "limit",
            limit: most.into(),
            actual: limit.into(),
        })),
        Some(limit) => Ok(limit),
    }
}

fn ensure_at_most(name: &'static str, limit: usize, actual: usize) -> Result<(), Error> {
    if actual > limit {
        return Err(Error::LimitExceeded(Limit {
            name,
            limit: limit as u64,
            actual: actual as u64,
        }));
    }
    Ok(())
}

impl AsRef<Error> for Error {
    fn as_ref(&self) -> &Error {
        self
    }
}

impl AsRef<Error> for BulkError {
    fn as_ref(&self) -> &Error {
        &self.error
    }
}
