//! One stream of what the storage and the registry wrote down.
//!
//! Both are read a page at a time, so that an export of any length needs the memory of a few pages, and
//! ends with the page it is at where nobody listens any more. What the author may not know of isn't
//! read at all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_registry::{AuditFilter as RegistryFilter, MAX_PAGE_ITEMS, PageRequest, Registry};
use alga_storage::{AuditFilter as StorageFilter, AuditRecord, StorageDatabase};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::client::Lines;
use super::error::{AdminError, Missing};
use super::members::Members;
use super::operation::Parameters;
use super::{Admin, Author, Refused, schema};

/// Records of the storage that are read at once, of all that an export is about.
const PAGE: u32 = 500;
/// The least that is read at once of each, however many there are.
const LEAST_PAGE: u32 = 10;

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
        let subjects = self.subjects(by, tenant, install).await?;
        let count = u32::try_from(subjects.len()).unwrap_or(u32::MAX);
        let kept_here = self.storage.here()?;
        let storage = subjects.iter().map(|subject| {
            Records::Storage(StorageAudit {
                storage: Arc::clone(kept_here),
                filter: StorageFilter {
                    tenant: subject.tenant,
                    install: subject.install,
                    since,
                    until: Some(until),
                },
                after: None,
                limit: share(PAGE, count),
            })
        });
        let registry = subjects.iter().map(|subject| {
            Records::Registry(RegistryAudit {
                registry: Arc::clone(&self.registry),
                filter: RegistryFilter {
                    tenant: subject.tenant,
                    install: subject.install,
                    since,
                    until: Some(until),
                    ..RegistryFilter::default()
                },
                page: Some(PageRequest::first(share(MAX_PAGE_ITEMS, count))),
            })
        });
        // What the registry allows comes before what is done with it in the same instant.
        Ok(AuditExport::of(registry.chain(storage)))
    }

    /// Whose records an export reads: those that are asked for, as far as the author may know of them.
    /// What was done to a whole tenant is for those who may know of all its installs, and what was done
    /// to the whole deployment for those who may know of all tenants.
    async fn subjects(
        &self,
        by: &Author,
        tenant: Option<TenantId>,
        install: Option<InstallId>,
    ) -> Result<Vec<Subject>, AdminError> {
        let is_asked_for = |of: &TenantId| tenant.is_none_or(|tenant| tenant == *of);
        if let Some(install) = install {
            let missing = AdminError::NotFound(Missing::RecordedInstall(install));
            let of = self.tenant_of(by, install).await?.ok_or(missing)?;
            let subject = is_asked_for(&of).then_some(Subject::install(of, install));
            return Ok(subject.into_iter().collect());
        }
        if let Some(installs) = &by.scope.installs {
            let mut subjects = Vec::new();
            for install in installs.iter().copied() {
                let of = self.registered_tenant_of(by, install).await?;
                let of = of.filter(is_asked_for);
                subjects.extend(of.map(|of| Subject::install(of, install)));
            }
            return Ok(subjects);
        }
        Ok(match &by.scope.tenants {
            Some(tenants) => {
                let tenants = tenants.iter().copied().filter(is_asked_for);
                tenants.map(Subject::tenant).collect()
            }
            None => vec![Subject {
                tenant,
                install: None,
            }],
        })
    }

    /// The tenant of an install that the author may know of, whether it is there or only in the audit.
    async fn tenant_of(
        &self,
        by: &Author,
        install: InstallId,
    ) -> Result<Option<TenantId>, AdminError> {
        let registered = self.registered_tenant_of(by, install).await?;
        if registered.is_some() || !by.scope.knows(install) {
            return Ok(registered);
        }
        // The registry may have been replaced by an older one.
        let tenants = by.scope.tenants.as_ref();
        let tenants = tenants.map_or_else(
            || vec![None],
            |tenants| tenants.iter().copied().map(Some).collect(),
        );
        for tenant in tenants {
            let filter = StorageFilter {
                tenant,
                install: Some(install),
                ..StorageFilter::default()
            };
            let found = self.storage.here()?.audit(&filter, None, 1).await?;
            if let Some(record) = found.first() {
                return Ok(Some(record.tenant_id));
            }
        }
        Ok(None)
    }

    /// The same, as far as the registry or its audit has the install.
    async fn registered_tenant_of(
        &self,
        by: &Author,
        install: InstallId,
    ) -> Result<Option<TenantId>, AdminError> {
        if !by.scope.knows(install) {
            return Ok(None);
        }
        let tenant = if let Some(found) = self.registry.install(install).await? {
            Some(found.tenant)
        } else {
            let filter = RegistryFilter {
                install: Some(install),
                ..RegistryFilter::default()
            };
            let first = PageRequest::first(1);
            let found = self.registry.audit(&filter, first).await?.items;
            found.first().and_then(|record| record.tenant)
        };
        Ok(tenant.filter(|tenant| by.scope.allows(*tenant, install)))
    }
}

