//! What writes are judged against: the part of the database they concern, in memory.
//!
//! A group of writes loads the records and counters it touches once, decides one write after the
//! other here, and stores what came of it. A refused write leaves no trace, so it can't disturb
//! its neighbours in the group.

use std::borrow::Cow;
use std::collections::BTreeMap;

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::Statement;

use super::counters::{Counted, Counters, Sheet};
use crate::contract::{DeleteRequest, JsonText, Key, Namespace, Record, Revision, Written};
use crate::error::{BulkError, Error, FailedItem};
use crate::service::{CheckedItem, Put, Scope};
use crate::told::{Alert, Change};

/// A namespace of an install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) tenant: TenantId,
    pub(super) install: InstallId,
    pub(super) namespace: Namespace,
}

/// Everything a group of writes concerns. What is not there is not in the database either.
#[derive(Debug, Default)]
pub(super) struct State<'g> {
    counters: BTreeMap<Counted, Entry<Counters>>,
    records: BTreeMap<Place, BTreeMap<Key, Entry<Option<Stored<'g>>>>>,
}

/// A row, and whether the group changed it.
#[derive(Debug, Clone, Default)]
struct Entry<T> {
    row: T,
    changed: bool,
}

/// A record as the database holds it, perhaps expired.
#[derive(Debug, Clone)]
pub(super) struct Stored<'g> {
    pub(super) revision: Revision,
    pub(super) bytes: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    /// Read only where a write of the group may have to answer with it.
    pub(super) content: Option<Content<'g>>,
}

/// What a record says: as a write says it, or as it was read.
#[derive(Debug, Clone)]
pub(super) struct Content<'g> {
    pub(super) value: Cow<'g, JsonText>,
    pub(super) metadata: Cow<'g, JsonText>,
    pub(super) updated_at: Timestamp,
}

/// A write that happens, and what has to be told of it once it is durable.
#[derive(Debug)]
pub(super) struct Judged<T> {
    pub(super) answer: T,
    pub(super) changes: Vec<Change>,
    pub(super) alerts: Vec<Alert>,
}

impl<'g> State<'g> {
    /// Adds a row of counters as the database holds it.
    pub(super) fn load_counters(&mut self, counted: Counted, row: Counters) {
        let changed = false;
        self.counters.insert(counted, Entry { row, changed });
    }

    /// Adds a record as the database holds it.
    pub(super) fn load_record(&mut self, place: &Place, key: Key, stored: Stored<'g>) {
        let entry = Entry {
            row: Some(stored),
            changed: false,
        };
        let records = self.records.entry(place.clone()).or_default();
        records.insert(key, entry);
    }

    /// Adds what a record says that was loaded before.
    pub(super) fn load_content(&mut self, place: &Place, key: &Key, content: Content<'g>) {
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
    pub(super) fn changed_records(
        &self,
    ) -> impl Iterator<Item = (&Place, impl Iterator<Item = (&Key, Option<&Stored<'g>>)>)> {
        self.records.iter().map(|(place, records)| {
            let changed = records.iter().filter(|(_, entry)| entry.changed);
            (place, changed.map(|(key, entry)| (key, entry.row.as_ref())))
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
        put: &'g Put,
        now: Timestamp,
    ) -> Result<Judged<Vec<Written>>, BulkError> {
        let place = Place::of(scope, &put.namespace);
        // Without what is expired of the same keys: it goes whatever becomes of this write, so that what
        // takes its place grows by all it holds.
        let mut before = self.sheet(&place);
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
            if let Some(expired) = stored.filter(|_| live.is_none()) {
                before.remove(expired);
            }
            let expires_at = item.ttl.map(|ttl| now.plus(ttl));
            let record = Stored {
                revision: after.write(stored, now, item.size(), expires_at),
                bytes: item.size(),
                expires_at,
                created_at: live.map_or(now, |live| live.created_at),
                content: Some(Content::new(item, now)),
            };
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

    fn stored(&self, place: &Place, key: &Key) -> Option<&Stored<'g>> {
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

    /// Binds the first three parameters, which records of a place share.
    pub(super) fn bind(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(1, self.tenant.as_bytes())?;
        statement.raw_bind_parameter(2, self.install.as_bytes())?;
        statement.raw_bind_parameter(3, self.namespace.as_str())
    }

    /// Tenant, install, namespace and key of the row of a record.
    pub(super) fn row_key<'k>(&'k self, key: &'k Key) -> (&'k [u8], &'k [u8], &'k str, &'k str) {
        (
            self.tenant.as_bytes(),
            self.install.as_bytes(),
            self.namespace.as_str(),
            key.as_str(),
        )
    }
}

impl Stored<'_> {
    /// Whether the record exists for anybody who looks at `now`.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// The record itself, if its content was read.
    fn to_record(&self, key: &Key) -> Option<Record> {
        let content = self.content.clone()?;
        Some(Record {
            key: key.clone(),
            value: content.value.into_owned(),
            metadata: content.metadata.into_owned(),
            revision: self.revision,
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: content.updated_at,
        })
    }
}

impl<'g> Content<'g> {
    fn new(item: &'g CheckedItem, now: Timestamp) -> Self {
        Self {
            value: Cow::Borrowed(&item.value),
            metadata: Cow::Borrowed(&item.metadata),
            updated_at: now,
        }
    }
}

fn failed(put: &Put, index: usize, error: Error) -> BulkError {
    let item = put.items.get(index).map(|item| FailedItem {
        index,
        key: item.key.as_str().to_owned(),
    });
    BulkError { item, error }
}
