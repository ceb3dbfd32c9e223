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
