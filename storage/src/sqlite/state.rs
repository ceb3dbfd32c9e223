//! What writes are judged against: the part of the database they concern, in memory.
//!
//! A group of writes loads the records and counters it touches once, decides one write after the
//! other here, and stores what came of it. A refused write leaves no trace, so it can't disturb
//! its neighbours in the group.

use std::collections::BTreeMap;

use alga_model::{InstallId, TenantId, Timestamp};

use crate::contract::{
    DeleteRequest, JsonText, Key, Namespace, QuotaName, Quotas, Record, Revision, Written,
};
use crate::error::{BulkError, Error, FailedItem, Quota};
use crate::service::{CheckedItem, Put, Scope};

/// A namespace of an install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) tenant: TenantId,
    pub(super) install: InstallId,
    pub(super) namespace: Namespace,
}

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
    /// Of a namespace: how often a record of it was changed.
    pub(super) change_seq: u64,
    /// Of a namespace and a tenant: nothing in it expires before.
    pub(super) next_expiry: Option<Timestamp>,
}

/// Everything a group of writes concerns. What is not there is not in the database either.
#[derive(Debug, Default)]
pub(super) struct State {
    counters: BTreeMap<Counted, Entry<Counters>>,
    records: BTreeMap<Place, BTreeMap<Key, Entry<Option<Stored>>>>,
}

/// A row, and whether the group changed it.
#[derive(Debug, Clone, Default)]
struct Entry<T> {
    row: T,
    changed: bool,
}

/// A record as the database holds it, perhaps expired.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) revision: Revision,
    pub(super) bytes: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    /// Read only where a write of the group may have to answer with it.
    pub(super) content: Option<Content>,
}

/// What a record says.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) value: JsonText,
    pub(super) metadata: JsonText,
    pub(super) updated_at: Timestamp,
}

/// A write that happens, and what has to be told of it once it is durable.
#[derive(Debug)]
pub(super) struct Judged<T> {
    pub(super) answer: T,
    pub(super) changes: Vec<Change>,
    pub(super) alerts: Vec<Alert>,
}

/// A mutation for the audit.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) before: Option<Revision>,
    pub(super) after: Option<Revision>,
    pub(super) bytes: u64,
}

/// A quota whose use has risen to a part of it that is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) quota: QuotaName,
    pub(super) percent: u8,
    pub(super) used: u64,
    pub(super) limit: u64,
}

impl State {
    /// Adds a row of counters as the database holds it.
    pub(super) fn load_counters(&mut self, counted: Counted, row: Counters) {
        let changed = false;
        self.counters.insert(counted, Entry { row, changed });
    }

    /// Adds a record as the database holds it.
    pub(super) fn load_record(&mut self, place: &Place, key: Key, stored: Stored) {
        let entry = Entry {
            row: Some(stored),
            changed: false,
        };
        let records = self.records.entry(place.clone()).or_default();
        records.insert(key, entry);
    }

    /// Adds what a record says that was loaded before.
    pub(super) fn load_content(&mut self, place: &Place, key: &Key, content: Content) {
        let entry = self
            .records
            .get_mut(place)
            .and_then(|records| records.get_mut(key));
        if let Some(stored) = entry.and_then(|entry| entry.row.as_mut()) {
            stored.content = Some(content);
        }
    }

    /// The counters that the group changed.
    pub(super) fn changed_counters(&self) -> impl Iterator<Item = (&Counted, &Counters)> {
        self.counters
            .iter()
            .filter(|(_, entry)| entry.changed)
            .map(|(counted, entry)| (counted, &entry.row))
    }

    /// The records that the group changed, in the order of their table; none where it removed one.
    pub(super) fn changed_records(&self) -> impl Iterator<Item = (&Place, &Key, Option<&Stored>)> {
        self.records.iter().flat_map(|(place, records)| {
            records
                .iter()
                .filter(|(_, entry)| entry.changed)
                .map(move |(key, entry)| (place, key, entry.row.as_ref()))
        })
    }

    /// Whether something that is counted there, a namespace or a tenant, may have expired at `now`.
    pub(super) fn is_due(&self, counted: &Counted, now: Timestamp) -> bool {
        self.counters(counted)
            .next_expiry
            .is_some_and(|next_expiry| next_expiry <= now)
    }

