//! Listening to an install.

use std::collections::{VecDeque, hash_map};
use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alga_model::{InstallId, TenantId};

use super::ring::{Event, EventRef, LineLevel};
use super::{Entry, Shared};

/// Events that are copied at once, as the guest can't write meanwhile.
const BATCH_EVENTS: usize = 64;
/// Bytes of events after which no more are copied at once.
const BATCH_BYTES: usize = 32 << 10;

/// Which events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only lines of this level or a higher one.
    pub level: LineLevel,
    /// Whether the ends of invocations are wanted.
    pub invocations: bool,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the last events, at most so many.
    Last(usize),
    /// After this one, which may be another ring's.
    After(EventId),
}

/// What an event is known by. It is good for the ring it is from, and any other tells that it isn't
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    ring: u64,
    number: u64,
}

/// What a tail gets to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tailed {
    /// Something happened.
    Event(EventId, Event),
    /// So many events are lost, wanted or not; nobody knows how many where the tail goes on after
    /// one of another ring. The id is that of the last lost one.
    Gap(EventId, Option<u64>),
}

/// Why there is no tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TailRefused {
    /// The install has as many as it may.
    #[error("the logs of the install are followed by as many as may; end another tail first")]
    Install,
    /// Its tenant has as many as it may.
    #[error(
        "the logs of the tenant's installs are followed by as many as may; end another tail first"
    )]
    Tenant,
    /// The process has as many as it may.
    #[error("logs are followed by as many as this process allows")]
    Process,
    /// The process stops.
    #[error("the runner is stopping")]
    Closed,
}

/// Hears what an install does.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    tenant: TenantId,
    filter: Filter,
    /// The number of the next event to look at.
    next: u64,
    /// What was there of the events before `asked_from` when the tail began, and was not looked at yet.
    backlog: VecDeque<u64>,
    /// What is missing from this number on is lost; before it, only what was there.
    asked_from: u64,
    /// The number of the next event when the tail began.
    head: u64,
    /// What the tail was told to go on after is another ring's.
    is_elsewhere: bool,
}

impl Tail {
    pub(super) fn open(
        shared: &Arc<Shared>,
        (tenant, install): (TenantId, InstallId),
        filter: Filter,
        from: Begin,
    ) -> Result<Self, TailRefused> {
        let entry = {
            let mut known = shared.known();
            if shared.is_closed.load(Ordering::SeqCst) {
                return Err(TailRefused::Closed);
            }
            if known.tails >= shared.limits.tails {
                return Err(TailRefused::Process);
            }
            let entry = shared.use_entry(&mut known, install);
            if entry.tails.load(Ordering::SeqCst) >= shared.limits.tails_per_install {
                return Err(TailRefused::Install);
            }
            let of_tenant = known.tails_of.get(&tenant).copied().unwrap_or(0);
            if of_tenant >= shared.limits.tails_per_tenant {
                return Err(TailRefused::Tenant);
            }
            known.tails += 1;
            known.tails_of.insert(tenant, of_tenant + 1);
            entry.tails.fetch_add(1, Ordering::SeqCst);
            entry
        };
        let mut tail = Self {
            shared: Arc::clone(shared),
            entry,
            tenant,
            filter,
            next: 1,
            backlog: VecDeque::new(),
            asked_from: 0,
            head: 0,
            is_elsewhere: false,
        };
        tail.begin(from);
        Ok(tail)
    }

    fn begin(&mut self, from: Begin) {
        let entry = Arc::clone(&self.entry);
        let ring = entry.ring();
        self.head = ring.head();
        match from {
            Begin::Last(count) => {
                self.next = ring.last(count, |event| self.filter.wants(event));
                self.asked_from = self.head;
                self.backlog = ring.numbers_from(self.next);
            }
            Begin::After(id) if id.ring == self.entry.ring_id && id.number < ring.head() => {
                self.next = id.number + 1;
            }
            Begin::After(_) => {
                self.is_elsewhere = true;
                self.asked_from = self.head;
                self.backlog = ring.numbers_from(self.next);
            }
        }
    }

    /// What has happened since the last time; nothing where that is nothing.
    pub fn take(&mut self) -> Vec<Tailed> {
        let mut taken = Vec::new();
        let entry = Arc::clone(&self.entry);
        let ring = entry.ring();
        if std::mem::take(&mut self.is_elsewhere) {
            taken.push(Tailed::Gap(self.id(self.next - 1), None));
        }
        let mut bytes = 0;
        while taken.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            let Some((number, event)) = ring.first_from(self.next) else {
                taken.extend(self.missing(ring.head()));
                self.next = ring.head();
                break;
            };
            taken.extend(self.missing(number));
            self.backlog.pop_front_if(|first| *first == number);
            self.next = number + 1;
            if self.filter.wants(event) {
                bytes += event.bytes();
                taken.push(Tailed::Event(self.id(number), event.to_event()));
            }
        }
        taken
    }

    /// What has happened since the last time, as soon as it does; nothing where the process stops
    /// and there is nothing more. It loses nothing where it is dropped.
    pub async fn next(&mut self) -> Option<Vec<Tailed>> {
        let entry = Arc::clone(&self.entry);
        loop {
            let mut changed = pin!(entry.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let taken = self.take();
            if !taken.is_empty() {
                return Some(taken);
            }
            if self.shared.is_closed.load(Ordering::SeqCst) {
                return None;
            }
            changed.await;
        }
    }

    /// Whether something is left of what there was when the tail began.
    pub const fn has_backlog(&self) -> bool {
        self.next < self.head || self.is_elsewhere
    }

    /// What is lost between the next event and the one of this number.
    fn missing(&mut self, number: u64) -> Option<Tailed> {
        let mut missed = number.saturating_sub(self.next.max(self.asked_from));
        while self.backlog.pop_front_if(|first| *first < number).is_some() {
            missed += 1;
        }
        (missed > 0).then(|| Tailed::Gap(self.id(number - 1), Some(missed)))
    }

    fn id(&self, number: u64) -> EventId {
        EventId {
            ring: self.entry.ring_id,
            number,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut known = self.shared.known();
        known.tails -= 1;
        if let hash_map::Entry::Occupied(mut of_tenant) = known.tails_of.entry(self.tenant) {
            *of_tenant.get_mut() -= 1;
            if *of_tenant.get() == 0 {
                of_tenant.remove();
            }
        }
        self.entry.tails.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Filter {
    fn wants(self, event: EventRef<'_>) -> bool {
        match event {
            EventRef::Line(line) => line.level >= self.level,
            EventRef::Invocation(_) => self.invocations,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.ring, self.number)
    }
}

/// A text that no event is known by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be the id of an event")]
pub struct ParseEventIdError;

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ring, number) = text.split_once('-').ok_or(ParseEventIdError)?;
        let are_digits = ring.len() == 16
            && ring.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.bytes().all(|byte| byte.is_ascii_digit());
        let ring = u64::from_str_radix(ring, 16).map_err(|_| ParseEventIdError)?;
        let number = number.parse().map_err(|_| ParseEventIdError)?;
        let id = Self { ring, number };
        are_digits.then_some(id).ok_or(ParseEventIdError)
    }
}
