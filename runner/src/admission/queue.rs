//! Who runs, who waits and who is next: a value without clock, channels and tasks.
//!
//! A call runs if the process, its tenant and its install all have room. The last places of the
//! process, the reserve, are for tenants of whom nothing runs: however many calls some have running,
//! another one's first does not wait for them to end. Those that wait are served in turns by tenant,
//! and within a tenant in the order they came, where calls of an install that has no room are passed
//! over. So after every change nobody who waits could run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use alga_model::{InstallId, TenantId};
use foldhash::fast::RandomState;

/// How many calls may run and how many may wait at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub waiting: usize,
}

/// The caps that a call has to fit in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all calls.
    pub process: Caps,
    /// How many places of the process are for tenants of whom nothing runs; fewer than all.
    pub reserve: usize,
    /// Of the calls of one tenant.
    pub tenant: Caps,
    /// Of the calls of one install that has no cap of its own.
    pub install: Caps,
}

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Who {
    /// The tenant.
    pub tenant: TenantId,
    /// One of the tenant's installs.
    pub install: InstallId,
}

/// A call that may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What is in its way.
    pub reason: Reason,
    /// About when what is in its way has been served, going by the calls that ended lately.
    pub retry_after: Duration,
}

/// What is in the way of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// The other calls of its install.
    #[error("too many calls of the install are running")]
    Install,
    /// The other calls of its tenant.
    #[error("too many calls of the tenant are running")]
    Tenant,
    /// The calls of everybody.
    #[error("too many extensions are running")]
    Process,
    /// Nobody is let in any more.
    #[error("the runner is stopping")]
    Closed,
}

/// A place among those who wait. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What becomes of a call that comes.
#[derive(Debug)]
pub(super) enum Arrival<W> {
    /// It runs, until it is [released](Queue::release).
    Runs,
    /// It waits, until it is among those who run after a release, or [leaves](Queue::leave).
    Waits {
        ticket: Ticket,
        /// Who had to give up a place among those who wait.
        displaced: Option<(W, Refusal)>,
    },
    /// It does neither.
    Refused(Refusal),
}

/// The calls that run, counted, and those that wait, with something to know each by.
#[derive(Debug)]
pub(super) struct Queue<W> {
    limits: Limits,
    closed: bool,
    last_ticket: u64,
    all: Load,
    tenants: HashMap<TenantId, Tenant<W>, RandomState>,
    installs: HashMap<InstallId, Install, RandomState>,
    /// The tenants of whom a call could run if the process had room; who has waited longest for a
    /// turn is in front.
    turns: VecDeque<TenantId>,
}

#[derive(Debug)]
struct Tenant<W> {
    load: Load,
    line: BTreeMap<Ticket, (InstallId, W)>,
    /// Whether it is among the turns.
    has_turn: bool,
}

#[derive(Debug)]
struct Install {
    load: Load,
    /// How many of its calls run at once.
    most: usize,
}

/// The calls of the process, of a tenant or of an install.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    running: usize,
    waiting: usize,
    /// How long those that ended lately ran; unknown before the first.
    pace: Option<Duration>,
}

/// How soon to try again where nothing is known.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// The longest time that is worth a promise.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

