//! Whose turn it is to compute.
//!
//! A guest computes on a thread of the async runtime, of which there are few, and keeps it until the
//! epoch ticks. So that no tenant's guests take more than their share of these threads, whatever
//! computes holds a [`Turn`]: as many as there are threads, given back with every tick and whenever
//! the guest waits for the host, and taken anew before it goes on. The next turn goes to the tenant
//! whose guests have computed for the shortest time since there have been more guests than turns
//! (start-time fair queueing: Goyal, Vin and Cheng, 1996): many brief turns are as much as one long one.
//!
//! Fresh calls come first. Those that have computed for long get what is left but for one turn, so
//! that the next fresh call finds a thread at once; and however many fresh calls there are, an
//! eighth of the time of all threads, so that they come to an end.
//!
//! The first waits of a fresh call are free: what runs between them and the next tick has no turn,
//! though its time counts.
//! It is short and mostly the host's own work, few calls have more of them, and each would cost a
//! wait. There are but a few, so that a guest gains nothing by waiting for what is there already.
//! Whoever computes but briefly between waits, as those do who make many host calls, takes its turns
//! among the fresh ones, however long it has computed in all.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use alga_model::TenantId;
use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::ticker::TICK;

/// Ticks after which a call has computed for long. Small answers of the slowest languages need
/// fewer.
const LONG: u32 = 5;
/// Waits after which a fresh call goes on without a turn.
const FREE_WAITS: u32 = 4;
/// Who computes for less before it waits for the host goes on as if it were fresh: what it holds a turn
/// for is nothing to a tick, for which it would wait.
const BRIEF: Duration = Duration::from_micros(500);
/// The part of all threads' time, as its inverse, that long calls get beside any number of fresh
/// ones.
const SHARE_OF_LONG: u32 = 8;

/// How many tenants' computing time is remembered for each tenant that waits. At more, those are
/// forgotten for whom it makes no difference.
const FORGET_AT: usize = 4;

/// The turns of a process.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Queue>>);

/// What an invocation has of the turns: one or none.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    turns: Turns,
    tenant: TenantId,
    ticks: AtomicU32,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    turn: Option<Turn>,
    /// When it last went on without one.
    free_since: Option<Instant>,
    /// Whether the guest is at its beginning or at a tick, and goes on with the turn that it waits
    /// for there.
    takes_its_turn: bool,
    /// How often the guest waited for the host.
    waits: u32,
    /// Whether it computed but briefly before it did so last.
    was_brief: bool,
}

/// The right to compute, given back when it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Turns,
    tenant: TenantId,
    pace: Pace,
    since: Instant,
    /// How long the guest has computed in it, where it is known to have ended.
    computed: Option<Duration>,
}

/// How long a call has been computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Fresh,
    Long,
}

#[derive(Debug)]
struct Queue {
    turns: usize,
    turns_of_long: usize,
    fresh: Class,
    long: Class,
    /// How long after a long call's turn the next one is due, and when that is.
    until_due: Duration,
    due: Instant,
}

#[derive(Debug, Default)]
struct Class {
    computing: usize,
    /// Who waits, by tenant; none without a waiter. Among equals the first one is next.
    waiting: VecDeque<(TenantId, VecDeque<oneshot::Sender<()>>)>,
    /// How long the guests of each tenant have computed, as long as anybody waits. Who comes later
    /// begins with what the others have behind them.
    computed: HashMap<TenantId, Duration, RandomState>,
    /// What whoever had the last turn had computed until then: the least of all who waited.
    least: Duration,
}

impl Turns {
    /// Lets so many guests compute at once.
    pub(super) fn of(threads: usize) -> Self {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        Self::new(threads as usize, TICK * SHARE_OF_LONG / threads)
    }

