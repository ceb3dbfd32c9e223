//! Counters, and what a write does to them.

use alga_model::{InstallId, TenantId, Timestamp};

use super::state::{Place, Stored};
use crate::contract::{QuotaName, Quotas, Revision};
use crate::error::Quota;
use crate::told::Alert;

/// What has a row of counters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Counted {
    Namespace(Place),
    /// The totals of an install.
    Install(TenantId, InstallId),
    /// The totals of a tenant.
    Tenant(TenantId),
}

/// A row of counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// Of an install: its namespaces that hold records.
    pub(super) namespaces: u64,
    /// Of a namespace: the greatest revision ever removed from it.
    pub(super) revision_floor: u64,
    /// Of a namespace: how often a record of it was changed or removed.
    pub(super) change_seq: u64,
    /// Of a namespace and a tenant: nothing in it expires before.
    pub(super) next_expiry: Option<Timestamp>,
}

/// The counters that a write to one namespace moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sheet {
    pub(super) namespace: Counters,
    pub(super) install: Counters,
    pub(super) tenant: Counters,
}

impl Counted {
    /// What a write to `place` is counted by.
    pub(super) fn of(place: &Place) -> [Self; 3] {
        [
            Self::Tenant(place.tenant),
            Self::Install(place.tenant, place.install),
            Self::Namespace(place.clone()),
        ]
    }

    /// What a quota of the namespace `place` counts.
    pub(super) fn by(quota: QuotaName, place: Place) -> Self {
        match quota {
            QuotaName::KeysPerNamespace => Self::Namespace(place),
            QuotaName::Namespaces | QuotaName::BytesPerInstall => {
                Self::Install(place.tenant, place.install)
            }
            QuotaName::BytesPerTenant => Self::Tenant(place.tenant),
        }
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> TenantId {
        match self {
            Self::Namespace(Place { tenant, .. })
            | Self::Install(tenant, _)
            | Self::Tenant(tenant) => *tenant,
        }
    }

    /// Tenant, install and namespace of the row: totals have empty ones.
    pub(super) fn row_key(&self) -> (&[u8], &[u8], &str) {
        match self {
            Self::Namespace(place) => (
                place.tenant.as_bytes(),
                place.install.as_bytes(),
                place.namespace.as_str(),
            ),
            Self::Install(tenant, install) => (tenant.as_bytes(), install.as_bytes(), ""),
            Self::Tenant(tenant) => (tenant.as_bytes(), &[], ""),
        }
    }
}

impl Sheet {
    /// Counts a record in that takes the place of `replaced`, and gives its revision.
    pub(super) fn write(
        &mut self,
        replaced: Option<&Stored<'_>>,
        now: Timestamp,
        bytes: u64,
        expires_at: Option<Timestamp>,
    ) -> Revision {
        let floor = self.namespace.revision_floor;
        if let Some(replaced) = replaced {
            self.remove(replaced);
        }
        let revision = match replaced.filter(|replaced| replaced.is_live(now)) {
            Some(live) => {
                // Replacing is no removal: the floor stays where it was.
                self.namespace.revision_floor = floor;
                live.revision.next()
            }
            None => Revision::above(self.namespace.revision_floor),
        };
        self.add(bytes, expires_at);
        self.namespace.change_seq += 1;
        revision
    }

    fn add(&mut self, bytes: u64, expires_at: Option<Timestamp>) {
        if self.namespace.keys == 0 {
            self.install.namespaces += 1;
        }
        for counters in [&mut self.namespace, &mut self.install, &mut self.tenant] {
            counters.keys += 1;
            counters.bytes += bytes;
        }
        for counters in [&mut self.namespace, &mut self.tenant] {
            counters.next_expiry = counters.next_expiry.into_iter().chain(expires_at).min();
        }
    }

    /// Counts a record out and raises the floor to its revision.
    pub(super) fn remove(&mut self, record: &Stored<'_>) {
        // Saturating: a counter that had drifted must not stop an extension from cleaning up.
        for counters in [&mut self.namespace, &mut self.install, &mut self.tenant] {
            counters.keys = counters.keys.saturating_sub(1);
            counters.bytes = counters.bytes.saturating_sub(record.bytes);
        }
        if self.namespace.keys == 0 {
            self.install.namespaces = self.install.namespaces.saturating_sub(1);
        }
        let floor = &mut self.namespace.revision_floor;
        *floor = (*floor).max(record.revision.get());
    }

    /// The first quota beyond which a counter grew.
    pub(super) fn exceeded(&self, quotas: &Quotas, before: &Self) -> Option<Quota> {
        QuotaName::ALL
            .map(|name| self.quota(name, quotas, before))
            .into_iter()
            .find(Quota::is_exceeded)
    }

    pub(super) fn alerts(&self, quotas: &Quotas, before: &Self) -> Vec<Alert> {
        QuotaName::ALL
            .map(|name| self.quota(name, quotas, before))
            .into_iter()
            .filter_map(|quota| quota.alert(quotas.alert_percent))
            .collect()
    }

    pub(super) fn quota(&self, name: QuotaName, quotas: &Quotas, before: &Self) -> Quota {
        Quota {
            name,
            limit: quotas.limit(name),
            used: before.used(name),
            attempted: self.used(name),
        }
    }

    fn used(&self, name: QuotaName) -> u64 {
        match name {
            QuotaName::Namespaces => self.install.namespaces,
            QuotaName::KeysPerNamespace => self.namespace.keys,
            QuotaName::BytesPerInstall => self.install.bytes,
            QuotaName::BytesPerTenant => self.tenant.bytes,
        }
    }
}

impl Quota {
    /// What grows nothing is never refused, so an install whose quota was lowered can still shrink.
    pub(super) fn is_exceeded(&self) -> bool {
        self.attempted > self.used && self.attempted > self.limit
    }
}
