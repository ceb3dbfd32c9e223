//! The storage contract as a map: what every operation has to answer.

use std::collections::BTreeMap;

use super::answer::{Answer, Refusal, Row, Used};
use super::operation::{Expectation, INSTALLS, Item, Listing, NAMESPACES, Named, Place, Room};
use crate::{Quota, QuotaName, Quotas};

/// A page of the model ends before the record that would bring it above this many bytes.
pub(super) const PAGE_BYTES: u64 = 24;
/// Records of a page that does not say.
pub(super) const PAGE_ITEMS: u32 = 3;

/// Everything that is stored, for the installs of the test.
#[derive(Debug, Clone)]
pub(super) struct Model {
    now_ms: i64,
    spaces: BTreeMap<Place, Space>,
    rooms: [Room; 3],
}

/// What one namespace of an install holds and held.
#[derive(Debug, Clone, Default)]
struct Space {
    /// Live records alone.
    records: BTreeMap<&'static str, Row>,
    /// The greatest revision each key ever had.
    highest: BTreeMap<&'static str, u64>,
    /// The greatest revision that was removed for certain: by a delete, or by a write over an
    /// expired record. When other expired records are removed is up to the backend.
    floor: u64,
    /// Whether any record was ever removed or expired.
    lost_some: bool,
}

/// What quotas are judged by.
#[derive(Debug, Clone, Copy)]
struct Totals {
    namespaces: u64,
    keys: u64,
    install_bytes: u64,
    tenant_bytes: u64,
}

impl Room {
    /// Small enough to be met within a few writes, and more than the largest batch needs by itself.
    pub(super) fn quotas(self) -> Quotas {
        match self {
            Self::Little => Quotas {
                namespaces: 1,
                keys_per_namespace: 3,
                bytes_per_install: 60,
                bytes_per_tenant: 70,
                ..Quotas::default()
            },
            Self::More => Quotas {
                namespaces: 2,
                keys_per_namespace: 4,
                bytes_per_install: 80,
                bytes_per_tenant: 100,
                ..Quotas::default()
            },
        }
    }
}

impl Model {
    pub(super) fn new(now_ms: i64) -> Self {
        let places =
            INSTALLS.flat_map(|install| NAMESPACES.map(|namespace| Place { install, namespace }));
        Self {
            now_ms,
            spaces: places.map(|place| (place, Space::default())).collect(),
            rooms: [Room::More, Room::Little, Room::More],
        }
    }

    pub(super) fn room(&self, install: usize) -> Room {
        self.rooms[install]
    }

    pub(super) fn allow(&mut self, install: usize, room: Room) {
        self.rooms[install] = room;
    }

    /// When the next record expires.
    pub(super) fn next_expiry_ms(&self) -> Option<i64> {
        let records = self
            .spaces
            .values()
            .flat_map(|space| space.records.values());
        records.filter_map(|row| row.expires_at_ms).min()
    }

    pub(super) fn advance(&mut self, by_ms: i64) {
        self.now_ms += by_ms;
        let is_live = |row: &Row| row.expires_at_ms.is_none_or(|at| self.now_ms < at);
        for space in self.spaces.values_mut() {
            let before = space.records.len();
            space.records.retain(|_, row| is_live(row));
            space.lost_some |= space.records.len() < before;
        }
    }

    /// The number of a revision that is described by what it is to the key.
    pub(super) fn revision(&self, at: Place, key: &str, named: Named) -> u64 {
        let latest = self.spaces[&at].highest.get(key).copied().unwrap_or(1);
        match named {
            Named::Latest => latest,
            Named::Former => (latest - 1).max(1),
            Named::Coming => latest + 1,
        }
    }

    /// Writes all items or none. Where a record is created, its revision is the one that was
    /// `answered`, if that is one the contract allows.
    pub(super) fn bulk_put(&mut self, at: Place, items: &[Item], answered: &[u64]) -> Answer {
        self.put_items(at, items, answered, false, false)
    }

    /// As [`bulk_put`](Self::bulk_put), for one item.
    pub(super) fn put(
        &mut self,
        at: Place,
        item: &Item,
        answered: &[u64],
        return_previous: bool,
        return_current: bool,
    ) -> Answer {
        let items = std::slice::from_ref(item);
        match self.put_items(at, items, answered, return_previous, return_current) {
            Answer::Refused(refusal) => Answer::Refused(refusal.of_single()),
            other => other,
        }
    }

