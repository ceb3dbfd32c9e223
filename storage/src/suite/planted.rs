//! A backend with a fault that was planted in it, to show that the suite sees such faults.
//!
//! It keeps its records in maps and counts by looking at all of them. Without a fault it keeps the
//! whole contract: what the suite refuses in it is the fault that was planted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use alga_model::{Clock as _, InstallId, ManualClock, TenantId, Timestamp};
use async_trait::async_trait;
use tokio::task::yield_now;
use uuid::Uuid;

use super::Stage;
use crate::{
    AuditFilter, AuditRecord, Backend, BulkError, CheckedItem, DeleteRequest, Drift, Error,
    FailedItem, Guard, Holding, Key, ListQuery, Listed, ListedPage, Maintenance, Namespace,
    NamespaceUsage, Put, Quota, QuotaName, Quotas, Record, Removed, Revision, Scope, Usage,
    Written,
};

/// What is wrong with the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A guard that names a revision holds for any record.
    IgnoresRevisions,
    /// A key that is created again starts with revision 1.
    ForgetsTheFloor,
    /// Between the judging of a guard and the write another write may happen.
    LosesUpdates,
    /// Reads answer what was there before the tenant's latest write.
    ReadsTheFormerState,
    /// Expired records are served.
    ServesTheExpired,
    /// Expired records count towards quotas until their key is written again.
    CountsTheExpired,
    /// What was overwritten still counts.
    Miscounts,
    /// Between the judging of quotas and the write another write may happen.
    OvershootsQuotas,
    /// A batch that fails leaves the items before the one that failed.
    SplitsBatches,
    /// An overwrite without a time to live keeps the former one.
    KeepsExpiry,
    /// An overwrite counts as a creation.
    ForgetsCreation,
    /// The last record of a page comes again on the next one.
    RepeatsRecords,
    /// The installs of a tenant share their records.
    MixesInstalls,
    /// Keys that differ in case alone are one.
    FoldsCase,
}

/// A stage over a backend with this fault, if any.
pub(super) fn stage(fault: Option<Fault>) -> Stage {
    let clock = Stage::clock();
    let backend = PlantedBackend {
        fault,
        clock: Arc::clone(&clock),
        tenants: Mutex::default(),
    };
    Stage::new(Arc::new(backend), clock)
}

#[derive(Debug)]
struct PlantedBackend {
    fault: Option<Fault>,
    clock: Arc<ManualClock>,
    tenants: Mutex<BTreeMap<TenantId, Versions>>,
}

/// The spaces of a tenant, now and before its latest write.
#[derive(Debug, Default)]
struct Versions {
    present: Spaces,
    former: Spaces,
}

type Spaces = BTreeMap<Place, Space>;
type Place = (InstallId, Namespace);

#[derive(Debug, Clone, Default)]
struct Space {
    records: BTreeMap<Key, Record>,
    floor: u64,
    /// Bytes counted too many, by the fault that miscounts.
    ghosts: u64,
}

#[async_trait]
impl Backend for PlantedBackend {
    async fn get(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Record>, Error> {
        yield_now().await;
        Ok(self.seen(scope, namespace).remove(&self.folded(key)))
    }

    async fn get_many(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        keys: &[Key],
    ) -> Result<Vec<Option<Record>>, Error> {
        yield_now().await;
        let records = self.seen(scope, namespace);
        let found = |key| records.get(&self.folded(key)).cloned();
        Ok(keys.iter().map(found).collect())
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        yield_now().await;
        let put = Writing {
            place: self.place(scope, &put.namespace),
            quotas: scope.limits.quotas,
            put,
        };
        if self.has(Fault::LosesUpdates) || self.has(Fault::OvershootsQuotas) {
            let mut trial = self.of_tenant(scope, |versions| versions.present.clone());
            self.write(&mut trial, &put, Judge::ALL)?;
            yield_now().await;
        }
        let judge = Judge {
            guards: !self.has(Fault::LosesUpdates),
            quotas: !self.has(Fault::OvershootsQuotas),
        };
        self.of_tenant(scope, |versions| {
            let mut next = versions.present.clone();
            let outcome = self.write(&mut next, &put, judge);
            if outcome.is_ok() || self.has(Fault::SplitsBatches) {
                versions.advance(next);
            }
            outcome
        })
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        yield_now().await;
        let place = self.place(scope, &request.namespace);
        let key = self.folded(&request.key);
        self.of_tenant(scope, |versions| {
            let mut next = versions.present.clone();
            let space = next.entry(place).or_default();
            let stored = space.records.get(&key);
            let revision = stored
                .filter(|record| self.is_live(record))
                .map(|record| record.revision);
            if !self.allows(request.guard, revision) {
                return Err(Error::conflict(revision, None));
            }
            if revision.is_some() {
                space.remove(&key);
                versions.advance(next);
            }
            Ok(revision.is_some())
        })
    }

    async fn list(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        query: ListQuery,
    ) -> Result<ListedPage, Error> {
        yield_now().await;
        let mut lower = query.range.lower();
        if self.has(Fault::RepeatsRecords) {
            lower = lower.trim_end_matches('\u{1}');
        }
        let mut records = self.seen(scope, namespace);
        records.retain(|key, _| lower <= key.as_str() && key.as_str() < query.range.upper());
        let mut records: Vec<Record> = records.into_values().collect();
        if query.reverse {
            records.reverse();
        }
        Ok(page(records, &query))
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        yield_now().await;
        let (install, _) = self.place(scope, &Namespace::parse("any")?);
        let mut usage = Usage {
            bytes: 0,
            keys: 0,
            expired_bytes: 0,
            expired_keys: 0,
            quotas: scope.limits.quotas,
            per_namespace: Vec::new(),
        };
        let mut spaces = self.of_tenant(scope, |versions| versions.present.clone());
        self.settle(&mut spaces);
        spaces.retain(|(of, _), space| *of == install && !space.records.is_empty());
        for ((_, namespace), space) in spaces {
            let (keys, bytes) = (space.records.len() as u64, space.bytes());
            usage.keys += keys;
            usage.bytes += bytes;
            usage.per_namespace.push(NamespaceUsage {
                namespace,
                keys,
                bytes,
            });
        }
        Ok(usage)
    }
}

/// Nothing is planted here, and nothing of it is asked.
#[async_trait]
impl Maintenance for PlantedBackend {
    async fn remove_expired(&self, _: u32) -> Result<Removed, Error> {
        Err(no_maintenance())
    }

