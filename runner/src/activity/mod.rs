//! What installs did a moment ago, in the memory of this process: the lines that their guests wrote,
//! and how their invocations ended.
//!
//! It is a courtesy to whoever looks for a mistake, not a record: bounded for each install and for
//! all together, gone with the process. A guest never waits for whoever reads; a reader that is too
//! slow is told how much it missed. There is no queue for a reader: it reads from the ring of the
//! install, at its own pace.

mod recording;
mod ring;
mod tail;

use std::cmp;
use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alga_model::{Clock, InstallId, TenantId, Timestamp};
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use uuid::Uuid;

use self::ring::Ring;

pub use self::recording::Recording;
pub use self::ring::{Event, Invocation, Line, LineLevel, RingLimits, Subject};
pub use self::tail::{Begin, EventId, Filter, Tail, TailRefused, Tailed};

/// How much is remembered, and how many may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityLimits {
    /// What is kept of one install.
    pub ring: RingLimits,
    /// Bytes of all installs together. What was called longest ago goes first.
    pub bytes: usize,
    /// How long an install is remembered after its last call.
    pub idle: Duration,
    /// Tails of one install.
    pub tails_per_install: usize,
    /// Tails of all installs of one tenant.
    pub tails_per_tenant: usize,
    /// Tails of all installs.
    pub tails: usize,
}

impl Default for ActivityLimits {
    fn default() -> Self {
        Self {
            ring: RingLimits::default(),
            bytes: 16 << 20,
            idle: Duration::from_secs(3_600),
            tails_per_install: 8,
            tails_per_tenant: 64,
            tails: 256,
        }
    }
}

/// What installs did a moment ago. Clones share it.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    limits: ActivityLimits,
    is_closed: AtomicBool,
    /// Bytes that all rings hold, and those of their entries. Apart from what is only read.
    bytes: CachePadded<AtomicUsize>,
    /// Locked before any ring, never after.
    known: CachePadded<Mutex<Known>>,
}

/// The installs that are remembered.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<InstallId, Slot, foldhash::fast::RandomState>,
    /// By their last use, the longest ago first.
    by_use: BTreeMap<u64, InstallId>,
    uses: u64,
    tails: usize,
    /// Of the tenants that have any.
    tails_of: HashMap<TenantId, usize>,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    last_use: u64,
    used_at: Timestamp,
}

/// An install that is remembered. It is kept while anybody but [`Known`] holds it.
#[derive(Debug)]
struct Entry {
    /// Tells this ring from others that the install had or will have, here or in other processes.
    ring_id: u64,
    ring: Mutex<Ring>,
    changed: Notify,
    tails: AtomicUsize,
}

/// Bytes of an install without any event: itself, its places in the two maps, and what those leave
/// empty.
const ENTRY_BYTES: usize =
    size_of::<Entry>() + 3 * (size_of::<(InstallId, Slot)>() + size_of::<(u64, InstallId)>());

/// How exactly it is known which install was called longest ago.
const EXACTNESS: Duration = Duration::from_secs(1);

impl Activity {
    /// Nothing yet.
    pub fn new(clock: Arc<dyn Clock>, limits: ActivityLimits) -> Self {
        Self(Arc::new(Shared {
            clock,
            limits,
            is_closed: AtomicBool::new(false),
            bytes: CachePadded::new(AtomicUsize::new(0)),
            known: CachePadded::default(),
        }))
    }

    /// Follows an invocation of `install` to its end. Its caller has waited since `start`.
    pub fn record(&self, install: InstallId, subject: Subject, start: Instant) -> Recording {
        Recording::new(Arc::clone(&self.0), self.0.entry(install), subject, start)
    }

    /// The invocations of an install that are remembered, the last one first.
    pub fn invocations(&self, install: InstallId) -> Vec<Invocation> {
        self.look(install, |ring| ring.invocations().cloned().collect())
    }

    /// An invocation that is remembered, with those of its lines that are.
    pub fn invocation(&self, install: InstallId, id: Uuid) -> Option<(Invocation, Vec<Line>)> {
        self.look(install, |ring| {
            let found = ring.invocations().find(|it| it.subject.invocation == id)?;
            let lines = ring.lines().filter(|line| line.subject.invocation == id);
            Some((found.clone(), lines.cloned().collect()))
        })
    }

    /// Listens to an install of a tenant from now on.
    pub fn tail(
        &self,
        tenant: TenantId,
        install: InstallId,
        filter: Filter,
        from: Begin,
    ) -> Result<Tail, TailRefused> {
        Tail::open(&self.0, (tenant, install), filter, from)
    }

