//! What writes are judged against: the part of the database they concern, in memory.
//!
//! A group of writes loads the records and counters it touches once, decides one write after the
//! other here, and stores what came of it. A refused write leaves no trace, so it can't disturb
//! its neighbours in the group.

use std::collections::HashMap;

use alga_model::{InstallId, TenantId, Timestamp};

use crate::contract::{DeleteRequest, Key, Namespace, Quotas, Record, Revision, Written};
use crate::error::{BulkError, Error, FailedItem, Quota};
use crate::service::{CheckedItem, Put, Scope};

/// A namespace of an install.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) tenant: TenantId,
    pub(super) install: InstallId,
    pub(super) namespace: Namespace,
}

/// Everything a group of writes concerns.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) namespaces: HashMap<Place, NamespaceState>,
    pub(super) installs: HashMap<(TenantId, InstallId), InstallTotals>,
    pub(super) tenants: HashMap<TenantId, TenantTotals>,
}

/// The counters of a namespace and the records that the group names.
#[derive(Debug, Default)]
pub(super) struct NamespaceState {
    pub(super) counters: NamespaceCounters,
    /// Whether the group changed anything here.
    pub(super) changed: bool,
    records: HashMap<Key, Slot>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NamespaceCounters {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) revision_floor: u64,
    pub(super) change_seq: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InstallTotals {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) namespaces: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TenantTotals {
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

/// The record of a key, expired ones included, and whether the group changed it.
#[derive(Debug, Clone, Default)]
struct Slot {
    record: Option<Record>,
    changed: bool,
}

/// A mutation for the audit.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) operation: &'static str,
    pub(super) before: Option<Revision>,
    pub(super) after: Option<Revision>,
    pub(super) bytes: u64,
}

impl NamespaceState {
    /// A namespace as the database holds it.
    pub(super) fn loaded(
        counters: NamespaceCounters,
        records: impl IntoIterator<Item = Record>,
    ) -> Self {
        let slot = |record: Record| {
            (
                record.key.clone(),
                Slot {
                    record: Some(record),
                    changed: false,
                },
            )
        };
        Self {
            counters,
            changed: false,
            records: records.into_iter().map(slot).collect(),
        }
    }

    /// The keys the group changed, each with the record it now holds.
    pub(super) fn changed_records(&self) -> impl Iterator<Item = (&Key, Option<&Record>)> {
        self.records
            .iter()
            .filter(|(_, slot)| slot.changed)
            .map(|(key, slot)| (key, slot.record.as_ref()))
    }

    fn stored(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)?.record.as_ref()
    }

    fn store(&mut self, key: Key, record: Option<Record>) {
        self.records.insert(
            key,
            Slot {
                record,
                changed: true,
            },
        );
    }
}

impl State {
    /// Writes all items or none.
    pub(super) fn put(
        &mut self,
        scope: &Scope,
        put: &Put,
        now: Timestamp,
    ) -> Result<(Vec<Written>, Vec<Change>), BulkError> {
        let place = Place::of(scope, &put.namespace);
        let before = self.counters(&place);
        let mut after = before;
        let namespace = self.namespaces.entry(place.clone()).or_default();
        let mut written = Vec::with_capacity(put.items.len());
        let mut changes = Vec::with_capacity(put.items.len());
        let mut records = Vec::with_capacity(put.items.len());
        let mut counted = Vec::with_capacity(put.items.len());
        for (index, item) in put.items.iter().enumerate() {
            let failed = |error| BulkError {
                item: Some(FailedItem {
                    index,
                    key: item.key.as_str().to_owned(),
                }),
                error,
            };
            let stored = namespace.stored(&item.key);
            let record = after
                .write(stored, item, put.return_current, now)
                .map_err(failed)?;
            counted.push(after);
            let live = stored.filter(|stored| stored.is_live(now));
            changes.push(Change {
                key: item.key.clone(),
                operation: "put",
                before: live.map(|live| live.revision),
                after: Some(record.revision),
                bytes: record.size(),
            });
            written.push(Written {
                key: item.key.clone(),
                revision: record.revision,
                expires_at: record.expires_at,
                created_at: record.created_at,
                updated_at: record.updated_at,
                previous: live.filter(|_| put.return_previous).cloned(),
            });
            records.push(record);
        }
        // Only the whole counts: what grows first and shrinks afterwards may fit.
        if let Some(quota) = after.exceeded(&scope.limits.quotas, before, None) {
            let over = |counters: &Counters| {
                counters
                    .exceeded(&scope.limits.quotas, before, Some(quota.name))
                    .is_some()
            };
            let index = counted.iter().position(over).unwrap_or_default();
            let key = put
                .items
                .get(index)
                .map(|item| item.key.as_str().to_owned());
            let item = key.map(|key| FailedItem { index, key });
            return Err(BulkError {
                item,
                error: Error::QuotaExceeded(quota),
            });
        }
        for record in records {
            namespace.store(record.key.clone(), Some(record));
        }
        self.set_counters(place, after);
        Ok((written, changes))
    }