impl<W> Queue<W> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            closed: false,
            last_ticket: 0,
            all: Load::default(),
            tenants: HashMap::default(),
            installs: HashMap::default(),
            turns: VecDeque::new(),
        }
    }

    /// From now on `most` calls of an install run at once, or as many as the limits say. Gives
    /// those who run now; each must be released in its turn. Nothing is known of an install without
    /// calls.
    pub(super) fn limit(&mut self, who: Who, most: Option<usize>) -> Vec<(Who, W)> {
        let most = most.unwrap_or(self.limits.install.running);
        match self.installs.get_mut(&who.install) {
            Some(install) if install.most != most => install.most = most,
            _ => return Vec::new(),
        }
        self.settle(who.tenant);
        self.serve()
    }

    /// A call comes, of an install of which `most` run at once. `waiter` makes what it is known by,
    /// if it has to wait.
    pub(super) fn arrive(
        &mut self,
        who: Who,
        most: Option<usize>,
        waiter: impl FnOnce() -> W,
    ) -> Arrival<W> {
        if self.closed {
            return Arrival::Refused(Refusal::because(Reason::Closed));
        }
        if self.blocked(who).is_none() {
            self.each_load(who, |load| load.running += 1);
            self.limit_known(who, most);
            return Arrival::Runs;
        }
        let (tenant, install) = self.loads(who);
        if self.limits.install.waiting <= install.waiting {
            return Arrival::Refused(self.refusal(Reason::Install, who));
        }
        if self.limits.tenant.waiting <= tenant.waiting {
            return Arrival::Refused(self.refusal(Reason::Tenant, who));
        }
        let mut displaced = None;
        if self.limits.process.waiting <= self.all.waiting {
            displaced = self.displace_for(tenant.waiting);
            if displaced.is_none() {
                return Arrival::Refused(self.refusal(Reason::Process, who));
            }
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.each_load(who, |load| load.waiting += 1);
        self.limit_known(who, most);
        if let Some(tenant) = self.tenants.get_mut(&who.tenant) {
            tenant.line.insert(ticket, (who.install, waiter()));
        }
        self.settle(who.tenant);
        Arrival::Waits { ticket, displaced }
    }

    /// A call has ended after it ran for `held`. Gives those who run now; each must be released in
    /// its turn.
    pub(super) fn release(&mut self, who: Who, held: Duration) -> Vec<(Who, W)> {
        self.each_load(who, |load| {
            load.running = load.running.saturating_sub(1);
            load.note_pace(held);
        });
        if self.all.waiting > 0 {
            self.settle(who.tenant);
        }
        self.tidy(who);
        self.serve()
    }

    /// Somebody doesn't wait any more. Tells what was in the way; nothing where the call does not
    /// wait, as it runs already.
    pub(super) fn leave(&mut self, who: Who, ticket: Ticket) -> Option<Refusal> {
        let tenant = self.tenants.get_mut(&who.tenant)?;
        tenant.line.remove(&ticket)?;
        self.each_load(who, |load| load.waiting -= 1);
        let reason = self.blocked(who).unwrap_or(Reason::Process);
        let refusal = self.refusal(reason, who);
        self.settle(who.tenant);
        self.tidy(who);
        Some(refusal)
    }

    /// Lets nobody in any more. Who waits already is still served.
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    /// How many run.
    pub(super) const fn running(&self) -> usize {
        self.all.running
    }

    /// How many wait.
    pub(super) const fn waiting(&self) -> usize {
        self.all.waiting
    }

    /// What keeps a call from running at once: whatever has no room, the narrowest first.
    fn blocked(&self, who: Who) -> Option<Reason> {
        let (tenant, install) = self.loads(who);
        if install.running >= self.most_of(who.install) {
            Some(Reason::Install)
        } else if tenant.running >= self.limits.tenant.running {
            Some(Reason::Tenant)
        } else if self.all.running >= self.places_for(tenant.running) {
            Some(Reason::Process)
        } else {
            None
        }
    }

    /// How many calls there may be for another one of a tenant of whom so many run.
    const fn places_for(&self, running: usize) -> usize {
        let reserve = if running == 0 { 0 } else { self.limits.reserve };
        self.limits.process.running.saturating_sub(reserve)
    }

    /// How many calls of an install run at once.
    fn most_of(&self, install: InstallId) -> usize {
        let known = self.installs.get(&install);
        known.map_or(self.limits.install.running, |install| install.most)
    }

    fn limit_known(&mut self, who: Who, most: Option<usize>) {
        if let (Some(install), Some(most)) = (self.installs.get_mut(&who.install), most) {
            install.most = most;
        }
    }

    /// Lets those run whose turn it is, as far as there is room.
    fn serve(&mut self) -> Vec<(Who, W)> {
        let mut served = Vec::new();
        while let Some(tenant) = self.next_turn() {
            if let Some((install, waiter)) = self.take_first(tenant) {
                let who = Who { tenant, install };
                self.each_load(who, |load| {
                    load.waiting -= 1;
                    load.running += 1;
                });
                served.push((who, waiter));
            }
            self.settle(tenant);
        }
        served
    }

    /// Takes the tenant whose turn it is; where only the reserve is left, of those who may have it.
    fn next_turn(&mut self) -> Option<TenantId> {
        if self.all.running >= self.limits.process.running {
            return None;
        }
        let has_room = |id: &TenantId| {
            let running = self.tenants.get(id).map_or(0, |tenant| tenant.load.running);
            self.all.running < self.places_for(running)
        };
        let next = self.turns.iter().position(has_room)?;
        self.turns.remove(next)
    }

    /// The call of a tenant that has waited longest of those that could run.
    fn take_first(&mut self, id: TenantId) -> Option<(InstallId, W)> {
        let first = self.first(id)?;
        let tenant = self.tenants.get_mut(&id)?;
        tenant.has_turn = false;
        tenant.line.remove(&first)
    }

    fn first(&self, id: TenantId) -> Option<Ticket> {
        let tenant = self.tenants.get(&id)?;
        if tenant.load.running >= self.limits.tenant.running {
            return None;
        }
        let has_room = |install: &InstallId| {
            let known = self.installs.get(install);
            known.is_none_or(|install| install.load.running < install.most)
        };
        let mut line = tenant.line.iter();
        line.find_map(|(ticket, (install, _))| has_room(install).then_some(*ticket))
    }

    /// Gives a tenant its turn, behind all others, or takes it away, as it can use one or not.
    fn settle(&mut self, id: TenantId) {
        let can_run = self.first(id).is_some();
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        if can_run && !tenant.has_turn {
            self.turns.push_back(id);
        } else if !can_run && tenant.has_turn {
            self.turns.retain(|other| *other != id);
        }
        tenant.has_turn = can_run;
    }

    /// Makes room among those who wait for a tenant of whom `waiting` wait, at the cost of whoever
    /// came last of the tenant of whom most do. Nobody can keep others out by waiting.
    fn displace_for(&mut self, waiting: usize) -> Option<(W, Refusal)> {
        let (&id, longest) = self
            .tenants
            .iter_mut()
            .max_by_key(|(_, tenant)| tenant.load.waiting)?;
        if longest.load.waiting <= waiting + 1 {
            return None;
        }
        let (_, (install, waiter)) = longest.line.pop_last()?;
        let who = Who {
            tenant: id,
            install,
        };
        self.each_load(who, |load| load.waiting -= 1);
        let refusal = self.refusal(Reason::Process, who);
        self.settle(id);
        self.tidy(who);
        Some((waiter, refusal))
    }

    fn refusal(&self, reason: Reason, who: Who) -> Refusal {
        let (tenant, install) = self.loads(who);
        let retry_after = match reason {
            Reason::Install => install.served_within(self.most_of(who.install)),
            Reason::Tenant => tenant.served_within(self.limits.tenant.running),
            Reason::Process => self.all.served_within(self.limits.process.running),
            Reason::Closed => RETRY_UNKNOWN,
        };
        Refusal {
            reason,
            retry_after,
        }
    }

    /// The loads of the tenant and the install.
    fn loads(&self, who: Who) -> (Load, Load) {
        let tenant = self.tenants.get(&who.tenant).map(|tenant| tenant.load);
        let install = self.installs.get(&who.install).map(|install| install.load);
        (tenant.unwrap_or_default(), install.unwrap_or_default())
    }

    /// Changes the loads of the process, the tenant and the install alike.
    fn each_load(&mut self, who: Who, change: impl Fn(&mut Load)) {
        let tenant = self.tenants.entry(who.tenant).or_insert_with(|| Tenant {
            load: Load::default(),
            line: BTreeMap::new(),
            has_turn: false,
        });
        change(&mut self.all);
        change(&mut tenant.load);
        let install = self.installs.entry(who.install).or_insert_with(|| Install {
            load: Load::default(),
            most: self.limits.install.running,
        });
        change(&mut install.load);
    }

    /// Forgets those of whom nothing runs and nothing waits.
    fn tidy(&mut self, who: Who) {
        let install = self.installs.get(&who.install);
        if install.is_some_and(|install| install.load.is_idle()) {
            self.installs.remove(&who.install);
        }
        let tenant = self.tenants.get(&who.tenant);
        if tenant.is_some_and(|tenant| tenant.load.is_idle()) {
            self.tenants.remove(&who.tenant);
        }
    }
}

impl Load {
    const fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    fn note_pace(&mut self, held: Duration) {
        self.pace = Some(self.pace.map_or(held, |pace| (pace * 7 + held) / 8));
    }

    /// About when those who wait, and one more, have been served.
    fn served_within(&self, places: usize) -> Duration {
        let Some(pace) = self.pace else {
            return RETRY_UNKNOWN;
        };
        let ahead = u32::try_from(self.waiting + 1).unwrap_or(u32::MAX);
        let places = u32::try_from(places).unwrap_or(u32::MAX).max(1);
        (pace.saturating_mul(ahead) / places).min(RETRY_LONGEST)
    }
}

impl Refusal {
    /// One where nothing is known about when there is room.
    pub(crate) const fn because(reason: Reason) -> Self {
        Self {
            reason,
            retry_after: RETRY_UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests;