    /// Ends every tail, now and from now on: the process stops.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        for slot in self.0.known().by_id.values() {
            slot.entry.changed.notify_waiters();
        }
    }

    /// Forgets what has not been called for long.
    pub fn forget_idle(&self) {
        let now = self.0.clock.now();
        self.0.forget_idle(&mut self.0.known(), now);
    }

    /// Bytes that are remembered at the moment, rounded up.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn look<T: Default>(&self, install: InstallId, look: impl FnOnce(&Ring) -> T) -> T {
        let entry = {
            let mut known = self.0.known();
            self.0.forget_idle(&mut known, self.0.clock.now());
            known
                .by_id
                .get(&install)
                .map(|slot| Arc::clone(&slot.entry))
        };
        entry.map_or_else(T::default, |entry| look(&entry.ring()))
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The install, remembered from now on.
    fn entry(&self, install: InstallId) -> Arc<Entry> {
        let entry = self.use_entry(&mut self.known(), install);
        self.keep_within_budget();
        entry
    }

    fn use_entry(&self, known: &mut Known, install: InstallId) -> Arc<Entry> {
        let now = self.clock.now();
        if let Some(entry) = known.used(install, now) {
            return entry;
        }
        let entry = Arc::new(Entry::new(self.limits.ring));
        self.bytes.fetch_add(ENTRY_BYTES, Ordering::Relaxed);
        known.insert(install, Arc::clone(&entry), now);
        entry
    }

    /// Changes a ring, and tells those who listen.
    fn change(&self, entry: &Entry, change: impl FnOnce(&mut Ring)) {
        let mut ring = entry.ring();
        let before = ring.bytes();
        change(&mut ring);
        let after = ring.bytes();
        // While the ring is locked, so that nobody else counts what it held before. A full ring mostly
        // holds as much as before.
        match after.cmp(&before) {
            cmp::Ordering::Greater => drop(self.bytes.fetch_add(after - before, Ordering::Relaxed)),
            cmp::Ordering::Equal => {}
            cmp::Ordering::Less => drop(self.bytes.fetch_sub(before - after, Ordering::Relaxed)),
        }
        drop(ring);
        if entry.tails.load(Ordering::SeqCst) > 0 {
            entry.changed.notify_waiters();
        }
        self.keep_within_budget();
    }

    /// Forgets what has not been called for long.
    fn forget_idle(&self, known: &mut Known, now: Timestamp) {
        for _ in 0..known.by_id.len() {
            let Some((install, used_at)) = known.longest_unused() else {
                return;
            };
            if used_at.plus(self.limits.idle) > now {
                return;
            }
            if !self.forget(known, install) {
                known.touch(install, now);
            }
        }
    }

    /// Forgets what was called longest ago, until the rest fits.
    fn keep_within_budget(&self) {
        let is_over = || self.bytes.load(Ordering::Relaxed) > self.limits.bytes;
        if !is_over() {
            return;
        }
        let mut known = self.known();
        for _ in 0..known.by_id.len() {
            if !is_over() {
                return;
            }
            let Some((install, used_at)) = known.longest_unused() else {
                return;
            };
            if !self.forget(&mut known, install) {
                known.touch(install, used_at);
            }
        }
        // All that is left is being called or listened to, and has to do with less.
        for slot in known.by_use.values().filter_map(|id| known.by_id.get(id)) {
            if !is_over() {
                return;
            }
            let mut ring = slot.entry.ring();
            self.bytes.fetch_sub(ring.bytes(), Ordering::Relaxed);
            ring.clear();
        }
    }

    /// Forgets an install, unless somebody uses it.
    fn forget(&self, known: &mut Known, install: InstallId) -> bool {
        let Some(slot) = known.by_id.get(&install) else {
            return false;
        };
        // Nobody can get hold of it meanwhile: that takes the lock of `known`, or having it already.
        if Arc::strong_count(&slot.entry) > 1 {
            return false;
        }
        let bytes = ENTRY_BYTES + slot.entry.ring().bytes();
        let last_use = slot.last_use;
        known.by_use.remove(&last_use);
        known.by_id.remove(&install);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        true
    }
}

impl Known {
    fn insert(&mut self, install: InstallId, entry: Arc<Entry>, used_at: Timestamp) {
        let last_use = self.next_use();
        self.by_use.insert(last_use, install);
        let slot = Slot {
            entry,
            last_use,
            used_at,
        };
        self.by_id.insert(install, slot);
    }

    /// Notes that an install is used, if it is remembered: as exactly as is worth the while.
    fn used(&mut self, install: InstallId, now: Timestamp) -> Option<Arc<Entry>> {
        let slot = self.by_id.get(&install)?;
        if now < slot.used_at.plus(EXACTNESS) {
            return Some(Arc::clone(&slot.entry));
        }
        self.touch(install, now)
    }

    /// Makes an install the last used one, if it is remembered.
    fn touch(&mut self, install: InstallId, used_at: Timestamp) -> Option<Arc<Entry>> {
        let next_use = self.next_use();
        let slot = self.by_id.get_mut(&install)?;
        self.by_use.remove(&slot.last_use);
        self.by_use.insert(next_use, install);
        slot.last_use = next_use;
        slot.used_at = used_at;
        Some(Arc::clone(&slot.entry))
    }

    fn longest_unused(&self) -> Option<(InstallId, Timestamp)> {
        let (_, install) = self.by_use.first_key_value()?;
        let slot = self.by_id.get(install)?;
        Some((*install, slot.used_at))
    }

    const fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

impl Entry {
    fn new(limits: RingLimits) -> Self {
        Self {
            ring_id: Uuid::new_v4().as_u64_pair().0,
            ring: Mutex::new(Ring::new(limits)),
            changed: Notify::new(),
            tails: AtomicUsize::new(0),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