    /// Removes a record; the change where a live one was there.
    pub(super) fn delete(
        &mut self,
        scope: &Scope,
        request: &DeleteRequest,
        now: Timestamp,
    ) -> Result<Option<Change>, Error> {
        let place = Place::of(scope, &request.namespace);
        let mut after = self.counters(&place);
        let namespace = self.namespaces.entry(place.clone()).or_default();
        let live = namespace
            .stored(&request.key)
            .filter(|stored| stored.is_live(now));
        let before = live.map(|live| live.revision);
        if !request.guard.allows(before) {
            return Err(Error::conflict(before, None));
        }
        let Some(live) = live else { return Ok(None) };
        after.remove(live);
        after.namespace.change_seq += 1;
        let change = Change {
            key: request.key.clone(),
            operation: "delete",
            before,
            after: None,
            bytes: live.size(),
        };
        namespace.store(request.key.clone(), None);
        self.set_counters(place, after);
        Ok(Some(change))
    }

    fn counters(&self, place: &Place) -> Counters {
        let install = (place.tenant, place.install);
        Counters {
            namespace: self
                .namespaces
                .get(place)
                .map(|state| state.counters)
                .unwrap_or_default(),
            install: self.installs.get(&install).copied().unwrap_or_default(),
            tenant: self.tenants.get(&place.tenant).copied().unwrap_or_default(),
        }
    }

    fn set_counters(&mut self, place: Place, counters: Counters) {
        self.installs
            .insert((place.tenant, place.install), counters.install);
        self.tenants.insert(place.tenant, counters.tenant);
        let namespace = self.namespaces.entry(place).or_default();
        namespace.counters = counters.namespace;
        namespace.changed = true;
    }
}

impl Place {
    pub(super) fn of(scope: &Scope, namespace: &Namespace) -> Self {
        Self {
            tenant: scope.tenant,
            install: scope.install,
            namespace: namespace.clone(),
        }
    }
}

/// The counters that a write to one namespace moves.
#[derive(Debug, Clone, Copy)]
struct Counters {
    namespace: NamespaceCounters,
    install: InstallTotals,
    tenant: TenantTotals,
}

impl Counters {
    /// Judges the guard of one write, counts it, and gives the record that is stored then.
    fn write(
        &mut self,
        stored: Option<&Record>,
        item: &CheckedItem,
        return_current: bool,
        now: Timestamp,
    ) -> Result<Record, Error> {
        let live = stored.filter(|stored| stored.is_live(now));
        let current_revision = live.map(|live| live.revision);
        if !item.guard.allows(current_revision) {
            return Err(Error::conflict(
                current_revision,
                live.filter(|_| return_current).cloned(),
            ));
        }
        let floor = self.namespace.revision_floor;
        if let Some(stored) = stored {
            self.remove(stored);
        }
        let revision = match live {
            Some(live) => {
                // Replacing is no removal: the floor stays where it was.
                self.namespace.revision_floor = floor;
                live.revision.next()
            }
            None => Revision::above(self.namespace.revision_floor),
        };
        self.add(item.size());
        self.namespace.change_seq += 1;
        Ok(Record {
            key: item.key.clone(),
            value: item.value.clone(),
            metadata: item.metadata.clone(),
            revision,
            expires_at: item.ttl.map(|ttl| now.plus(ttl)),
            created_at: live.map_or(now, |live| live.created_at),
            updated_at: now,
        })
    }

    fn add(&mut self, bytes: u64) {
        if self.namespace.keys == 0 {
            self.install.namespaces += 1;
        }
        self.namespace.keys += 1;
        self.install.keys += 1;
        self.tenant.keys += 1;
        self.namespace.bytes += bytes;
        self.install.bytes += bytes;
        self.tenant.bytes += bytes;
    }

    /// Counts a record out and raises the floor to its revision.
    fn remove(&mut self, record: &Record) {
        // Saturating: a counter that had drifted must not stop an extension from cleaning up.
        let less = |counter: &mut u64, by: u64| *counter = counter.saturating_sub(by);
        let bytes = record.size();
        less(&mut self.namespace.keys, 1);
        less(&mut self.install.keys, 1);
        less(&mut self.tenant.keys, 1);
        less(&mut self.namespace.bytes, bytes);
        less(&mut self.install.bytes, bytes);
        less(&mut self.tenant.bytes, bytes);
        if self.namespace.keys == 0 {
            less(&mut self.install.namespaces, 1);
        }
        let floor = &mut self.namespace.revision_floor;
        *floor = (*floor).max(record.revision.get());
    }

    /// The first quota, or that of this name, beyond which a counter grew. What grows nothing is
    /// never refused, so an install whose quota was lowered can still shrink.
    fn exceeded(&self, quotas: &Quotas, before: Self, name: Option<&str>) -> Option<Quota> {
        let counted = [
            (
                "namespaces",
                quotas.namespaces,
                before.install.namespaces,
                self.install.namespaces,
            ),
            (
                "keys-per-namespace",
                quotas.keys_per_namespace,
                before.namespace.keys,
                self.namespace.keys,
            ),
            (
                "bytes-per-install",
                quotas.bytes_per_install,
                before.install.bytes,
                self.install.bytes,
            ),
            (
                "bytes-per-tenant",
                quotas.bytes_per_tenant,
                before.tenant.bytes,
                self.tenant.bytes,
            ),
        ];
        counted
            .into_iter()
            .map(|(name, limit, used, attempted)| Quota {
                name,
                limit,
                used,
                attempted,
            })
            .filter(|quota| name.is_none_or(|name| name == quota.name))
            .find(|quota| quota.attempted > quota.used && quota.attempted > quota.limit)
    }
}

impl Record {
    /// What the record counts against quotas, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.value.size() + self.metadata.size()
    }

    /// Whether the record exists for anybody who looks at `now`.
    fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}
