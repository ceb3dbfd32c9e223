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
        let start = Instant::now();
        let polled = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = polled {
            return answer;
        }
        place.rest(start.elapsed());
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
            self.take(pace).await;
        }
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
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use uuid::Uuid;

    use super::*;

    type Taking<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

    /// Never due within a test.
    const NEVER: Duration = Duration::from_secs(3600);

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    fn poll(taking: &mut Taking<'_>) -> Option<Turn> {
        match taking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// Somebody who asked for a turn, and the turn where it was there at once.
    fn ask(turns: &Turns, number: u128, pace: Pace) -> (Taking<'_>, Option<Turn>) {
        let mut taking: Taking<'_> = Box::pin(turns.take(tenant(number), pace));
        let turn = poll(&mut taking);
        (taking, turn)
    }

    #[test]
    fn long_calls_leave_one_turn_to_fresh_ones() {
        let turns = Turns::new(3, NEVER);
        let (_, first) = ask(&turns, 1, Pace::Long);
        let (_, second) = ask(&turns, 1, Pace::Long);
        let (mut third, none) = ask(&turns, 2, Pace::Long);
        assert!(first.is_some() && second.is_some() && none.is_none());
        let (_, fresh) = ask(&turns, 3, Pace::Fresh);
        assert!(fresh.is_some());
        drop(fresh);
        assert!(poll(&mut third).is_none());
        drop(first);
        assert!(poll(&mut third).is_some());
    }

    /// In which order a single turn goes to those who wait.
    fn order(until_due: Duration) -> [Pace; 4] {
        let turns = Turns::new(1, until_due);
        let (_, mut held) = ask(&turns, 1, Pace::Fresh);
        let mut waiting: Vec<_> = [Pace::Fresh, Pace::Long, Pace::Fresh, Pace::Long]
            .map(|pace| (pace, ask(&turns, 1, pace).0))
            .into();
        std::array::from_fn(|_| {
            drop(held.take());
            let mut served = Vec::new();
            waiting.retain_mut(|(pace, taking)| {
                let turn = poll(taking);
                if turn.is_none() {
                    return true;
                }
                served.push(*pace);
                held = turn;
                false
            });
            assert_eq!(served.len(), 1);
            served[0]
        })
    }

    #[test]
    fn fresh_calls_come_first_unless_long_ones_are_due() {
        let (fresh, long) = (Pace::Fresh, Pace::Long);
        assert_eq!(order(NEVER), [fresh, fresh, long, long]);
        assert_eq!(order(Duration::ZERO), [long, long, fresh, fresh]);
    }

    #[test]
    fn a_tenant_with_many_calls_gets_no_more_turns_than_one_with_few() {
        let turns = Turns::new(1, NEVER);
        let (_, held) = ask(&turns, 9, Pace::Fresh);
        let mut many: Vec<_> = (0..5).map(|_| ask(&turns, 1, Pace::Fresh).0).collect();
        let mut few = ask(&turns, 2, Pace::Fresh).0;
        drop(held);
        let first = poll(&mut many[0]);
        assert!(first.is_some());
        assert!(poll(&mut few).is_none());
        drop(first);
        assert!(poll(&mut few).is_some());
    }

    /// How long a turn lasts in a simulation: so long that the time it really takes is nothing.
    const TURN: Duration = Duration::from_secs(3600);

    /// Calls of a tenant in a simulation, all of which compute without end.
    #[derive(Clone, Copy)]
    struct Calls {
        count: usize,
        pace: Pace,
        /// How long each of its turns lasts.
        lasts: Duration,
    }

    /// How many of so many turns, which are granted one after another, each tenant's calls get.
    fn shares(at_once: usize, granted: usize, tenants: &[Calls]) -> Vec<usize> {
        let parts = SHARE_OF_LONG / u32::try_from(at_once).unwrap();
        let turns = Turns::new(at_once, TURN * parts);
        let mut shares = vec![0; tenants.len()];
        let (mut waiting, mut computing) = (VecDeque::new(), VecDeque::new());
        let each = |(tenant, calls): (usize, &Calls)| vec![(tenant, calls.pace); calls.count];
        for (tenant, pace) in tenants.iter().enumerate().flat_map(each) {
            let (taking, turn) = ask(&turns, tenant as u128, pace);
            match turn {
                Some(turn) => computing.push_back((tenant, pace, turn)),
                None => waiting.push_back((tenant, pace, taking)),
            }
        }
        for _ in 0..granted {
            // The one that has computed for longest comes to its tick.
            let (tenant, pace, mut turn) = computing.pop_front().unwrap();
            shares[tenant] += 1;
            turn.since -= tenants[tenant].lasts;
            turns.queue().due -= TURN / u32::try_from(at_once).unwrap();
            drop(turn);
            waiting.retain_mut(|(tenant, pace, taking)| match poll(taking) {
                Some(turn) => {
                    computing.push_back((*tenant, *pace, turn));
                    false
                }
                None => true,
            });
            let (taking, turn) = ask(&turns, tenant as u128, pace);
            match turn {
                Some(turn) => computing.push_back((tenant, pace, turn)),
                None => waiting.push_back((tenant, pace, taking)),
            }
        }
        shares
    }

    #[test]
    fn fifty_loops_of_a_tenant_get_no_more_turns_than_a_few_calls_of_another() {
        for pace in [Pace::Fresh, Pace::Long] {
            let few = Calls {
                count: 2,
                pace,
                lasts: TURN,
            };
            let loops = Calls { count: 50, ..few };
            for at_once in [1, 2] {
                let shares = shares(at_once, 500, &[loops, few, few, few, few]);
                for share in &shares {
                    assert!(share.abs_diff(100) <= 2, "{pace:?}, {at_once}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn who_computes_longer_in_a_turn_gets_fewer_of_them() {
        for pace in [Pace::Fresh, Pace::Long] {
            let brief = Calls {
                count: 3,
                pace,
                lasts: TURN / 20,
            };
            let loops = Calls {
                count: 50,
                lasts: TURN,
                ..brief
            };
            let shares = shares(1, 820, &[loops, brief, brief]);
            assert!(shares[0].abs_diff(20) <= 2, "{pace:?}: {shares:?}");
            assert!(shares[1].abs_diff(shares[2]) <= 2, "{pace:?}: {shares:?}");
        }
    }

    #[test]
    fn who_comes_later_has_no_claim_to_what_others_had_before() {
        let turns = Turns::new(1, NEVER);
        let (_, mut held) = ask(&turns, 1, Pace::Fresh);
        let mut early: Vec<_> = (0..4).map(|_| ask(&turns, 1, Pace::Fresh).0).collect();
        held.as_mut().unwrap().since -= 10 * TURN;
        drop(held);
        let mut held = poll(&mut early[0]).unwrap();
        let mut late: Vec<_> = (0..2).map(|_| ask(&turns, 2, Pace::Fresh).0).collect();
        held.since -= TURN;
        drop(held);
        let mut held = poll(&mut late[0]).unwrap();
        assert!(poll(&mut early[1]).is_none());
        held.since -= 2 * TURN;
        drop(held);
        assert!(poll(&mut late[1]).is_none());
        assert!(poll(&mut early[1]).is_some());
    }

    #[test]
    fn nothing_is_kept_of_tenants_when_nobody_waits() {
        let turns = Turns::new(1, NEVER);
        for number in 0..100 {
            let (_, held) = ask(&turns, number, Pace::Fresh);
            let mut next = ask(&turns, number + 1_000, Pace::Fresh).0;
            drop(held);
            assert_eq!(turns.queue().fresh.computed.len(), 1);
            drop(poll(&mut next));
            assert_eq!(turns.queue().fresh.computed.len(), 0);
        }
    }

    #[test]
    fn long_calls_get_an_eighth_beside_any_number_of_fresh_ones() {
        let long = Calls {
            count: 1,
            pace: Pace::Long,
            lasts: TURN,
        };
        let fresh = Calls {
            count: 100,
            pace: Pace::Fresh,
            lasts: TURN,
        };
        for at_once in [1, 2, 4] {
            let shares = shares(at_once, 800, &[fresh, long, long, fresh]);
            let of_long = shares[1] + shares[2];
            assert!(of_long.abs_diff(100) <= 2, "{at_once}: {shares:?}");
            for (one, other) in [(0, 3), (1, 2)] {
                assert!(shares[one].abs_diff(shares[other]) <= 5, "{shares:?}");
            }
        }
    }

    #[test]
    fn who_goes_away_keeps_no_turn_from_others() {
        let turns = Turns::new(1, NEVER);
        let (_, held) = ask(&turns, 1, Pace::Fresh);
        let (gone_before, _) = ask(&turns, 1, Pace::Fresh);
        let (gone_after, _) = ask(&turns, 1, Pace::Fresh);
        let mut stays = ask(&turns, 1, Pace::Fresh).0;
        drop(gone_before);
        drop(held);
        assert!(poll(&mut stays).is_none());
        drop(gone_after);
        assert!(poll(&mut stays).is_some());
        let queue = turns.queue();
        assert_eq!((queue.fresh.computing, queue.fresh.waiting.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_invocation_is_long_after_some_ticks() {
        let turns = Turns::new(2, NEVER);
        let place = turns.place(tenant(1));
        let computing = || {
            let queue = turns.queue();
            (queue.fresh.computing, queue.long.computing)
        };
        place.begin().await;
        for _ in 0..LONG {
            assert_eq!(computing(), (1, 0));
            place.next().await;
        }
        assert_eq!(computing(), (1, 0));
        place.next().await;
        assert_eq!(computing(), (0, 1));
        place.rest(TICK);
        place.rest(TICK);
        assert_eq!(computing(), (0, 0));
        place.next().await;
        drop(place);
        assert_eq!(computing(), (0, 0));
    }

    /// A guest that waits again and again for what is there already.
    struct Restless<'a> {
        future: Pin<Box<dyn Future<Output = ()> + 'a>>,
        went_on: Rc<Cell<u32>>,
    }

    impl<'a> Restless<'a> {
        fn at(place: &'a Place) -> Self {
            let went_on = Rc::new(Cell::new(0));
            let counted = Rc::clone(&went_on);
            let mut guest = Box::pin(async move {
                place.begin().await;
                loop {
                    woken().await;
                    counted.set(counted.get() + 1);
                }
            });
            Self {
                future: Box::pin(async move { resting(place, guest.as_mut()).await }),
                went_on,
            }
        }

        /// Wakes it; how often it has gone on by then.
        fn wake(&mut self) -> u32 {
            let context = &mut Context::from_waker(Waker::noop());
            assert!(self.future.as_mut().poll(context).is_pending());
            self.went_on.get()
        }
    }

    #[test]
    fn the_first_waits_of_a_fresh_call_take_no_turn() {
        let turns = Turns::new(1, NEVER);
        let place = turns.place(tenant(1));
        let mut guest = Restless::at(&place);
        assert_eq!(guest.wake(), 0, "it begins");
        let (_, held) = ask(&turns, 2, Pace::Fresh);
        assert!(held.is_some(), "who waits has no turn");
        for went_on in 1..=FREE_WAITS {
            assert_eq!(guest.wake(), went_on);
        }
        assert_eq!(guest.wake(), FREE_WAITS);
        assert_eq!(guest.wake(), FREE_WAITS);
        drop(held);
        for went_on in 1..100 {
            assert_eq!(guest.wake(), FREE_WAITS + went_on);
        }
    }

    #[test]
    fn who_waits_for_nothing_goes_on_as_often_as_it_gets_a_turn() {
        let turns = Turns::new(1, NEVER);
        let places: Vec<_> = (0..50).map(|_| turns.place(tenant(1))).collect();
        let mut guests: Vec<_> = places.iter().map(Restless::at).collect();
        let mut wake_all = || guests.iter_mut().map(Restless::wake).sum::<u32>();
        for _ in 0..FREE_WAITS {
            wake_all();
        }
        let free = wake_all();
        let (_, mut held) = ask(&turns, 2, Pace::Fresh);
        for round in 0..100 {
            assert_eq!(wake_all(), free + round);
            // So that it has computed for less than they.
            held.as_mut().unwrap().since += TURN;
            drop(held.take());
            let (mut next, none) = ask(&turns, 2, Pace::Fresh);
            assert!(none.is_none(), "it is their turn");
            assert_eq!(wake_all(), free + round + 1);
            held = poll(&mut next);
            assert!(held.is_some(), "it was one of theirs");
        }
    }

    #[tokio::test]
    async fn a_long_call_goes_on_with_a_turn_after_every_wait() {
        for (computed, fresh, long) in [
            (Duration::ZERO, 1, 0),
            (BRIEF.saturating_sub(Duration::from_nanos(1)), 1, 0),
            (BRIEF, 0, 1),
        ] {
            let turns = Turns::new(1, NEVER);
            let place = turns.place(tenant(1));
            place.begin().await;
            for _ in 0..=LONG {
                place.next().await;
            }
            place.rest(computed);
            let (_, held) = ask(&turns, 2, Pace::Fresh);
            let mut goes_on = pin!(place.go_on());
            let mut goes_on = || {
                let context = &mut Context::from_waker(Waker::noop());
                goes_on.as_mut().poll(context).is_ready()
            };
            assert!(!goes_on());
            drop(held);
            assert!(goes_on());
            let queue = turns.queue();
            let computing = (queue.fresh.computing, queue.long.computing);
            assert_eq!(computing, (fresh, long), "{computed:?}");
            drop(queue);
        }
    }

    #[test]
    fn the_holder_of_a_turn_can_be_dropped_while_it_waits_for_the_next() {
        let turns = Turns::new(1, NEVER);
        let (_, held) = ask(&turns, 1, Pace::Fresh);
        let place = turns.place(tenant(2));
        {
            let mut begin = pin!(place.begin());
            let waiting = begin.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(waiting.is_pending());
        }
        drop(held);
        assert!(ask(&turns, 3, Pace::Fresh).1.is_some());
    }
}
