//! One stream of what the storage and the registry wrote down.
//!
//! Both are read a page at a time, so that an export of any length needs the memory of two pages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_registry::{AuditFilter as RegistryFilter, MAX_PAGE_ITEMS, PageRequest, Registry};
use alga_storage::{AuditFilter as StorageFilter, AuditRecord, Maintenance as _, SqliteBackend};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::client::Lines;
use super::error::{AdminError, Missing};
use super::members::Members;
use super::operation::Parameters;
use super::{Admin, Author, Refused, schema};
use crate::config::TokenScope;

/// Records of the storage that are read at once.
const PAGE: u32 = 500;

/// Which records are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditQuery {
    /// Only what was done to this tenant or its installs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Only what was done to this install.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallId>,
    /// Only what happened at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what happened before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// Where a server answers it, as JSON lines.
    pub const PATH: &'static str = "/v1/audit";
    /// What the answer is.
    pub const SUMMARY: &'static str = "Tells who changed what as JSON lines, the oldest first: records, installs, limits and switches";
}

impl Parameters for AuditQuery {
    fn read(members: &mut Members) -> Option<Self> {
        let query = Self {
            tenant: members.text("tenant"),
            install: members.text("install"),
            since: members.text("since"),
            until: members.text("until"),
        };
        if let (Some(since), Some(until)) = (query.since, query.until)
            && until < since
        {
            members.mistake(
                "until",
                "it is before `since`, so nothing can be in between",
            );
        }
        Some(query)
    }

    fn schema() -> Value {
        schema::parameters(
            &[],
            &[
                ("tenant", schema::uuid()),
                ("install", schema::uuid()),
                ("since", schema::time()),
                ("until", schema::time()),
            ],
        )
    }
}

impl Admin {
    /// Everything that was done, as far as the author may know of it and up to now: an export beside
    /// a busy server must come to an end.
    pub async fn audit(&self, by: &Author, query: AuditQuery) -> Result<AuditExport, AdminError> {
        let AuditQuery {
            tenant,
            install,
            since,
            until,
        } = query;
        let until = until.unwrap_or_else(|| self.clock.now().plus(Duration::from_millis(1)));
        if let Some(install) = install {
            self.ensure_recorded(by, install).await?;
        }
        let storage = StorageAudit {
            storage: Arc::clone(&self.storage),
            filter: StorageFilter {
                tenant,
                install,
                since,
                until: Some(until),
            },
            after: None,
        };
        let registry = RegistryAudit {
            registry: Arc::clone(&self.registry),
            filter: RegistryFilter {
                tenant,
                install,
                since,
                until: Some(until),
                ..RegistryFilter::default()
            },
            page: Some(PageRequest::first(MAX_PAGE_ITEMS)),
        };
        Ok(AuditExport {
            storage: Ordered::new(storage),
            registry: Ordered::new(registry),
            scope: by.scope.clone(),
        })
    }

    /// Fails where there never was such an install, as far as the author may know.
    async fn ensure_recorded(&self, by: &Author, install: InstallId) -> Result<(), AdminError> {
        let missing = || AdminError::NotFound(Missing::RecordedInstall(install));
        if let Some(found) = self.registry.install(install).await? {
            let known = by.scope.allows(found.tenant, install);
            return if known { Ok(()) } else { Err(missing()) };
        }
        // The registry may have been replaced by an older one.
        let of_storage = StorageFilter {
            install: Some(install),
            ..StorageFilter::default()
        };
        let of_registry = RegistryFilter {
            install: Some(install),
            ..RegistryFilter::default()
        };
        let first = PageRequest::first(1);
        let in_storage = self.storage.audit(&of_storage, None, 1).await?;
        let in_registry = self.registry.audit(&of_registry, first).await?.items;
        let tenant = in_storage.first().map(|record| record.tenant_id);
        let tenant = tenant.or_else(|| in_registry.first().and_then(|record| record.tenant));
        match tenant {
            Some(tenant) if by.scope.allows(tenant, install) => Ok(()),
            _ => Err(missing()),
        }
    }
}

/// The audit, a line at a time.
#[derive(Debug)]
pub struct AuditExport {
    storage: Ordered<StorageAudit>,
    registry: Ordered<RegistryAudit>,
    scope: TokenScope,
}