    async fn remove_audit(&self, _: Timestamp, _: u32) -> Result<Removed, Error> {
        Err(no_maintenance())
    }

    async fn remove_answers(&self, _: u32) -> Result<Removed, Error> {
        Err(no_maintenance())
    }

    async fn audit(
        &self,
        _: &AuditFilter,
        _: Option<Uuid>,
        _: u32,
    ) -> Result<Vec<AuditRecord>, Error> {
        Err(no_maintenance())
    }

    async fn tenants(&self, _: Option<TenantId>, _: u32) -> Result<Vec<TenantId>, Error> {
        Err(no_maintenance())
    }

    async fn holdings(&self, _: TenantId) -> Result<Vec<Holding>, Error> {
        Err(no_maintenance())
    }

    async fn verify_usage(&self, _: TenantId, _: bool) -> Result<Vec<Drift>, Error> {
        Err(no_maintenance())
    }
}

fn no_maintenance() -> Error {
    Error::Unavailable("a planted backend needs no maintenance".into())
}

/// A write, where it goes and what it may use.
struct Writing {
    place: Place,
    quotas: Quotas,
    put: Put,
}

/// What a write is judged by.
#[derive(Clone, Copy)]
struct Judge {
    guards: bool,
    quotas: bool,
}

impl Judge {
    const ALL: Self = Self {
        guards: true,
        quotas: true,
    };
}

impl PlantedBackend {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn of_tenant<T>(&self, scope: &Scope, work: impl FnOnce(&mut Versions) -> T) -> T {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        work(tenants.entry(scope.tenant).or_default())
    }

    fn place(&self, scope: &Scope, namespace: &Namespace) -> Place {
        let install = if self.has(Fault::MixesInstalls) {
            InstallId::new(Uuid::nil())
        } else {
            scope.install
        };
        (install, namespace.clone())
    }

    fn folded(&self, key: &Key) -> Key {
        if self.has(Fault::FoldsCase) {
            Key::from_stored(key.as_str().to_lowercase().into())
        } else {
            key.clone()
        }
    }

    fn is_live(&self, record: &Record) -> bool {
        let is_due = record.expires_at.is_some_and(|at| at <= self.clock.now());
        !is_due || self.has(Fault::ServesTheExpired)
    }

    fn allows(&self, guard: Guard, stored: Option<Revision>) -> bool {
        match guard {
            Guard::Exactly(_) if self.has(Fault::IgnoresRevisions) => stored.is_some(),
            guard => guard.allows(stored),
        }
    }

    /// The records of a namespace that a reader sees.
    fn seen(&self, scope: &Scope, namespace: &Namespace) -> BTreeMap<Key, Record> {
        let place = self.place(scope, namespace);
        let mut records = self.of_tenant(scope, |versions| {
            let spaces = if self.has(Fault::ReadsTheFormerState) {
                &versions.former
            } else {
                &versions.present
            };
            spaces.get(&place).map(|space| space.records.clone())
        });
        let mut records = records.take().unwrap_or_default();
        records.retain(|_, record| self.is_live(record));
        records
    }

