//! The storage of extensions: namespaced JSON records with revisions and expiry.
//!
//! A request passes the [`Gate`], which knows what an install may do, then a [`StorageClient`],
//! which knows where the data is, then a [`Backend`], which keeps the promises:
//!
//! ```
//! use std::sync::Arc;
//! # use alga_model::{InstallId, Secret, SystemClock, TenantId};
//! use alga_storage::{
//!     Actor, BulkItem, Caller, CursorKey, Gate, GrantSource, Guard, Key, Limits, LocalService, Namespace,
//!     PutRequest, Snapshot, SqliteBackend, StorageGrant,
//! };
//!
//! # #[derive(Debug)] struct OneInstall(Arc<Snapshot>);
//! # #[async_trait::async_trait] impl GrantSource for OneInstall {
//! #     async fn snapshot(&self, _: InstallId) -> Result<Option<Arc<Snapshot>>, alga_storage::Error> { Ok(Some(Arc::clone(&self.0))) }
//! # }
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let notes = Namespace::parse("notes")?;
//! let grants = OneInstall(Arc::new(Snapshot {
//!     tenant: TenantId::generate(),
//!     extension: "com.example.notes".parse()?,
//!     grant: Some(StorageGrant::all_of([notes.clone()])),
//!     limits: Limits::default(),
//!     active: true,
//!     switched_on: true,
//! }));
//! let backend = SqliteBackend::open(alga_sqlite::Options::memory(), Arc::new(SystemClock::default())).await?;
//! let cursor_key = CursorKey::new(Secret::new([7; 32]), None);
//! let service = LocalService::new(Arc::new(backend), cursor_key, LocalService::DEFAULT_TIMEOUT);
//! let gate = Gate::new(Arc::new(grants), Arc::new(service));
//!
//! let caller = Caller {
//!     install: InstallId::generate(),
//!     actor: Actor::Admin("example".into()),
//!     request_id: "1".into(),
//!     may_use_storage: true,
//!     operation_id: None,
//! };
//! let item = BulkItem {
//!     key: Key::parse("welcome")?,
//!     value: r#"{ "title": "Hello" }"#.to_owned(),
//!     metadata: None,
//!     ttl_seconds: None,
//!     schema_version: None,
//!     guard: Guard::Absent,
//! };
//! let put = PutRequest { namespace: notes, item, return_previous: false, return_current: false };
//! let written = gate.put(&caller, put).await?;
//! assert_eq!(written.revision.get(), 1);
//! # Ok(()) }
//! ```
//!
//! The crate knows neither Wasmtime nor an HTTP framework, and no registry: who asks it, and where
//! grants come from, is up to others. SQL is in the folders `sqlite` and
//! `postgres` alone.

mod backend;
mod contract;
mod distribution;
mod error;
mod gate;
mod grant;
mod maintenance;
mod measured;
mod postgres;
mod rate;
mod refusals;
mod service;
mod sqlite;
#[cfg(feature = "suite")]
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "these are tests, exported so that every backend runs the same ones"
)]
pub mod suite;
mod told;
mod wire;

pub use backend::{Backend, ListQuery, ListedPage, StorageDatabase};
pub use contract::{
    BulkItem, BulkPutRequest, CursorKey, DeleteRequest, GetManyRequest, GetRequest, Guard,
    InvalidLimits, JsonError, JsonErrorKind, JsonText, Key, KeyRange, LimitOverrides, Limits,
    LimitsOf, ListRequest, Listed, Namespace, NamespaceUsage, OperationId, Page, PutRequest,
    QuotaName, Quotas, RateLimit, Rates, Record, RequestLimits, Revision, Usage, Written,
};
pub use distribution::{Distribution, NodeShare, ShardShare, Share, Skew, TableSize, TenantShare};
pub use error::{
    BulkError, Cause, Conflict, Error, ErrorCode, FailedItem, Limit, Quota, Violation,
};
pub use gate::{Actor, Caller, Gate};
pub use grant::{Access, CAPABILITY, GrantSource, InvalidGrant, Snapshot, StorageGrant};
pub use maintenance::{AuditFilter, AuditRecord, Counter, Drift, Holding, Maintenance, Removed};
pub use postgres::PostgresBackend;
pub use service::{
    CheckedItem, CheckedList, InvalidAuthorities, InvalidRemote, LocalService, Put, RemoteOptions,
    RemoteService, Scope, StorageClient, http_client_builder,
};
pub use sqlite::SqliteBackend;
pub use wire::{
    Answer, Asked, DeletedBody, ErrorBody, ErrorDetails, ErrorMembers, ExpiredBody,
    NamespaceUsageBody, QuotasBody, RecordBody, Request, UsageBody, WrittenBody,
};
