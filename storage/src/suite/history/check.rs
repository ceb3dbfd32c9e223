//! Whether a concurrent history of one key has an explanation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;

use super::register::{Action, Answer, Guard, Register};

/// A call and when it was under way, by a clock that counts events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) action: Action,
    pub(super) answer: Answer,
    pub(super) invoked: u64,
    pub(super) returned: u64,
}

/// A history that no order of its calls explains.
#[derive(Debug)]
pub(super) struct Violation {
    longest: Order,
    /// What could not come next.
    pending: Vec<Call>,
    /// Whether there is no explanation, or just none among as many orders as were tried.
    pub(super) is_proven: bool,
}

/// Configurations after which the search ends. A history with an explanation needs a few times as
/// many as it has calls; only one without, in which many outcomes are unknown, has this many.
const MOST_TRIED: usize = 50_000;

/// Looks for an order of the calls, each at one instant between its invocation and its return, in
/// which a [`Register`] answers them as they were answered.
///
/// # Errors
/// The longest order that was found, and the calls that may not follow on it.
pub(super) fn linearize(calls: &[Call]) -> Result<(), Violation> {
    // The order that explains most comes first, and of these the one that assumes least.
    let mut open = BinaryHeap::from([Order::empty(calls.len())]);
    let mut seen = HashSet::new();
    let mut longest = Order::empty(calls.len());
    while let Some(mut order) = open.pop() {
        order.place_what_changes_nothing(calls);
        if order.is_complete(calls) {
            return Ok(());
        }
        for index in order.candidates(calls) {
            if let Some(next) = order.followed_by(calls, index)
                && !next.is_too_late(calls)
                && seen.insert((next.is_placed.clone(), next.register))
            {
                open.push(next);
            }
        }
        longest = longest.max(order);
        if seen.len() > MOST_TRIED {
            break;
        }
    }
    let pending = longest.candidates(calls).map(|index| calls[index]);
    Err(Violation {
        pending: pending.collect(),
        is_proven: open.is_empty(),
        longest,
    })
}

/// Calls that were put in an order, which as such is forgotten, and the state it led to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    answered: usize,
    assumed: Reverse<usize>,
    is_placed: Vec<bool>,
    register: Register,
}

impl Order {
    fn empty(calls: usize) -> Self {
        Self {
            answered: 0,
            assumed: Reverse(0),
            is_placed: vec![false; calls],
            register: Register::NEW,
        }
    }

    /// Calls without an answer may never have happened.
    fn is_complete(&self, calls: &[Call]) -> bool {
        self.pending()
            .all(|index| calls[index].answer == Answer::Unknown)
    }

    fn pending(&self) -> impl Iterator<Item = usize> {
        let placed = self.is_placed.iter().enumerate();
        placed
            .filter(|(_, placed)| !**placed)
            .map(|(index, _)| index)
    }

    /// The calls that may come next: those that began before any other pending one had ended.
    fn candidates(&self, calls: &[Call]) -> impl Iterator<Item = usize> {
        let ends = self.pending().map(|index| calls[index].ended());
        let first_end = ends.min().unwrap_or(u64::MAX);
        self.pending()
            .filter(move |index| calls[*index].invoked < first_end)
    }

    fn followed_by(&self, calls: &[Call], index: usize) -> Option<Self> {
        let register = self.after(&calls[index])?;
        let mut next = Self {
            register,
            ..self.clone()
        };
        next.place(calls, index);
        Some(next)
    }

    fn place(&mut self, calls: &[Call], index: usize) {
        self.is_placed[index] = true;
        match calls[index].answer {
            Answer::Unknown => self.assumed.0 += 1,
            _ => self.answered += 1,
        }
    }

    /// Whether a call that is left shows a revision that is in the past already. Revisions only grow,
    /// so it would never find its place.
    fn is_too_late(&self, calls: &[Call]) -> bool {
        let least = self.register.least_revision();
        let shown = self.pending().filter_map(|index| calls[index].revision());
        shown.min().is_some_and(|revision| revision < least)
    }

    /// What may come next and leaves the state as it is, such as a read, can as well come now: no
    /// order is lost, and the exponentially many orders of concurrent reads become one.
    fn place_what_changes_nothing(&mut self, calls: &[Call]) {
        while let Some(index) = self.idle_candidate(calls) {
            self.place(calls, index);
        }
    }

    fn idle_candidate(&self, calls: &[Call]) -> Option<usize> {
        let leaves_it = |index: &usize| self.after(&calls[*index]) == Some(self.register);
        self.candidates(calls).find(leaves_it)
    }

    fn after(&self, call: &Call) -> Option<Register> {
        self.register.after(call.action, call.answer)
    }
}

impl Call {
    fn ended(&self) -> u64 {
        match self.answer {
            Answer::Unknown => u64::MAX,
            _ => self.returned,
        }
    }