    /// Removes what is expired.
    fn settle(&self, spaces: &mut Spaces) {
        if self.has(Fault::CountsTheExpired) {
            return;
        }
        for space in spaces.values_mut() {
            let mut expired = space.records.clone();
            expired.retain(|_, record| !self.is_live(record));
            for key in expired.keys() {
                space.remove(key);
            }
        }
    }

    fn write(
        &self,
        spaces: &mut Spaces,
        writing: &Writing,
        judge: Judge,
    ) -> Result<Vec<Written>, BulkError> {
        let Writing { place, quotas, put } = writing;
        self.settle(spaces);
        let before = Totals::of(spaces, place);
        let mut running = Vec::new();
        let mut written = Vec::new();
        for (index, item) in put.items.iter().enumerate() {
            let space = spaces.entry(place.clone()).or_default();
            let outcome = self.write_item(space, item, put, judge);
            written.push(outcome.map_err(|error| failed(put, index, error))?);
            running.push(Totals::of(spaces, place));
        }
        let exceeded = |after: &Totals| after.exceeded(quotas, &before);
        let quota = running.last().and_then(|after| exceeded(after).pop());
        if let Some(quota) = quota.filter(|_| judge.quotas) {
            let is_over = |after: &Totals| exceeded(after).iter().any(|q| q.name == quota.name);
            let index = running.iter().position(is_over).unwrap_or_default();
            return Err(failed(put, index, Error::QuotaExceeded(quota)));
        }
        Ok(written)
    }

    fn write_item(
        &self,
        space: &mut Space,
        item: &CheckedItem,
        put: &Put,
        judge: Judge,
    ) -> Result<Written, Error> {
        let key = self.folded(&item.key);
        let stored = space.records.get(&key).cloned();
        let live = stored.clone().filter(|record| self.is_live(record));
        let revision = live.as_ref().map(|live| live.revision);
        if judge.guards && !self.allows(item.guard, revision) {
            let current = live.filter(|_| put.return_current);
            return Err(Error::conflict(revision, current));
        }
        match (&live, &stored) {
            (Some(live), _) if self.has(Fault::Miscounts) => space.ghosts += live.size(),
            (None, Some(_)) => space.remove(&key),
            _ => {}
        }
        let record = self.replacement(space, live.as_ref(), item);
        space.records.insert(key, record.clone());
        Ok(Written {
            key: record.key,
            revision: record.revision,
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
            previous: live.filter(|_| put.return_previous),
        })
    }

    fn replacement(&self, space: &Space, live: Option<&Record>, item: &CheckedItem) -> Record {
        let now = self.clock.now();
        let floor = if self.has(Fault::ForgetsTheFloor) {
            0
        } else {
            space.floor
        };
        let former_expiry = live
            .and_then(|live| live.expires_at)
            .filter(|_| self.has(Fault::KeepsExpiry));
        let created_at = live
            .filter(|_| !self.has(Fault::ForgetsCreation))
            .map_or(now, |live| live.created_at);
        Record {
            key: item.key.clone(),
            value: item.value.clone(),
            metadata: item.metadata.clone(),
            revision: live.map_or(Revision::above(floor), |live| live.revision.next()),
            expires_at: item.ttl.map(|ttl| now.plus(ttl)).or(former_expiry),
            created_at,
            updated_at: now,
        }
    }
}

impl Versions {
    fn advance(&mut self, next: Spaces) {
        self.former = std::mem::replace(&mut self.present, next);
    }
}

impl Space {
    fn remove(&mut self, key: &Key) {
        if let Some(record) = self.records.remove(key) {
            self.floor = self.floor.max(record.revision.get());
        }
    }

    fn bytes(&self) -> u64 {
        self.records.values().map(Record::size).sum::<u64>() + self.ghosts
    }
}

fn failed(put: &Put, index: usize, error: Error) -> BulkError {
    let key = put.items[index].key.to_string();
    BulkError {
        item: Some(FailedItem { index, key }),
        error,
    }
}

fn page(records: Vec<Record>, query: &ListQuery) -> ListedPage {
    let mut items = Vec::new();
    let mut bytes = 0;
    for record in records {
        let listed = Listed {
            key: record.key,
            revision: record.revision,
            value: Some(record.value).filter(|_| query.include_values),
            metadata: Some(record.metadata).filter(|_| query.include_metadata),
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        };
        bytes += listed.size();
        let is_full = items.len() >= query.limit as usize || bytes > query.max_bytes;
        if is_full && !items.is_empty() {
            return ListedPage { items, more: true };
        }
        items.push(listed);
    }
    ListedPage { items, more: false }
}

/// What quotas count, as seen from one namespace.
struct Totals {
    namespaces: u64,
    keys: u64,
    install_bytes: u64,
    tenant_bytes: u64,
}

impl Totals {
    fn of(spaces: &Spaces, (install, namespace): &Place) -> Self {
        let mut totals = Self {
            namespaces: 0,
            keys: 0,
            install_bytes: 0,
            tenant_bytes: 0,
        };
        for ((of, name), space) in spaces {
            totals.tenant_bytes += space.bytes();
            if of == install {
                totals.install_bytes += space.bytes();
                totals.namespaces += u64::from(!space.records.is_empty());
                if name == namespace {
                    totals.keys = space.records.len() as u64;
                }
            }
        }
        totals
    }