impl AuditExport {
    /// The next record as JSON, without a line break; nothing at the end.
    pub async fn next_line(&mut self) -> Result<Option<String>, AdminError> {
        loop {
            // What the registry allows comes before what is done with it in the same instant.
            let next = match (self.registry.time().await?, self.storage.time().await?) {
                (Some(of_registry), Some(of_storage)) if of_storage < of_registry => {
                    self.storage.take()
                }
                (None, Some(_)) => self.storage.take(),
                _ => self.registry.take(),
            };
            match next {
                Some(line) if line.is_in(&self.scope) => return Ok(Some(line.json)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

/// The audit, from wherever it comes.
#[derive(Debug)]
pub enum AuditStream {
    /// From the databases.
    Here(Box<AuditExport>),
    /// From a server.
    There(Lines),
}

impl AuditStream {
    /// The next record as JSON, without a line break; nothing at the end.
    pub async fn next_line(&mut self) -> Result<Option<String>, Refused> {
        match self {
            Self::Here(export) => Ok(export.next_line().await?),
            Self::There(lines) => lines.next_line().await,
        }
    }
}

/// A record, ready to be printed.
#[derive(Debug)]
struct Line {
    time: Timestamp,
    tenant: Option<TenantId>,
    install: Option<InstallId>,
    json: String,
}

impl Line {
    /// Whether somebody with this scope may know of it. What was done to a whole tenant is for those
    /// who may know of all its installs.
    fn is_in(&self, scope: &TokenScope) -> bool {
        match (self.tenant, self.install) {
            (Some(tenant), Some(install)) => scope.allows(tenant, install),
            (Some(tenant), None) => {
                let tenants = scope.tenants.as_ref();
                scope.installs.is_none() && tenants.is_none_or(|of| of.contains(&tenant))
            }
            (None, _) => *scope == TokenScope::default(),
        }
    }
}

/// Records in the order of time.
trait Pages {
    /// The next records; none where there are no more.
    fn next_page(&mut self) -> impl Future<Output = Result<Vec<Line>, AdminError>> + Send;
}

/// Looks one record ahead.
#[derive(Debug)]
struct Ordered<P> {
    pages: P,
    page: VecDeque<Line>,
    ended: bool,
}

impl<P: Pages> Ordered<P> {
    const fn new(pages: P) -> Self {
        Self {
            pages,
            page: VecDeque::new(),
            ended: false,
        }
    }

    /// The time of the next record.
    async fn time(&mut self) -> Result<Option<Timestamp>, AdminError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.pages.next_page().await?.into();
            self.ended = self.page.is_empty();
        }
        Ok(self.page.front().map(|line| line.time))
    }

    /// The next record, whose time was asked for.
    fn take(&mut self) -> Option<Line> {
        self.page.pop_front()
    }
}

#[derive(Debug)]
struct StorageAudit {
    storage: Arc<SqliteBackend>,
    filter: StorageFilter,
    after: Option<Uuid>,
}

impl Pages for StorageAudit {
    async fn next_page(&mut self) -> Result<Vec<Line>, AdminError> {
        let found = self.storage.audit(&self.filter, self.after, PAGE).await?;
        self.after = found.last().map(|record| record.id).or(self.after);
        let lines = found.into_iter().map(|record| Line {
            time: record.time,
            tenant: Some(record.tenant_id),
            install: Some(record.install_id),
            json: json_of(&StorageLine {
                source: "storage",
                record,
            }),
        });
        Ok(lines.collect())
    }
}

#[derive(Debug)]
struct RegistryAudit {
    registry: Arc<dyn Registry>,
    filter: RegistryFilter,
    page: Option<PageRequest<u64>>,
}

impl Pages for RegistryAudit {
    async fn next_page(&mut self) -> Result<Vec<Line>, AdminError> {
        let Some(page) = self.page else {
            return Ok(Vec::new());
        };
        let found = self.registry.audit(&self.filter, page).await?;
        self.page = found
            .next
            .map(|next| PageRequest::after(next, MAX_PAGE_ITEMS));
        let lines = found.items.into_iter().map(|record| Line {
            time: record.at,
            tenant: record.tenant,
            install: record.install,
            json: json_of(&RegistryLine::from(record)),
        });
        Ok(lines.collect())
    }
}

fn json_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("texts, numbers and ids have a form in JSON")
}

#[derive(Serialize)]
struct StorageLine {
    source: &'static str,
    #[serde(flatten)]
    record: AuditRecord,
}

/// A record of the registry, with the names that those of the storage have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RegistryLine {
    source: &'static str,
    seq: u64,
    time: Timestamp,
    tenant_id: Option<TenantId>,
    install_id: Option<InstallId>,
    extension: Option<ExtensionName>,
    operation: String,
    details: Value,
    actor: String,
    request_id: Option<String>,
}

impl From<alga_registry::AuditRecord> for RegistryLine {
    fn from(record: alga_registry::AuditRecord) -> Self {
        Self {
            source: "registry",
            seq: record.seq,
            time: record.at,
            tenant_id: record.tenant,
            install_id: record.install,
            extension: record.extension,
            operation: record.action,
            details: record.details,
            actor: record.actor,
            request_id: record.request_id,
        }
    }
}