/// What part of `most` is read at once of each of `count` subjects.
fn share(most: u32, count: u32) -> u32 {
    most.checked_div(count).unwrap_or(most).max(LEAST_PAGE)
}

/// Whose records are read.
#[derive(Debug, Clone, Copy)]
struct Subject {
    tenant: Option<TenantId>,
    install: Option<InstallId>,
}

impl Subject {
    const fn tenant(tenant: TenantId) -> Self {
        Self {
            tenant: Some(tenant),
            install: None,
        }
    }

    const fn install(tenant: TenantId, install: InstallId) -> Self {
        Self {
            tenant: Some(tenant),
            install: Some(install),
        }
    }
}

/// The audit, a line at a time.
#[derive(Debug)]
pub struct AuditExport {
    sources: Vec<Ordered>,
    /// The time of the next record of each source that has one; of equal times, the first source's.
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The sources that were asked for their first record.
    begun: usize,
}

impl AuditExport {
    fn of(sources: impl Iterator<Item = Records>) -> Self {
        Self {
            sources: sources.map(Ordered::new).collect(),
            next: BinaryHeap::new(),
            begun: 0,
        }
    }

    /// The next record as JSON, without a line break; nothing at the end.
    pub async fn next_line(&mut self) -> Result<Option<String>, AdminError> {
        while self.begun < self.sources.len() {
            self.queue(self.begun).await?;
            self.begun += 1;
        }
        let Some(Reverse((_, source))) = self.next.pop() else {
            return Ok(None);
        };
        let line = self.sources.get_mut(source).and_then(Ordered::take);
        self.queue(source).await?;
        Ok(line.map(|line| line.json))
    }

    async fn queue(&mut self, source: usize) -> Result<(), AdminError> {
        if let Some(records) = self.sources.get_mut(source)
            && let Some(time) = records.time().await?
        {
            self.next.push(Reverse((time, source)));
        }
        Ok(())
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
    json: String,
}

/// Records in the order of time.
#[derive(Debug)]
enum Records {
    Registry(RegistryAudit),
    Storage(StorageAudit),
}

impl Records {
    /// The next ones; none where there are no more.
    async fn next_page(&mut self) -> Result<Vec<Line>, AdminError> {
        match self {
            Self::Registry(audit) => audit.next_page().await,
            Self::Storage(audit) => audit.next_page().await,
        }
    }
}

/// Looks one record ahead.
#[derive(Debug)]
struct Ordered {
    records: Records,
    page: VecDeque<Line>,
    ended: bool,
}

impl Ordered {
    const fn new(records: Records) -> Self {
        Self {
            records,
            page: VecDeque::new(),
            ended: false,
        }
    }