    fn put_items(
        &mut self,
        at: Place,
        items: &[Item],
        answered: &[u64],
        return_previous: bool,
        return_current: bool,
    ) -> Answer {
        let before = self.totals(at);
        let mut after = self.clone();
        let mut running = Vec::new();
        let mut rows = Vec::new();
        let mut previous = None;
        for (index, item) in items.iter().enumerate() {
            let named = Some((index, item.key.to_owned()));
            let stored = self.spaces[&at].records.get(item.key).cloned();
            if !self.allows(at, item.key, item.guard) {
                return Answer::Refused(Refusal::Conflict {
                    item: named,
                    revision: stored.as_ref().map(|row| row.revision),
                    current: stored.filter(|_| return_current),
                });
            }
            previous = stored.filter(|_| return_previous);
            rows.push(after.write(at, item, answered.get(index).copied()));
            running.push(after.totals(at));
        }
        if let Some(refusal) = self.over_quota(at, items, before, &running) {
            return Answer::Refused(refusal);
        }
        *self = after;
        Answer::Written { rows, previous }
    }

    /// Stores one record; the row that the write answers.
    fn write(&mut self, at: Place, item: &Item, answered: Option<u64>) -> Row {
        let now_ms = self.now_ms;
        let space = self.space(at);
        let stored = space.records.get(item.key);
        let created_at_ms = stored.map_or(now_ms, |row| row.created_at_ms);
        let revision = match stored {
            Some(row) => row.revision + 1,
            None => space.create(item.key, answered),
        };
        let row = Row {
            key: item.key.to_owned(),
            revision,
            value: Some(item.value.to_owned()),
            metadata: Some(item.metadata.unwrap_or("{}").to_owned()),
            expires_at_ms: item
                .ttl_seconds
                .map(|ttl| now_ms + 1_000 * ttl.cast_signed()),
            created_at_ms,
            updated_at_ms: now_ms,
        };
        space.highest.insert(item.key, revision);
        space.records.insert(item.key, row.clone());
        row.showing(false, false)
    }

    pub(super) fn get(&self, at: Place, key: &str, revision: Option<u64>) -> Answer {
        let stored = self.spaces[&at].records.get(key);
        let found = stored.map(|row| row.revision);
        if revision.is_some() && revision != found {
            return Answer::Refused(Refusal::Conflict {
                item: None,
                revision: found,
                current: None,
            });
        }
        match stored {
            Some(row) => Answer::Found(vec![Some(row.clone())]),
            None => Answer::Refused(Refusal::NotFound),
        }
    }

    pub(super) fn get_many(&self, at: Place, keys: &[&str]) -> Answer {
        let records = &self.spaces[&at].records;
        Answer::Found(keys.iter().map(|key| records.get(key).cloned()).collect())
    }

    /// The page that begins after the key `after`, or at the start of the listing.
    pub(super) fn list(&self, at: Place, listing: &Listing, after: Option<&str>) -> Answer {
        let mut wanted: Vec<Row> = self.spaces[&at]
            .records
            .values()
            .filter(|row| listing.covers(&row.key))
            .cloned()
            .collect();
        if listing.reverse {
            wanted.reverse();
        }
        let mut wanted = wanted
            .into_iter()
            .filter(|row| after.is_none_or(|after| listing.is_beyond(&row.key, after)))
            .map(|row| row.showing(listing.include_values, listing.include_metadata))
            .peekable();
        let limit = listing.limit.unwrap_or(PAGE_ITEMS) as usize;
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = wanted.next_if(|row| {
            bytes += row.key.len() as u64 + row.bytes();
            rows.is_empty() || (rows.len() < limit && bytes <= PAGE_BYTES)
        }) {
            rows.push(row);
        }
        Answer::Page {
            rows,
            more: wanted.next().is_some(),
        }
    }

    pub(super) fn delete(&mut self, at: Place, key: &str, guard: Expectation) -> Answer {
        let stored = self.spaces[&at].records.get(key).map(|row| row.revision);
        if !self.allows(at, key, guard) {
            return Answer::Refused(Refusal::Conflict {
                item: None,
                revision: stored,
                current: None,
            });
        }
        let Some(revision) = stored else {
            return Answer::Deleted(false);
        };
        let space = self.space(at);
        space.records.remove(key);
        space.floor = space.floor.max(revision);
        space.lost_some = true;
        Answer::Deleted(true)
    }

    /// What is used; the namespaces one by one where `exact` says that nothing else is counted.
    pub(super) fn usage(&self, install: usize, exact: bool) -> Answer {
        let counted: Vec<_> = NAMESPACES
            .map(|namespace| (namespace, &self.spaces[&Place { install, namespace }]))
            .into_iter()
            .filter(|(_, space)| !space.records.is_empty())
            .map(|(name, space)| (name.to_owned(), space.records.len() as u64, space.bytes()))
            .collect();
        Answer::Used(Used {
            keys: counted.iter().map(|(_, keys, _)| keys).sum(),
            bytes: counted.iter().map(|(_, _, bytes)| bytes).sum(),
            per_namespace: exact.then_some(counted),
        })
    }