    /// Writes all items or none.
    pub(super) fn put(
        &mut self,
        scope: &Scope,
        put: &Put,
        now: Timestamp,
    ) -> Result<Judged<Vec<Written>>, BulkError> {
        let place = Place::of(scope, &put.namespace);
        let before = self.sheet(&place);
        let mut after = before;
        let mut written = Vec::with_capacity(put.items.len());
        let mut changes = Vec::with_capacity(put.items.len());
        let mut records = Vec::with_capacity(put.items.len());
        let mut sheets = Vec::with_capacity(put.items.len());
        for (index, item) in put.items.iter().enumerate() {
            let stored = self.stored(&place, &item.key);
            let live = stored.filter(|stored| stored.is_live(now));
            let revision = live.map(|live| live.revision);
            if !item.guard.allows(revision) {
                let current = live.filter(|_| put.return_current);
                let current = current.and_then(|current| current.to_record(&item.key));
                return Err(failed(put, index, Error::conflict(revision, current)));
            }
            let record = after.write(stored, item, now);
            sheets.push(after);
            changes.push(Change {
                key: item.key.clone(),
                before: revision,
                after: Some(record.revision),
                bytes: record.bytes,
            });
            written.push(Written {
                key: item.key.clone(),
                revision: record.revision,
                expires_at: record.expires_at,
                created_at: record.created_at,
                updated_at: now,
                previous: live
                    .filter(|_| put.return_previous)
                    .and_then(|live| live.to_record(&item.key)),
            });
            records.push(record);
        }
        let quotas = &scope.limits.quotas;
        // Only the whole counts: what grows first and shrinks afterwards may fit.
        if let Some(quota) = after.exceeded(quotas, &before) {
            // The item is the first with which the quota was exceeded.
            let over = |sheet: &Sheet| sheet.quota(quota.name, quotas, &before).is_exceeded();
            let index = sheets.iter().position(over).unwrap_or_default();
            return Err(failed(put, index, Error::QuotaExceeded(quota)));
        }
        let slots = self.records.entry(place.clone()).or_default();
        for (item, record) in put.items.iter().zip(records) {
            slots.insert(item.key.clone(), Entry::changed(Some(record)));
        }
        self.set_sheet(place, after);
        Ok(Judged {
            answer: written,
            changes,
            alerts: after.alerts(quotas, &before),
        })
    }

    /// Removes a record; true where a live one was there.
    pub(super) fn delete(
        &mut self,
        scope: &Scope,
        request: &DeleteRequest,
        now: Timestamp,
    ) -> Result<Judged<bool>, Error> {
        let place = Place::of(scope, &request.namespace);
        let live = self
            .stored(&place, &request.key)
            .filter(|stored| stored.is_live(now));
        let before = live.map(|live| live.revision);
        if !request.guard.allows(before) {
            return Err(Error::conflict(before, None));
        }
        let Some(live) = live else {
            return Ok(Judged {
                answer: false,
                changes: Vec::new(),
                alerts: Vec::new(),
            });
        };
        let change = Change {
            key: request.key.clone(),
            before,
            after: None,
            bytes: live.bytes,
        };
        let mut after = self.sheet(&place);
        after.remove(live);
        after.namespace.change_seq += 1;
        let records = self.records.entry(place.clone()).or_default();
        records.insert(request.key.clone(), Entry::changed(None));
        self.set_sheet(place, after);
        Ok(Judged {
            answer: true,
            changes: vec![change],
            alerts: Vec::new(),
        })
    }

    fn stored(&self, place: &Place, key: &Key) -> Option<&Stored> {
        self.records.get(place)?.get(key)?.row.as_ref()
    }

    fn counters(&self, counted: &Counted) -> Counters {
        self.counters
            .get(counted)
            .map(|entry| entry.row)
            .unwrap_or_default()
    }

    fn sheet(&self, place: &Place) -> Sheet {
        Sheet {
            namespace: self.counters(&Counted::Namespace(place.clone())),
            install: self.counters(&Counted::Install(place.tenant, place.install)),
            tenant: self.counters(&Counted::Tenant(place.tenant)),
        }
    }

    fn set_sheet(&mut self, place: Place, sheet: Sheet) {
        let rows = [
            (Counted::Tenant(place.tenant), sheet.tenant),
            (Counted::Install(place.tenant, place.install), sheet.install),
            (Counted::Namespace(place), sheet.namespace),
        ];
        let rows = rows.map(|(counted, row)| (counted, Entry::changed(row)));
        self.counters.extend(rows);
    }
}

