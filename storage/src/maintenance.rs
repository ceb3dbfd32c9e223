//! What an operator asks of a database, beside what guests ask of it: to sweep, to recount, to tell
//! what happened.
//!
//! None of it passes the gate: whoever calls may see every tenant.

use std::fmt;

use alga_model::{InstallId, TenantId, Timestamp};
use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;

/// A database that can be looked after while it is used.
///
/// Each method writes in one transaction, and all but `verify_usage` with `repair` are short enough not to be
/// noticed by the requests beside them. Whoever wants more calls again.
#[async_trait]
pub trait Maintenance: fmt::Debug + Send + Sync + 'static {
    /// Removes at most `limit` expired records, of whichever tenants have any. Each namespace they
    /// are removed from gets one audit record.
    async fn remove_expired(&self, limit: u32) -> Result<Removed, Error>;

    /// Removes audit records from before `before`, the oldest first: those of at most `limit` commits
    /// to a namespace.
    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<Removed, Error>;

    /// Forgets answers to writes that are known by an id, whose time is over: at most `limit` of them, the
    /// oldest first.
    async fn remove_answers(&self, limit: u32) -> Result<Removed, Error>;

    /// Audit records in the order of time: those of at most `limit` commits to a namespace, after the
    /// one with the id `after`.
    async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, Error>;

    /// At most `limit` tenants that have ever stored anything, in the order of their ids, those
    /// after `after`.
    async fn tenants(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<TenantId>, Error>;

    /// What the installs of a tenant hold.
    async fn holdings(&self, tenant: TenantId) -> Result<Vec<Holding>, Error>;

    /// Counts the records of a tenant and tells where a counter says otherwise. With `repair`, the
    /// counters are put right in the same transaction; nobody else writes meanwhile.
    async fn verify_usage(&self, tenant: TenantId, repair: bool) -> Result<Vec<Drift>, Error>;
}

/// What was removed: expired records, audit records, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many.
    pub records: u64,
    /// Values and metadata of expired records; 0 of anything else.
    pub bytes: u64,
    /// Whether there are more.
    pub more: bool,
}

impl Removed {
    /// Nothing, and there is no more.
    pub const NOTHING: Self = Self {
        records: 0,
        bytes: 0,
        more: false,
    };
}

/// Which audit records to read. What is `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only those of this tenant.
    pub tenant: Option<TenantId>,
    /// Only those of this install.
    pub install: Option<InstallId>,
    /// Only what happened at this time or later.
    pub since: Option<Timestamp>,
    /// Only what happened before this time.
    pub until: Option<Timestamp>,
}

/// One change of one record, or the removal of expired ones. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Identifies what one commit did to a namespace, and orders commits by time: a UUID of version 7.
    pub id: Uuid,
    /// Which change of them it is, from 0.
    pub item: u32,
    /// When it happened.
    pub time: Timestamp,
    /// Whose record it was.
    pub tenant_id: TenantId,
    /// Of which install.
    pub install_id: InstallId,
    /// Of which extension; none for a removal.
    pub extension: Option<String>,
    /// In which namespace.
    pub namespace: String,
    /// Which record; none for a removal.
    pub key: Option<String>,
    /// `put`, `delete` or `expire`.
    pub operation: String,
    /// The record's revision before; none where there was no live one.
    pub revision_before: Option<u64>,
    /// The record's revision afterwards; none where there is none.
    pub revision_after: Option<u64>,
    /// The version of the schema that the value was checked against.
    pub schema_version: Option<u32>,
    /// How many records it stands for; more than one only for a removal.
    pub records: u64,
    /// Bytes of value and metadata that were stored, or removed.
    pub bytes: u64,
    /// Who caused it.
    pub actor: String,
    /// The request it was caused by; none for a sweep.
    pub request_id: Option<String>,
}

/// What an install holds, expired records that are not removed yet included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The install.
    pub install: InstallId,
    /// Bytes of values and metadata.
    pub bytes: u64,
    /// Keys of its fullest namespace.
    pub keys_of_fullest: u64,
    /// Namespaces that hold records.
    pub namespaces: u64,
}

/// A counter that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The install; none for the totals of the tenant.
    pub install_id: Option<InstallId>,
    /// The namespace; none for totals.
    pub namespace: Option<String>,
    /// Which counter.
    pub counter: Counter,
    /// What it says; none where it says nothing.
    pub stored: Option<i64>,
    /// What it should say.
    pub counted: Option<i64>,
}

/// What is counted of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Counter {
    /// Records.
    Keys,
    /// Their values and metadata.
    Bytes,
    /// Namespaces that hold records.
    Namespaces,
    /// Bytes that namespaces may use without asking, as far as a database hands them out.
    Reserved,
    /// Before which no record expires, in milliseconds since 1970. Earlier than the first expiry is
    /// right as well, and no drift.
    NextExpiry,
    /// Records whose stored size is not that of their value and metadata.
    MissizedRecords,
    /// Records whose value or metadata is not JSON. What it was can't be known, so this stays as it is.
    MalformedRecords,
}

impl Counter {
    /// Whether repairing puts it right.
    pub const fn is_repairable(self) -> bool {
        !matches!(self, Self::MalformedRecords)
    }
}