    fn space(&mut self, at: Place) -> &mut Space {
        self.spaces.entry(at).or_default()
    }

    fn allows(&self, at: Place, key: &str, guard: Expectation) -> bool {
        let stored = self.spaces[&at].records.get(key).map(|row| row.revision);
        match guard {
            Expectation::Any => true,
            Expectation::Absent => stored.is_none(),
            Expectation::Exists => stored.is_some(),
            Expectation::Revision(named) => stored == Some(self.revision(at, key, named)),
        }
    }

    /// The first quota that the whole exceeds, at the first item with which it was.
    fn over_quota(
        &self,
        at: Place,
        items: &[Item],
        before: Totals,
        running: &[Totals],
    ) -> Option<Refusal> {
        let quotas = self.room(at.install).quotas();
        let exceeded = |after: &Totals| after.exceeded(&quotas, before);
        let quota = exceeded(running.last()?).into_iter().next()?;
        let names_it = |totals: &Totals| exceeded(totals).iter().any(|q| q.name == quota.name);
        let index = running.iter().position(names_it)?;
        let item = Some((index, items[index].key.to_owned()));
        Some(Refusal::Quota { item, quota })
    }

    fn totals(&self, at: Place) -> Totals {
        let tenant = tenant_of(at.install);
        let install = |place: &Place| place.install == at.install;
        let bytes = |belongs: &dyn Fn(&Place) -> bool| {
            self.spaces
                .iter()
                .filter(|(place, _)| belongs(place))
                .map(|(_, space)| space.bytes())
                .sum()
        };
        let holds_some =
            |(place, space): &(&Place, &Space)| install(place) && !space.records.is_empty();
        Totals {
            namespaces: self.spaces.iter().filter(holds_some).count() as u64,
            keys: self.spaces[&at].records.len() as u64,
            install_bytes: bytes(&install),
            tenant_bytes: bytes(&|place| tenant_of(place.install) == tenant),
        }
    }
}

/// Which of the tenants an install belongs to.
pub(super) const fn tenant_of(install: usize) -> usize {
    install / 2
}

impl Space {
    fn bytes(&self) -> u64 {
        self.records.values().map(Row::bytes).sum()
    }

    /// The revision of a new record: the one that was answered, if the contract allows it.
    ///
    /// It must be above every revision the key ever had and above all that were removed from the
    /// namespace; it is 1 where none ever was.
    fn create(&mut self, key: &str, answered: Option<u64>) -> u64 {
        self.floor = self.floor.max(self.highest.get(key).copied().unwrap_or(0));
        let least = self.floor + 1;
        match answered {
            Some(revision) if self.lost_some => revision.max(least),
            _ => least,
        }
    }
}

impl Totals {
    /// The quotas that a write exceeds with which it came to this from `before`, in the order of the
    /// contract.
    fn exceeded(self, quotas: &Quotas, before: Self) -> Vec<Quota> {
        let quota = |name, limit, used, attempted| Quota {
            name,
            limit,
            used,
            attempted,
        };
        let mut exceeded = vec![
            quota(
                QuotaName::Namespaces,
                quotas.namespaces,
                before.namespaces,
                self.namespaces,
            ),
            quota(
                QuotaName::KeysPerNamespace,
                quotas.keys_per_namespace,
                before.keys,
                self.keys,
            ),
            quota(
                QuotaName::BytesPerInstall,
                quotas.bytes_per_install,
                before.install_bytes,
                self.install_bytes,
            ),
            quota(
                QuotaName::BytesPerTenant,
                quotas.bytes_per_tenant,
                before.tenant_bytes,
                self.tenant_bytes,
            ),
        ];
        exceeded.retain(|quota| quota.attempted > quota.limit && quota.attempted > quota.used);
        exceeded
    }
}

impl Listing {
    fn covers(&self, key: &str) -> bool {
        self.prefix.is_none_or(|prefix| key.starts_with(prefix))
            && self.start.is_none_or(|start| start <= key)
            && self.end.is_none_or(|end| key < end)
    }

    fn is_beyond(&self, key: &str, place: &str) -> bool {
        if self.reverse {
            key < place
        } else {
            key > place
        }
    }
}

impl Refusal {
    /// The same refusal of a write that is no batch.
    fn of_single(self) -> Self {
        match self {
            Self::Conflict {
                revision, current, ..
            } => Self::Conflict {
                item: None,
                revision,
                current,
            },
            Self::Quota { quota, .. } => Self::Quota { item: None, quota },
            other => other,
        }
    }
}