impl Counted {
    /// Whose it is.
    pub(super) fn tenant(&self) -> TenantId {
        match self {
            Self::Namespace(Place { tenant, .. })
            | Self::Install(tenant, _)
            | Self::Tenant(tenant) => *tenant,
        }
    }
}

impl<T> Entry<T> {
    fn changed(row: T) -> Self {
        Self { row, changed: true }
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

impl Stored {
    /// Whether the record exists for anybody who looks at `now`.
    fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// The record itself, if its content was read.
    fn to_record(&self, key: &Key) -> Option<Record> {
        let content = self.content.clone()?;
        Some(Record {
            key: key.clone(),
            value: content.value,
            metadata: content.metadata,
            revision: self.revision,
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: content.updated_at,
        })
    }
}

/// The counters that a write to one namespace moves.
#[derive(Debug, Clone, Copy)]
struct Sheet {
    namespace: Counters,
    install: Counters,
    tenant: Counters,
}

impl Sheet {
    /// Counts one write, and gives the record that is stored then.
    fn write(&mut self, stored: Option<&Stored>, item: &CheckedItem, now: Timestamp) -> Stored {
        let live = stored.filter(|stored| stored.is_live(now));
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
        let record = Stored {
            revision,
            bytes: item.size(),
            expires_at: item.ttl.map(|ttl| now.plus(ttl)),
            created_at: live.map_or(now, |live| live.created_at),
            content: Some(Content {
                value: item.value.clone(),
                metadata: item.metadata.clone(),
                updated_at: now,
            }),
        };
        self.add(&record);
        self.namespace.change_seq += 1;
        record
    }

    fn add(&mut self, record: &Stored) {
        if self.namespace.keys == 0 {
            self.install.namespaces += 1;
        }
        for counters in [&mut self.namespace, &mut self.install, &mut self.tenant] {
            counters.keys += 1;
            counters.bytes += record.bytes;
        }
        for counters in [&mut self.namespace, &mut self.tenant] {
            counters.next_expiry = counters
                .next_expiry
                .into_iter()
                .chain(record.expires_at)
                .min();
        }
    }

    /// Counts a record out and raises the floor to its revision.
    fn remove(&mut self, record: &Stored) {
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
    fn exceeded(&self, quotas: &Quotas, before: &Self) -> Option<Quota> {
        QuotaName::ALL
            .map(|name| self.quota(name, quotas, before))
            .into_iter()
            .find(Quota::is_exceeded)
    }

    fn alerts(&self, quotas: &Quotas, before: &Self) -> Vec<Alert> {
        QuotaName::ALL
            .map(|name| self.quota(name, quotas, before))
            .into_iter()
            .filter_map(|quota| quota.alert(quotas.alert_percent))
            .collect()
    }

    fn quota(&self, name: QuotaName, quotas: &Quotas, before: &Self) -> Quota {
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
    fn is_exceeded(&self) -> bool {
        self.attempted > self.used && self.attempted > self.limit
    }

    /// The greatest of `percent` that the use has just risen to.
    fn alert(self, percent: [u8; 2]) -> Option<Alert> {
        let reaches = |used: u64, percent: u8| {
            u128::from(used) * 100 >= u128::from(self.limit) * u128::from(percent)
        };
        percent
            .into_iter()
            .filter(|percent| reaches(self.attempted, *percent) && !reaches(self.used, *percent))
            .max()
            .map(|percent| Alert {
                quota: self.name,
                percent,
                used: self.attempted,
                limit: self.limit,
            })
    }
}

fn failed(put: &Put, index: usize, error: Error) -> BulkError {
    let item = put.items.get(index).map(|item| FailedItem {
        index,
        key: item.key.as_str().to_owned(),
    });
    BulkError { item, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_raised_once_when_the_use_reaches_a_part() {
        let alert = |used, attempted| {
            let quota = Quota {
                name: QuotaName::BytesPerInstall,
                limit: 100,
                used,
                attempted,
            };
            quota.alert([80, 95]).map(|alert| alert.percent)
        };
        assert_eq!(alert(70, 79), None);
        assert_eq!(alert(79, 80), Some(80));
        assert_eq!(alert(80, 94), None);
        assert_eq!(alert(94, 95), Some(95));
        assert_eq!(alert(10, 100), Some(95));
        assert_eq!(alert(96, 81), None);
    }
}