    /// The quotas that are exceeded since `before`, the first of the contract's table last.
    fn exceeded(&self, quotas: &Quotas, before: &Self) -> Vec<Quota> {
        let quota = |name, limit, used, attempted| Quota {
            name,
            limit,
            used,
            attempted,
        };
        let mut exceeded = vec![
            quota(
                QuotaName::BytesPerTenant,
                quotas.bytes_per_tenant,
                before.tenant_bytes,
                self.tenant_bytes,
            ),
            quota(
                QuotaName::BytesPerInstall,
                quotas.bytes_per_install,
                before.install_bytes,
                self.install_bytes,
            ),
            quota(
                QuotaName::KeysPerNamespace,
                quotas.keys_per_namespace,
                before.keys,
                self.keys,
            ),
            quota(
                QuotaName::Namespaces,
                quotas.namespaces,
                before.namespaces,
                self.namespaces,
            ),
        ];
        exceeded.retain(|quota| quota.attempted > quota.limit && quota.attempted > quota.used);
        exceeded
    }
}

mod tests {
    use super::*;
    use crate::suite::{history, model};

    macro_rules! accepts {
        ($($module:ident::$behaviour:ident,)*) => {
            mod without_a_fault {
                use super::*;
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $behaviour() {
                        crate::suite::$module::$behaviour(&stage(None)).await;
                    }
                )*
            }
        };
    }

    accepts! {
        history::calls_that_nobody_waits_for_happen_once_or_never,
        history::concurrent_calls_are_answered_in_some_order,
        model::every_sequence_of_operations_is_answered_as_the_model_says,
        nasty::any_text_is_a_key_and_a_value_and_nothing_else,
        storms::exactly_as_many_writers_succeed_as_fit,
        storms::records_that_grow_and_shrink_at_once_stay_within_the_quota,
        storms::room_that_expired_records_hold_is_free,
        storms::whoever_made_room_is_never_refused,
        storms::writers_of_different_sizes_are_refused_only_what_does_not_fit,
        storms::writers_that_try_again_fill_every_gap,
        strangers::nothing_they_try_shows_or_changes_another_installs_records,
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_model_sees_faults_of_a_single_caller() {
        for fault in [
            Fault::IgnoresRevisions,
            Fault::ForgetsTheFloor,
            Fault::ReadsTheFormerState,
            Fault::ServesTheExpired,
            Fault::CountsTheExpired,
            Fault::Miscounts,
            Fault::SplitsBatches,
            Fault::KeepsExpiry,
            Fault::ForgetsCreation,
            Fault::RepeatsRecords,
            Fault::MixesInstalls,
        ] {
            let difference = model::first_difference(&stage(Some(fault)));
            assert!(difference.is_some(), "{fault:?} was not seen");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn histories_show_faults_between_callers() {
        for fault in [
            Fault::IgnoresRevisions,
            Fault::ForgetsTheFloor,
            Fault::LosesUpdates,
            Fault::ReadsTheFormerState,
        ] {
            let seen = history::shows_a_violation(&stage(Some(fault))).await;
            assert!(seen, "{fault:?} was not seen");
        }
    }

    macro_rules! sees {
        ($($test:ident: $fault:ident by $module:ident::$behaviour:ident, $message:literal;)*) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[should_panic(expected = $message)]
                async fn $test() {
                    crate::suite::$module::$behaviour(&stage(Some(Fault::$fault))).await;
                }
            )*
        };
    }

    sees! {
        storms_see_a_quota_judged_too_early:
            OvershootsQuotas by storms::exactly_as_many_writers_succeed_as_fit, "Keys with room for";
        storms_see_room_that_the_expired_hold:
            CountsTheExpired by storms::room_that_expired_records_hold_is_free, "Keys with room for 40";
        storms_see_counters_that_drift:
            Miscounts by storms::records_that_grow_and_shrink_at_once_stay_within_the_quota, "InstallBytes";
        keys_that_differ_in_case_are_seen_as_one:
            FoldsCase by nasty::any_text_is_a_key_and_a_value_and_nothing_else, "RevisionMismatch";
        strangers_see_records_that_installs_share:
            MixesInstalls by strangers::nothing_they_try_shows_or_changes_another_installs_records, "left == right";
    }
}
