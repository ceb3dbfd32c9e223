//! How often what may be known was changed, so that nobody goes by what was looked up before.
//!
//! To forget what is known is not enough: who began to look before a change may be done after it, and would
//! leave what was. So what is known says which changes had been counted when the look began.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Ids share them, so that a change has one in a thousand others looked up in vain.
const COUNTERS: usize = 1_024;

/// Counts changes by what was changed.
#[derive(Debug)]
pub(super) struct Changes {
    all: AtomicU64,
    by_id: Box<[AtomicU64]>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            all: AtomicU64::new(0),
            by_id: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many changes there were, of whatever.
    pub(super) fn of_all(&self) -> u64 {
        self.all.load(Ordering::Acquire)
    }

    /// A number that is another one after a change of this.
    pub(super) fn of(&self, id: &Uuid) -> u64 {
        self.counter(id)
            .map_or(0, |counter| counter.load(Ordering::Acquire))
    }

    /// Counts a change of this.
    pub(super) fn count(&self, id: &Uuid) {
        if let Some(counter) = self.counter(id) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        self.all.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a change of everything.
    pub(super) fn count_all(&self) {
        for counter in &self.by_id {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        self.all.fetch_add(1, Ordering::AcqRel);
    }

    fn counter(&self, id: &Uuid) -> Option<&AtomicU64> {
        // The last bits of a UUID are those at random.
        let (_, last) = id.as_u64_pair();
        let index = usize::try_from(last).unwrap_or_default() % COUNTERS;
        self.by_id.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_counted_for_what_it_concerns() {
        let changes = Changes::new();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let before = [changes.of(&one), changes.of(&other), changes.of_all()];
        changes.count(&one);
        assert_ne!(changes.of(&one), before[0]);
        assert_eq!(changes.of(&other), before[1]);
        assert_ne!(changes.of_all(), before[2]);
    }

    #[test]
    fn a_change_of_everything_is_one_of_each() {
        let changes = Changes::new();
        let ids = || (0..5_000).map(Uuid::from_u128);
        let before: Vec<_> = ids().map(|id| changes.of(&id)).collect();
        changes.count_all();
        assert!(
            ids()
                .zip(before)
                .all(|(id, before)| changes.of(&id) != before)
        );
    }
}
