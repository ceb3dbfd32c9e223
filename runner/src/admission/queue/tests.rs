use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn who(tenant: u128, install: u128) -> Who {
    Who {
        tenant: TenantId::new(Uuid::from_u128(tenant)),
        install: InstallId::new(Uuid::from_u128(tenant * 100 + install)),
    }
}

const fn caps(running: usize, waiting: usize) -> Caps {
    Caps { running, waiting }
}

fn queue(process: Caps, tenant: Caps, install: Caps) -> Queue<u64> {
    Queue::new(Limits {
        process,
        reserve: 0,
        tenant,
        install,
    })
}

const NOBODY: [u64; 0] = [];
const MANY: Caps = caps(1_000, 1_000);

fn runs(queue: &mut Queue<u64>, who: Who) {
    let arrival = queue.arrive(who, None, || panic!("it has to wait"));
    assert!(matches!(arrival, Arrival::Runs), "{arrival:?}");
}

fn waits(queue: &mut Queue<u64>, who: Who, name: u64) -> Ticket {
    match queue.arrive(who, None, || name) {
        Arrival::Waits {
            ticket,
            displaced: None,
        } => ticket,
        other => panic!("{other:?}"),
    }
}

fn refused(queue: &mut Queue<u64>, who: Who) -> Refusal {
    match queue.arrive(who, None, || 0) {
        Arrival::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn released(queue: &mut Queue<u64>, who: Who) -> Vec<u64> {
    let served = queue.release(who, SECOND);
    served.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn each_cap_holds_at_its_limit() {
    let a = who(1, 1);
    for (process, tenant, install, reason) in [
        (caps(2, 1), MANY, MANY, Reason::Process),
        (MANY, caps(2, 1), MANY, Reason::Tenant),
        (MANY, MANY, caps(2, 1), Reason::Install),
    ] {
        let mut queue = queue(process, tenant, install);
        runs(&mut queue, a);
        runs(&mut queue, a);
        let ticket = waits(&mut queue, a, 1);
        assert_eq!(refused(&mut queue, a).reason, reason);
        assert_eq!((queue.running(), queue.waiting()), (2, 1));
        let left = queue.leave(a, ticket).unwrap();
        assert_eq!(left.reason, reason);
        assert!(queue.leave(a, ticket).is_none(), "it left once already");
        waits(&mut queue, a, 2);
        assert_eq!(released(&mut queue, a), [2]);
        assert_eq!(released(&mut queue, a), NOBODY);
        assert_eq!(released(&mut queue, a), NOBODY);
        assert!(queue.tenants.is_empty() && queue.installs.is_empty());
    }
}

#[test]
fn a_thousand_calls_that_wait_cost_another_tenant_one_turn() {
    let mut queue = queue(caps(1, 2_000), MANY, MANY);
    let (flood, other) = (who(1, 1), who(2, 1));
    runs(&mut queue, flood);
    for name in 0..1_000 {
        waits(&mut queue, flood, name);
    }
    waits(&mut queue, other, 5_000);
    waits(&mut queue, other, 5_001);
    assert_eq!(released(&mut queue, flood), [0]);
    assert_eq!(released(&mut queue, flood), [5_000]);
    assert_eq!(released(&mut queue, other), [1]);
    assert_eq!(released(&mut queue, flood), [5_001]);
    assert_eq!(released(&mut queue, other), [2]);
    assert_eq!(released(&mut queue, flood), [3]);
}

#[test]
fn an_install_without_room_is_passed_over() {
    let mut queue = queue(MANY, caps(3, 10), caps(1, 10));
    let (busy, idle, third) = (who(1, 1), who(1, 2), who(1, 3));
    runs(&mut queue, busy);
    waits(&mut queue, busy, 1);
    runs(&mut queue, idle);
    runs(&mut queue, third);
    // Now the tenant has no room either.
    waits(&mut queue, busy, 2);
    waits(&mut queue, idle, 3);
    assert_eq!(released(&mut queue, third), NOBODY);
    assert_eq!(released(&mut queue, idle), [3]);
    assert_eq!(released(&mut queue, busy), [1]);
    assert_eq!(released(&mut queue, busy), [2]);
}

#[test]
fn whoever_waits_most_makes_room_for_who_waits_less() {
    let mut queue = queue(caps(1, 4), MANY, MANY);
    let (first, second, third) = (who(1, 1), who(2, 1), who(3, 1));
    runs(&mut queue, first);
    for name in 1..=4 {
        waits(&mut queue, first, name);
    }
    assert_eq!(refused(&mut queue, first).reason, Reason::Process);
    for (newcomer, name, displaced) in [(second, 5, 4), (third, 6, 3)] {
        match queue.arrive(newcomer, None, || name) {
            Arrival::Waits {
                displaced: Some((waiter, refusal)),
                ..
            } => assert_eq!((waiter, refusal.reason), (displaced, Reason::Process)),
            other => panic!("{other:?}"),
        }
    }
    // Two, one and one wait: nobody has to give way any more.
    assert_eq!(refused(&mut queue, second).reason, Reason::Process);
    assert_eq!(released(&mut queue, first), [1]);
    assert_eq!(released(&mut queue, first), [5]);
    assert_eq!(released(&mut queue, second), [6]);
    assert_eq!(released(&mut queue, third), [2]);
}

#[test]
fn a_closed_queue_serves_who_waits_and_nobody_else() {
    let mut queue = queue(caps(1, 10), MANY, MANY);
    let a = who(1, 1);
    runs(&mut queue, a);
    waits(&mut queue, a, 1);
    queue.close();
    assert_eq!(refused(&mut queue, a).reason, Reason::Closed);
    assert_eq!(released(&mut queue, a), [1]);
    assert_eq!(released(&mut queue, a), NOBODY);
    assert_eq!(refused(&mut queue, a).reason, Reason::Closed);
}

#[test]
fn when_to_try_again_follows_from_what_waits_and_what_ended() {
    let mut queue = queue(MANY, MANY, caps(2, 3));
    let a = who(1, 1);
    runs(&mut queue, a);
    runs(&mut queue, a);
    for name in 1..=3 {
        waits(&mut queue, a, name);
    }
    assert_eq!(refused(&mut queue, a).retry_after, RETRY_UNKNOWN);
    queue.release(a, 8 * SECOND);
    waits(&mut queue, a, 4);
    // Three wait, one more comes, two at once are served in eight seconds.
    assert_eq!(refused(&mut queue, a).retry_after, 16 * SECOND);
    queue.release(a, 3_600 * SECOND);
    waits(&mut queue, a, 5);
    assert_eq!(refused(&mut queue, a).retry_after, RETRY_LONGEST);
}

#[test]
fn a_third_tenant_gets_in_while_two_flood() {
    let mut queue = Queue::new(Limits {
        process: caps(8, 100),
        reserve: 2,
        tenant: caps(4, 100),
        install: MANY,
    });
    let (first, second, third, fourth) = (who(1, 1), who(2, 1), who(3, 1), who(4, 1));
    for (flood, runs_at_once) in [(first, 4), (second, 2)] {
        for _ in 0..runs_at_once {
            runs(&mut queue, flood);
        }
        waits(&mut queue, flood, 1);
    }
    // Each has one of the reserve, and no second one.
    for (newcomer, name) in [(third, 3), (fourth, 4)] {
        runs(&mut queue, newcomer);
        waits(&mut queue, newcomer, name);
    }
    assert_eq!(queue.running(), 8);
    waits(&mut queue, who(5, 1), 5);
    // What the floods give back is for those who run nothing, until the reserve is there again.
    assert_eq!(released(&mut queue, first), [5]);
    assert_eq!(released(&mut queue, first), NOBODY);
    assert_eq!(released(&mut queue, first), NOBODY);
    // From then on tenants take turns as ever.
    assert_eq!(released(&mut queue, second), [1]);
    assert_eq!(released(&mut queue, second), [3]);
}

#[test]
fn a_tenant_alone_has_all_but_the_reserve() {
    let mut queue = Queue::new(Limits {
        process: caps(4, 100),
        reserve: 1,
        tenant: MANY,
        install: MANY,
    });
    let a = who(1, 1);
    for _ in 0..3 {
        runs(&mut queue, a);
    }
    let ticket = waits(&mut queue, a, 1);
    assert_eq!(queue.leave(a, ticket).unwrap().reason, Reason::Process);
    for _ in 0..3 {
        assert_eq!(released(&mut queue, a), NOBODY);
    }
    // The reserve is for the first call of anybody.
    for tenant in 2..=4 {
        runs(&mut queue, who(tenant, 1));
    }
    runs(&mut queue, a);
}

#[test]
fn an_install_with_a_cap_of_its_own_has_that_one_at_once() {
    let mut queue = queue(MANY, caps(4, 100), caps(2, 100));
    let a = who(1, 1);
    let arrive = |queue: &mut Queue<u64>, most, name| {
        let served = queue.limit(a, most);
        let served: Vec<_> = served.into_iter().map(|(_, name)| name).collect();
        let arrival = queue.arrive(a, most, || name);
        (served, matches!(arrival, Arrival::Runs))
    };
    assert_eq!(arrive(&mut queue, Some(1), 1), (vec![], true));
    assert_eq!(arrive(&mut queue, Some(1), 2), (vec![], false));
    assert_eq!(arrive(&mut queue, Some(1), 3), (vec![], false));
    // Wider: who waits runs first.
    assert_eq!(arrive(&mut queue, Some(3), 4), (vec![2, 3], false));
    assert_eq!(arrive(&mut queue, Some(100), 5), (vec![4], false));
    assert_eq!(queue.running(), 4, "never more than the tenant may have");
    // Narrower: what runs goes on, and nobody takes its place.
    assert_eq!(arrive(&mut queue, None, 6), (vec![], false));
    assert_eq!(released(&mut queue, a), NOBODY);
    assert_eq!(released(&mut queue, a), NOBODY);
    assert_eq!(released(&mut queue, a), [5]);
    assert_eq!(released(&mut queue, a), [6]);
    released(&mut queue, a);
    released(&mut queue, a);
    // Of an install without calls nothing is remembered.
    assert!(queue.installs.is_empty());
    assert_eq!(arrive(&mut queue, None, 7), (vec![], true));
    assert_eq!(arrive(&mut queue, None, 8), (vec![], true));
    assert_eq!(arrive(&mut queue, None, 9), (vec![], false));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Arrive(u128, u128),
    Release(usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u128, 0..2_u128).prop_map(|(tenant, install)| Step::Arrive(tenant, install)),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Leave),
    ]
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let any_caps =
        |most: usize| (1..=most, 1..8_usize).prop_map(|(running, waiting)| caps(running, waiting));
    (any_caps(5), any::<usize>(), any_caps(4), any_caps(3)).prop_map(
        |(process, reserve, tenant, install)| Limits {
            process,
            reserve: reserve % process.running,
            tenant,
            install,
        },
    )
}

/// The same calls, kept as plain lists.
struct Model {
    limits: Limits,
    running: Vec<Who>,
    /// In the order they came, with the names they are known by.
    waiting: Vec<(u64, Who, Ticket)>,
    /// For each tenant that could run if the process had room: how often others were served since.
    passed_over: BTreeMap<TenantId, BTreeMap<TenantId, usize>>,
}

impl Model {
    fn count<'a>(calls: impl Iterator<Item = &'a Who>, who: Who) -> [usize; 3] {
        calls.fold([0; 3], |[all, tenant, install], other| {
            [
                all + 1,
                tenant + usize::from(other.tenant == who.tenant),
                install + usize::from(other.install == who.install),
            ]
        })
    }

    fn running(&self, who: Who) -> [usize; 3] {
        Self::count(self.running.iter(), who)
    }

    fn waiting(&self, who: Who) -> [usize; 3] {
        Self::count(self.waiting.iter().map(|(_, who, _)| who), who)
    }

    /// Whether the install and the tenant have room, and whether the process has.
    fn room(&self, who: Who) -> (bool, bool) {
        let [all, tenant, install] = self.running(who);
        let Limits {
            process,
            reserve,
            tenant: of_tenant,
            install: of_install,
        } = self.limits;
        let kept_back = if tenant == 0 { 0 } else { reserve };
        (
            tenant < of_tenant.running && install < of_install.running,
            all + kept_back < process.running,
        )
    }

    fn serve(&mut self, who: Who, name: u64) {
        let at = self.waiting.iter().position(|(other, ..)| *other == name);
        let (_, waited, _) = self.waiting.remove(at.expect("who is served has waited"));
        assert_eq!(waited, who);
        let overtaken = self.waiting[..at.unwrap_or_default()]
            .iter()
            .find(|(_, other, _)| other.tenant == who.tenant && self.room(*other).0);
        assert_eq!(overtaken, None, "{name} came later and could run too");
        // The reserve is nobody's turn: those who run something can't have it.
        let is_turn = self.running.len() + self.limits.reserve < self.limits.process.running;
        for (tenant, served) in &mut self.passed_over {
            if is_turn && *tenant != who.tenant {
                let turns = served.entry(who.tenant).or_default();
                *turns += 1;
                assert!(*turns <= 1, "{tenant} was passed over");
            }
        }
        self.passed_over.remove(&who.tenant);
        self.running.push(who);
    }

    fn forget(&mut self, name: u64) {
        self.waiting.retain(|(other, ..)| *other != name);
    }

    fn check(&mut self, queue: &Queue<u64>) {
        assert_eq!(queue.running(), self.running.len());
        assert_eq!(queue.waiting(), self.waiting.len());
        let Limits {
            process,
            tenant,
            install,
            ..
        } = self.limits;
        let everybody = self
            .running
            .iter()
            .chain(self.waiting.iter().map(|(_, who, _)| who));
        for who in everybody {
            let [all, of_tenant, of_install] = self.running(*who);
            assert!(all <= process.running);
            assert!(of_tenant <= tenant.running);
            assert!(of_install <= install.running);
            let [all, of_tenant, of_install] = self.waiting(*who);
            assert!(all <= process.waiting);
            assert!(of_tenant <= tenant.waiting);
            assert!(of_install <= install.waiting);
        }
        let mut could_run = Vec::new();
        for (name, who, _) in &self.waiting {
            let (of_its_own, of_process) = self.room(*who);
            assert!(!(of_its_own && of_process), "{name} waits for nothing");
            if of_its_own {
                could_run.push(who.tenant);
            }
        }
        self.passed_over
            .retain(|tenant, _| could_run.contains(tenant));
        for tenant in could_run {
            self.passed_over.entry(tenant).or_default();
        }
        let mut turns: Vec<_> = queue.turns.iter().copied().collect();
        turns.sort_unstable();
        assert!(turns.iter().eq(self.passed_over.keys()), "{turns:?}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_the_caps_hold_and_everybody_is_served(
        limits in any_limits(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut queue = Queue::new(limits);
        let mut model = Model {
            limits,
            running: Vec::new(),
            waiting: Vec::new(),
            passed_over: BTreeMap::new(),
        };
        for (name, step) in (0..).zip(steps) {
            match step {
                Step::Arrive(tenant, install) => {
                    let who = who(tenant, install);
                    match queue.arrive(who, None, || name) {
                        Arrival::Runs => model.running.push(who),
                        Arrival::Waits { ticket, displaced } => {
                            model.waiting.push((name, who, ticket));
                            if let Some((displaced, _)) = displaced {
                                model.forget(displaced);
                            }
                        }
                        Arrival::Refused(_) => {}
                    }
                }
                Step::Release(index) if !model.running.is_empty() => {
                    let who = model.running.swap_remove(index % model.running.len());
                    for (who, name) in queue.release(who, SECOND) {
                        model.serve(who, name);
                    }
                }
                Step::Leave(index) if !model.waiting.is_empty() => {
                    let (_, who, ticket) = model.waiting.remove(index % model.waiting.len());
                    assert!(queue.leave(who, ticket).is_some());
                }
                Step::Release(_) | Step::Leave(_) => {}
            }
            model.check(&queue);
        }
        while let Some(who) = model.running.pop() {
            for (who, name) in queue.release(who, SECOND) {
                model.serve(who, name);
            }
            model.check(&queue);
        }
        assert_eq!(model.waiting, [], "nobody is left behind");
        assert!(queue.tenants.is_empty() && queue.installs.is_empty());
        assert!(queue.turns.is_empty());
    }
}