    fn new(turns: usize, until_due: Duration) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            turns,
            turns_of_long: (turns - 1).max(1),
            fresh: Class::default(),
            long: Class::default(),
            until_due,
            due: Instant::now() + until_due,
        })))
    }

    /// A place for an invocation of a tenant, without a turn yet.
    pub(super) fn place(&self, tenant: TenantId) -> Place {
        Place(Arc::new(Holder {
            turns: self.clone(),
            tenant,
            ticks: AtomicU32::new(0),
            held: Mutex::default(),
        }))
    }

    async fn take(&self, tenant: TenantId, pace: Pace) -> Turn {
        let arrived = self.queue().arrive(tenant, pace);
        if let Some(granted) = arrived {
            let mut waiting = Waiting {
                turns: self,
                tenant,
                pace,
                granted,
            };
            // The sender is in the queue, which this holds, until it has sent.
            drop((&mut waiting.granted).await);
        }
        Turn {
            turns: self.clone(),
            tenant,
            pace,
            since: Instant::now(),
            computed: None,
        }
    }

    /// Gives a turn back in which a guest computed for so long.
    fn give_back(&self, tenant: TenantId, pace: Pace, computed: Duration) {
        let mut queue = self.queue();
        let class = queue.class(pace);
        class.charge(tenant, computed);
        class.computing -= 1;
        queue.serve();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Poisoning would need a panic below, which counts and moves only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes an answer in the turns of a place: gives its turn back whenever the guest waits, and
/// has one before the guest goes on.
pub(super) async fn resting<F: Future>(place: &Place, mut answer: Pin<&mut F>) -> F::Output {
    loop {
        place.go_on().await;
        let polled = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = polled {
            return answer;
        }
        place.rest(place.computing());
        woken().await;
    }
}

/// Returns when the task is polled again.
async fn woken() {
    let mut again = false;
    poll_fn(|_| {
        if mem::replace(&mut again, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl Place {
    /// Waits for the first turn.
    pub(super) async fn begin(&self) {
        self.held().takes_its_turn = true;
        self.take(Pace::Fresh).await;
    }

    /// Lets others run at a tick, gives the turn back, and waits for the next one.
    pub(super) fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let place = self.clone();
        async move {
            place.0.ticks.fetch_add(1, Ordering::Relaxed);
            place.held().stop();
            // While it has the turn: given back at once it would go to somebody who waits already,
            // and whom this worker would run before those who are ready to and have not been run yet.
            tokio::task::yield_now().await;
            place.give_back();
            place.take(place.pace()).await;
        }
    }

    /// Gives the turn back, if it has one, as the guest waits after it has computed for so long. At a
    /// tick it is left to [`Self::next`].
    fn rest(&self, computed: Duration) {
        let mut held = self.held();
        let (has_turn, takes_its_turn) = (held.turn.is_some(), held.takes_its_turn);
        if !takes_its_turn {
            held.waits = held.waits.saturating_add(1);
            held.was_brief = computed < BRIEF;
        }
        drop(held);
        if !has_turn {
            // Free of a turn is not free of charge: a tenant's next calls wait for longer.
            let Holder { turns, tenant, .. } = &*self.0;
            turns.queue().class(self.pace()).charge(*tenant, computed);
        } else if !takes_its_turn {
            self.give_back();
        }
    }

    fn give_back(&self) {
        let turn = self.held().turn.take();
        drop(turn);
    }

    /// Waits for a turn where the guest needs one to go on.
    async fn go_on(&self) {
        if let Some(pace) = self.needs() {
            return self.take(pace).await;
        }
        let mut held = self.held();
        // Before its first wait it has computed nothing without a turn.
        if held.turn.is_none() && held.waits > 0 {
            held.free_since = Some(Instant::now());
        }
    }

    /// How long the guest has been computing since it went on.
    fn computing(&self) -> Duration {
        let held = self.held();
        let since = held.turn.as_ref().map(|turn| turn.since);
        let since = since.or(held.free_since);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What turn the guest needs to go on, if any.
    fn needs(&self) -> Option<Pace> {
        let (held, pace) = (self.held(), self.pace());
        let has_one = held.turn.is_some() || held.takes_its_turn;
        let is_free = pace == Pace::Fresh && held.waits <= FREE_WAITS;
        let needed = if held.was_brief { Pace::Fresh } else { pace };
        (!has_one && !is_free).then_some(needed)
    }

    fn pace(&self) -> Pace {
        if self.0.ticks.load(Ordering::Relaxed) <= LONG {
            Pace::Fresh
        } else {
            Pace::Long
        }
    }

    async fn take(&self, pace: Pace) {
        let turn = self.0.turns.take(self.0.tenant, pace).await;
        let mut held = self.held();
        held.turn = Some(turn);
        held.takes_its_turn = false;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn stop(&mut self) {
        self.takes_its_turn = true;
        if let Some(turn) = &mut self.turn {
            turn.computed = Some(turn.since.elapsed());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let computed = self.computed.unwrap_or_else(|| self.since.elapsed());
        self.turns.give_back(self.tenant, self.pace, computed);
    }
}

/// Somebody who waits for a turn.
struct Waiting<'a> {
    turns: &'a Turns,
    tenant: TenantId,
    pace: Pace,
    granted: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Who goes away just when the turn came gives it back. Whoever received it already has it.
        self.granted.close();
        if self.granted.try_recv().is_ok() {
            self.turns.give_back(self.tenant, self.pace, Duration::ZERO);
        }
    }
}

impl Queue {
    /// Takes a turn at once, or gives what tells when there is one.
    fn arrive(&mut self, tenant: TenantId, pace: Pace) -> Option<oneshot::Receiver<()>> {
        if self.class(pace).waiting.is_empty() && self.has_room(pace) {
            self.grant(pace);
            return None;
        }
        let (waiter, granted) = oneshot::channel();
        self.class(pace).wait(tenant, waiter);
        Some(granted)
    }

    fn serve(&mut self) {
        while let Some(pace) = self.next() {
            let waiter = self.class(pace).pop();
            if waiter.is_some_and(|waiter| waiter.send(()).is_ok()) {
                self.grant(pace);
            }
        }
    }

    fn grant(&mut self, pace: Pace) {
        self.class(pace).computing += 1;
        if pace == Pace::Long {
            self.due = Instant::now() + self.until_due;
        }
    }

    /// Whom a free turn goes to.
    fn next(&self) -> Option<Pace> {
        let long = !self.long.waiting.is_empty() && self.has_room(Pace::Long);
        let fresh = !self.fresh.waiting.is_empty() && self.has_room(Pace::Fresh);
        match (fresh, long) {
            (_, true) => Some(Pace::Long),
            (true, false) => Some(Pace::Fresh),
            (false, false) => None,
        }
    }

    fn has_room(&self, pace: Pace) -> bool {
        let computing = self.fresh.computing + self.long.computing;
        match pace {
            Pace::Fresh => computing < self.turns,
            Pace::Long => {
                let is_left = computing < self.turns_of_long && self.fresh.waiting.is_empty();
                let is_due = computing < self.turns && Instant::now() >= self.due;
                self.long.computing < self.turns_of_long && (is_left || is_due)
            }
        }
    }

    const fn class(&mut self, pace: Pace) -> &mut Class {
        match pace {
            Pace::Fresh => &mut self.fresh,
            Pace::Long => &mut self.long,
        }
    }
}

impl Class {
    fn wait(&mut self, tenant: TenantId, waiter: oneshot::Sender<()>) {
        if let Some((_, waiters)) = self.waiting.iter_mut().find(|(of, _)| *of == tenant) {
            return waiters.push_back(waiter);
        }
        self.waiting.push_back((tenant, VecDeque::from([waiter])));
        if self.computed.len() > FORGET_AT * self.waiting.len() {
            // Whoever has computed for no longer than all who wait begins like one who never did.
            let least = self.least;
            self.computed.retain(|_, computed| *computed > least);
        }
    }

    /// The next one in turn who still waits.
    fn pop(&mut self) -> Option<oneshot::Sender<()>> {
        while let Some(next) = self.next() {
            let (tenant, mut waiters) = self.waiting.remove(next)?;
            self.least = self.least.max(self.computed(tenant));
            while let Some(waiter) = waiters.pop_front() {
                if waiter.is_closed() {
                    continue;
                }
                if !waiters.is_empty() {
                    self.waiting.push_back((tenant, waiters));
                }
                return Some(waiter);
            }
        }
        None
    }

    /// Where in the queue the tenant is whose guests have computed for the shortest time.
    fn next(&self) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate();
        let next = waiting.min_by_key(|(_, (tenant, _))| self.computed(*tenant));
        next.map(|(position, _)| position)
    }

    fn computed(&self, tenant: TenantId) -> Duration {
        let computed = self.computed.get(&tenant).copied();
        computed.map_or(self.least, |computed| computed.max(self.least))
    }

    fn charge(&mut self, tenant: TenantId, computed: Duration) {
        if self.waiting.is_empty() {
            // Whoever computes takes a turn from nobody.
            self.computed.clear();
            self.least = Duration::ZERO;
        } else {
            let sum = self.computed(tenant) + computed;
            self.computed.insert(tenant, sum);
        }
    }
}

#[cfg(test)]
mod tests;