    /// The time of the next record.
    async fn time(&mut self) -> Result<Option<Timestamp>, AdminError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.records.next_page().await?.into();
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
    storage: Arc<dyn StorageDatabase>,
    filter: StorageFilter,
    after: Option<Uuid>,
    limit: u32,
}

impl StorageAudit {
    async fn next_page(&mut self) -> Result<Vec<Line>, AdminError> {
        let found = self
            .storage
            .audit(&self.filter, self.after, self.limit)
            .await?;
        self.after = found.last().map(|record| record.id).or(self.after);
        let lines = found.into_iter().map(|record| Line {
            time: record.time,
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

impl RegistryAudit {
    async fn next_page(&mut self) -> Result<Vec<Line>, AdminError> {
        let Some(page) = self.page else {
            return Ok(Vec::new());
        };
        let found = self.registry.audit(&self.filter, page).await?;
        self.page = found.next.map(|next| PageRequest::after(next, page.limit));
        let lines = found.items.into_iter().map(|record| Line {
            time: record.at,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alga_sqlite::DriverError;

    use super::*;
    use crate::config::TokenScope;
    use crate::stage::Stage;

    /// The tenants and sources of all lines that somebody with this scope gets.
    async fn told(
        stage: &Stage,
        scope: TokenScope,
        query: AuditQuery,
    ) -> Result<Vec<(Option<String>, String)>, AdminError> {
        let by = Author {
            scope,
            ..Author::operator("admin")
        };
        let mut export = stage.admin().audit(&by, query).await?;
        let mut told = Vec::new();
        while let Some(line) = export.next_line().await? {
            let line: Value = serde_json::from_str(&line).unwrap();
            let text = |name: &str| line[name].as_str().map(str::to_owned);
            told.push((text("tenantId"), text("source").unwrap()));
        }
        Ok(told)
    }

    fn of_tenants(tenants: &[TenantId]) -> TokenScope {
        TokenScope {
            tenants: Some(tenants.iter().copied().collect()),
            installs: None,
        }
    }

    fn of_installs(installs: &[InstallId]) -> TokenScope {
        TokenScope {
            tenants: None,
            installs: Some(installs.iter().copied().collect()),
        }
    }

    /// Makes the records of a tenant such that reading any fails.
    async fn damage(stage: &Stage, tenant: TenantId) {
        let hex = tenant.to_string().replace('-', "");
        for (database, set) in [
            (stage.registry.database(), "registry_audit SET details"),
            (stage.storage.database(), "ext_storage_audit SET changes"),
        ] {
            let sql = format!("UPDATE {set} = 'x' WHERE tenant_id = x'{hex}'");
            let damaged = database.write(move |tx| Ok::<_, DriverError>(tx.execute(&sql, ())?));
            assert!(damaged.await.unwrap() > 0);
        }
    }

    #[tokio::test]
    async fn records_of_others_are_not_even_read() {
        let stage = Stage::open().await;
        let (ours, theirs) = (TenantId::generate(), TenantId::generate());
        let (our_install, their_install) = (stage.install(ours).await, stage.install(theirs).await);
        for install in [&our_install, &their_install] {
            stage.put(install.id, "a", "1", None).await;
        }
        damage(&stage, theirs).await;
        let all = || AuditQuery::default();
        let expected =
            ["registry", "storage"].map(|source| (Some(ours.to_string()), source.to_owned()));
        for scope in [of_tenants(&[ours]), of_installs(&[our_install.id])] {
            let only = AuditQuery {
                install: Some(our_install.id),
                ..all()
            };
            for query in [all(), only] {
                assert_eq!(told(&stage, scope.clone(), query).await.unwrap(), expected);
            }
            for query in [
                AuditQuery {
                    tenant: Some(theirs),
                    ..all()
                },
                AuditQuery {
                    tenant: Some(theirs),
                    install: Some(our_install.id),
                    ..all()
                },
            ] {
                assert_eq!(told(&stage, scope.clone(), query).await.unwrap(), []);
            }
            let foreign = AuditQuery {
                install: Some(their_install.id),
                ..all()
            };
            let foreign = told(&stage, scope, foreign).await;
            assert!(
                matches!(foreign, Err(AdminError::NotFound(_))),
                "{foreign:?}"
            );
        }
        assert!(told(&stage, TokenScope::default(), all()).await.is_err());
    }

    #[tokio::test]
    async fn several_tenants_are_told_of_in_the_order_of_time() {
        let stage = Stage::open().await;
        let tenants = [(); 3].map(|()| TenantId::generate());
        let mut expected = Vec::new();
        for round in 0..30 {
            let tenant = tenants[round % 3];
            let install = stage.install(tenant).await.id;
            stage.put(install, "a", "1", None).await;
            expected.extend(
                ["registry", "storage"].map(|source| (Some(tenant.to_string()), source.to_owned())),
            );
            stage.clock.advance(Duration::from_millis(5));
        }
        let scope = of_tenants(&tenants);
        let found = told(&stage, scope, AuditQuery::default()).await.unwrap();
        assert_eq!(found, expected);
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!(distinct.len(), 6);
    }

    #[test]
    fn however_many_are_read_of_at_once_each_gets_on() {
        assert_eq!(
            [share(500, 0), share(500, 1), share(500, 7)],
            [500, 500, 71]
        );
        assert_eq!(share(200, u32::MAX), LEAST_PAGE);
    }
}