    /// The revision that the record had before or after the call, where its answer tells.
    fn revision(&self) -> Option<u64> {
        match (self.action, self.answer) {
            (Action::Delete(Guard::Revision(revision)), Answer::Deleted(true)) => Some(revision),
            (_, answer) => answer.revision(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = if self.is_proven {
            "no order"
        } else {
            "none of the orders that were tried"
        };
        let Order {
            answered, register, ..
        } = &self.longest;
        write!(
            f,
            "{found} explains it; after {answered} calls, at {register:?}, these can't come next:"
        )?;
        let mut pending = self.pending.iter();
        pending.try_for_each(|call| write!(f, "\n  {call:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::Version;
    use super::*;

    fn call(action: Action, answer: Answer, (invoked, returned): (u64, u64)) -> Call {
        Call {
            action,
            answer,
            invoked,
            returned,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what a reader finds")]
    fn version(revision: u64, value: u64) -> Option<Version> {
        Some(Version { revision, value })
    }

    fn get(found: Option<Version>, time: (u64, u64)) -> Call {
        call(Action::Get, Answer::Read(found), time)
    }

    fn put(
        guard: Guard,
        value: u64,
        revision: u64,
        previous: Option<Version>,
        time: (u64, u64),
    ) -> Call {
        call(
            Action::Put { guard, value },
            Answer::Written { revision, previous },
            time,
        )
    }

    fn conflict(guard: Guard, revision: Option<u64>, value: Option<u64>, time: (u64, u64)) -> Call {
        call(
            Action::Put { guard, value: 99 },
            Answer::Conflict { revision, value },
            time,
        )
    }

    fn delete(guard: Guard, deleted: bool, time: (u64, u64)) -> Call {
        call(Action::Delete(guard), Answer::Deleted(deleted), time)
    }

    fn unknown(action: Action, invoked: u64) -> Call {
        call(action, Answer::Unknown, (invoked, invoked + 1))
    }

    fn unknown_put(value: u64, invoked: u64) -> Call {
        unknown(
            Action::Put {
                guard: Guard::Any,
                value,
            },
            invoked,
        )
    }

    fn is_linearizable(calls: &[Call]) -> bool {
        linearize(calls).is_ok()
    }

    #[test]
    fn a_history_without_overlap_is_judged_in_its_order() {
        let history = [
            get(None, (0, 1)),
            put(Guard::Absent, 10, 1, None, (2, 3)),
            put(Guard::Revision(1), 20, 2, version(1, 10), (4, 5)),
            conflict(Guard::Revision(1), Some(2), Some(20), (6, 7)),
            delete(Guard::Exists, true, (8, 9)),
            delete(Guard::Any, false, (10, 11)),
            conflict(Guard::Exists, None, None, (12, 13)),
            put(Guard::Any, 30, 7, None, (14, 15)),
            get(version(7, 30), (16, 17)),
        ];
        assert!(is_linearizable(&history));
        for left_out in [1, 2, 4, 7] {
            let mut history = history.to_vec();
            history.remove(left_out);
            assert!(!is_linearizable(&history), "without call {left_out}");
        }
    }

    #[test]
    fn calls_that_overlap_may_take_effect_in_any_order() {
        // The reader that began last saw the older value, the one that began first the newer one.
        let overlapping = [
            put(Guard::Any, 10, 1, None, (0, 9)),
            put(Guard::Any, 20, 2, version(1, 10), (1, 8)),
            get(version(2, 20), (2, 7)),
            get(version(1, 10), (3, 6)),
            get(None, (4, 5)),
        ];
        assert!(is_linearizable(&overlapping));
    }

    #[test]
    fn readers_that_follow_each_other_may_not_go_back_in_time() {
        let history = |second: (u64, u64)| {
            [
                put(Guard::Any, 10, 1, None, (0, 1)),
                put(Guard::Any, 20, 2, version(1, 10), (2, 9)),
                get(version(2, 20), (3, 5)),
                get(version(1, 10), second),
            ]
        };
        assert!(is_linearizable(&history((4, 6))));
        assert!(!is_linearizable(&history((6, 7))));
    }

    #[test]
    fn a_lost_update_is_refused() {
        let race = |second| {
            [
                put(Guard::Any, 10, 1, None, (0, 1)),
                put(Guard::Revision(1), 20, 2, version(1, 10), (2, 5)),
                second,
            ]
        };
        assert!(is_linearizable(&race(conflict(
            Guard::Revision(1),
            Some(2),
            Some(20),
            (3, 4)
        ))));
        assert!(!is_linearizable(&race(put(
            Guard::Revision(1),
            30,
            2,
            version(1, 10),
            (3, 4)
        ))));
        assert!(!is_linearizable(&race(put(
            Guard::Revision(1),
            30,
            3,
            version(2, 20),
            (3, 4)
        ))));
    }

    #[test]
    fn a_guard_that_matches_a_record_created_again_is_refused() {
        let reborn = |revision| {
            [
                put(Guard::Any, 10, 1, None, (0, 1)),
                delete(Guard::Any, true, (2, 3)),
                put(Guard::Any, 20, revision, None, (4, 5)),
                put(
                    Guard::Revision(revision),
                    30,
                    revision + 1,
                    version(revision, 20),
                    (6, 7),
                ),
            ]
        };
        assert!(is_linearizable(&reborn(2)));
        assert!(is_linearizable(&reborn(1_000)));
        assert!(!is_linearizable(&reborn(1)));
    }

    #[test]
    fn a_stale_read_is_refused() {
        let read = |found| {
            [
                put(Guard::Any, 10, 1, None, (0, 1)),
                put(Guard::Any, 20, 2, version(1, 10), (2, 3)),
                get(found, (4, 5)),
            ]
        };
        assert!(is_linearizable(&read(version(2, 20))));
        for stale in [None, version(1, 10), version(2, 10), version(3, 20)] {
            assert!(!is_linearizable(&read(stale)), "{stale:?}");
        }
    }

    #[test]
    fn a_write_of_unknown_outcome_may_have_happened_or_not() {
        let before = put(Guard::Any, 10, 1, None, (0, 1));
        for found in [version(1, 10), version(2, 20)] {
            assert!(
                is_linearizable(&[before, unknown_put(20, 2), get(found, (4, 5))]),
                "{found:?}"
            );
        }
        // Once seen it has happened, and only once.
        let seen = [before, unknown_put(20, 2), get(version(2, 20), (4, 5))];
        assert!(!is_linearizable(
            &[&seen[..], &[get(version(1, 10), (6, 7))]].concat()
        ));
        assert!(!is_linearizable(
            &[&seen[..], &[get(version(3, 20), (6, 7))]].concat()
        ));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_long_after_its_caller_left() {
        let history = [
            put(Guard::Any, 10, 1, None, (0, 1)),
            unknown_put(20, 2),
            get(version(1, 10), (4, 5)),
            get(version(2, 20), (6, 7)),
        ];
        assert!(is_linearizable(&history));
    }

    #[test]
    fn a_write_of_unknown_outcome_never_happens_before_its_invocation() {
        let history = |invoked| {
            [
                put(Guard::Any, 10, 1, None, (0, 1)),
                get(version(2, 20), (2, 4)),
                unknown_put(20, invoked),
            ]
        };
        assert!(is_linearizable(&history(3)));
        assert!(!is_linearizable(&history(5)));
    }

    #[test]
    fn a_delete_of_unknown_outcome_may_have_happened_or_not() {
        let after = |last| {
            let gone = unknown(Action::Delete(Guard::Revision(1)), 2);
            [put(Guard::Any, 10, 1, None, (0, 1)), gone, last]
        };
        assert!(is_linearizable(&after(get(None, (4, 5)))));
        assert!(is_linearizable(&after(get(version(1, 10), (4, 5)))));
        assert!(is_linearizable(&after(put(
            Guard::Absent,
            20,
            2,
            None,
            (4, 5)
        ))));
        assert!(!is_linearizable(&after(put(
            Guard::Absent,
            20,
            1,
            None,
            (4, 5)
        ))));
    }

    #[test]
    fn the_revision_that_an_unknown_write_made_is_settled_by_whoever_sees_it() {
        // Created above a floor that nobody knows.
        let created = unknown_put(10, 0);
        let seen = |revision| get(version(revision, 10), (2, 3));
        let replaced = |revision| put(Guard::Any, 20, revision, version(revision - 1, 10), (4, 5));
        assert!(is_linearizable(&[created, seen(41), replaced(42)]));
        assert!(!is_linearizable(&[created, seen(41), replaced(43)]));
        assert!(is_linearizable(&[created, replaced(43)]));
        let guarded = unknown(
            Action::Put {
                guard: Guard::Revision(41),
                value: 30,
            },
            4,
        );
        let then = |revision| get(version(revision, 30), (6, 7));
        assert!(is_linearizable(&[created, seen(41), guarded, then(42)]));
        assert!(!is_linearizable(&[created, seen(40), guarded, then(42)]));
    }

    #[test]
    fn many_concurrent_readers_are_judged_without_trying_their_orders() {
        let mut history = vec![put(Guard::Any, 10, 1, None, (0, 1_000)), unknown_put(20, 1)];
        history.extend((2..200).map(|at| get(version(1, 10), (at, 999))));
        assert!(is_linearizable(&history));
        history.push(get(version(2, 30), (500, 501)));
        assert!(!is_linearizable(&history));
    }
}
