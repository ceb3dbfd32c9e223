//! The storage service behind the gate.

mod digest;
mod local;
mod remote;
mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId, TenantId};
use async_trait::async_trait;

use crate::contract::{
    DeleteRequest, GetManyRequest, GetRequest, Guard, JsonText, Key, Limits, ListRequest,
    Namespace, OperationId, Page, Record, RequestLimits, Usage, Written,
};
use crate::error::{BulkError, Error};
use crate::gate::Actor;

pub(crate) use digest::WriteDigest;
pub use local::LocalService;
pub use remote::{InvalidRemote, RemoteOptions, RemoteService};
pub use trust::{InvalidAuthorities, http_client_builder};

/// The storage service: in this process, or in another one.
///
/// Only the gate calls it, so every request was allowed and is within its own limits. What depends
/// on stored data (guards, quotas) is decided here, in the transaction that stores.
#[async_trait]
pub trait StorageClient: fmt::Debug + Send + Sync + 'static {
    /// Reads one record.
    async fn get(&self, scope: &Scope, request: GetRequest) -> Result<Record, Error>;

    /// Reads several records at one moment; answers in the order asked.
    async fn get_many(
        &self,
        scope: &Scope,
        request: GetManyRequest,
    ) -> Result<Vec<Option<Record>>, Error>;

    /// Writes all items or none; answers in the order given.
    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError>;

    /// Removes one record; true where there was one.
    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error>;

    /// Lists one page.
    async fn list(&self, scope: &Scope, list: CheckedList) -> Result<Page, Error>;

    /// What the install holds and may hold.
    async fn usage(&self, scope: &Scope) -> Result<Usage, Error>;
}

/// Whose data an operation touches, within which limits, and on whose behalf.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Whose data it is.
    pub tenant: TenantId,
    /// Which install of that tenant.
    pub install: InstallId,
    /// The installed extension, for the audit.
    pub extension: ExtensionName,
    /// What the install may use.
    pub limits: Limits,
    /// Whom the audit names.
    pub actor: Actor,
    /// The id that joins logs and audit.
    pub request_id: Arc<str>,
    /// What the operation is known by where it is a write that may be repeated.
    pub operation_id: Option<OperationId>,
}

impl Scope {
    /// What one request may hold.
    pub const fn request_limits(&self) -> &RequestLimits {
        &self.limits.request
    }
}

/// Records to write, all or none. Their keys are distinct.
#[derive(Debug, Clone)]
pub struct Put {
    /// Where.
    pub namespace: Namespace,
    /// What.
    pub items: Vec<CheckedItem>,
    /// Answer with the records that were replaced.
    pub return_previous: bool,
    /// Where a guard fails, answer with the record that is there.
    pub return_current: bool,
}

/// A record to write, within the limits of a request.
#[derive(Debug, Clone)]
pub struct CheckedItem {
    /// Which.
    pub key: Key,
    /// Its value.
    pub value: JsonText,
    /// A JSON object.
    pub metadata: JsonText,
    /// How long it lives; for ever when absent.
    pub ttl: Option<Duration>,
    /// The version of the schema to check against; the active one when absent.
    pub schema_version: Option<u32>,
    /// What must be true of the stored record.
    pub guard: Guard,
}

impl CheckedItem {
    /// What the record counts against quotas, in bytes.
    pub fn size(&self) -> u64 {
        self.value.size() + self.metadata.size()
    }
}

/// A page to list.
#[derive(Debug, Clone)]
pub struct CheckedList {
    /// Which records.
    pub request: ListRequest,
    /// How many at most: the request's own limit or the default.
    pub limit: u32,
}
