//! `alga-runner audit`: one stream of what the storage and the registry wrote down.
//!
//! Both are read a page at a time, so that an export of any length needs the memory of two pages.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use alga_registry::{AuditFilter as RegistryFilter, MAX_PAGE_ITEMS, PageRequest, Registry as _};
use alga_storage::{AuditFilter as StorageFilter, AuditRecord, Maintenance as _};
use anyhow::bail;
use clap::Args;
use clap::error::ErrorKind;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::moment::Moment;
use super::{output, tenant};
use crate::app::Stores;
use crate::config::Config;

/// Records of the storage that are read at once.
const PAGE: u32 = 500;

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only what was done to this tenant or its installs
    #[arg(long, value_name = "UUID")]
    tenant: Option<TenantId>,
    /// Only what was done to this install
    #[arg(long, value_name = "UUID")]
    install: Option<InstallId>,
    /// Only what happened since this time: RFC 3339, a date, or so long ago, such as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only what happened before this time: RFC 3339, a date, or so long ago, such as 1h
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

impl Audit {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        self.export(&stores).await?;
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }

    async fn export(&self, stores: &Stores) -> anyhow::Result<()> {
        let now = stores.clock.now();
        let since = self.since.map(|moment| moment.resolve(now));
        // Up to this moment: an export beside a busy server must come to an end.
        let until = self.until.map_or_else(
            || now.plus(Duration::from_millis(1)),
            |moment| moment.resolve(now),
        );
        if since.is_some_and(|since| since > until) && self.until.is_some() {
            let mistake = "--until is before --since, so nothing can be in between\n";
            return Err(clap::Error::raw(ErrorKind::ValueValidation, mistake).into());
        }
        if let Some(install) = self.install {
            ensure_known(stores, install).await?;
        }
        if let Some(tenant) = self.tenant {
            tenant::note_unless_known(&*stores.registry, tenant).await?;
        }
        let mut storage = Ordered::new(StorageAudit {
            stores,
            filter: StorageFilter {
                tenant: self.tenant,
                install: self.install,
                since,
                until: Some(until),
            },
            after: None,
        });
        let mut registry = Ordered::new(RegistryAudit {
            stores,
            filter: RegistryFilter {
                tenant: self.tenant,
                install: self.install,
                since,
                until: Some(until),
                ..RegistryFilter::default()
            },
            page: Some(PageRequest::first(MAX_PAGE_ITEMS)),
        });
        loop {
            // What the registry allows comes before what is done with it in the same instant.
            let next = match (registry.time().await?, storage.time().await?) {
                (Some(of_registry), Some(of_storage)) if of_storage < of_registry => storage.take(),
                (None, Some(_)) => storage.take(),
                _ => registry.take(),
            };
            match next {
                Some(line) => output::line(line.json)?,
                None => return Ok(()),
            }
        }
    }
}

/// Fails where there never was such an install, as far as anybody knows.
async fn ensure_known(stores: &Stores, install: InstallId) -> anyhow::Result<()> {
    if stores.registry.install(install).await?.is_some() {
        return Ok(());
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
    if stores.storage.audit(&of_storage, None, 1).await?.is_empty()
        && stores
            .registry
            .audit(&of_registry, first)
            .await?
            .items
            .is_empty()
    {
        bail!(
            "there is no install {install}, nor any record of one; `alga-runner install list` shows those there are"
        );
    }
    Ok(())
}

/// A record, ready to be printed.
struct Line {
    time: Timestamp,
    json: String,
}

/// Records in the order of time.
trait Pages {
    /// The next records; none where there are no more.
    async fn next_page(&mut self) -> anyhow::Result<Vec<Line>>;
}

/// Looks one record ahead.
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
    async fn time(&mut self) -> anyhow::Result<Option<Timestamp>> {
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

struct StorageAudit<'s> {
    stores: &'s Stores,
    filter: StorageFilter,
    after: Option<Uuid>,
}

impl Pages for StorageAudit<'_> {
    async fn next_page(&mut self) -> anyhow::Result<Vec<Line>> {
        let storage = &self.stores.storage;
        let found = storage.audit(&self.filter, self.after, PAGE).await?;
        self.after = found.last().map(|record| record.id).or(self.after);
        let lines = found.into_iter().map(|record| {
            Ok(Line {
                time: record.time,
                json: serde_json::to_string(&StorageLine {
                    source: "storage",
                    record,
                })?,
            })
        });
        lines.collect()
    }
}

struct RegistryAudit<'s> {
    stores: &'s Stores,
    filter: RegistryFilter,
    page: Option<PageRequest<u64>>,
}

impl Pages for RegistryAudit<'_> {
    async fn next_page(&mut self) -> anyhow::Result<Vec<Line>> {
        let Some(page) = self.page else {
            return Ok(Vec::new());
        };
        let found = self.stores.registry.audit(&self.filter, page).await?;
        self.page = found
            .next
            .map(|next| PageRequest::after(next, MAX_PAGE_ITEMS));
        let lines = found.items.into_iter().map(|record| {
            Ok(Line {
                time: record.at,
                json: serde_json::to_string(&RegistryLine::from(record))?,
            })
        });
        lines.collect()
    }
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
