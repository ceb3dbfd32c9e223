//! Revisions and the guards that name them.

use std::fmt;
use std::num::NonZeroU64;

use crate::error::{Error, Violation};

/// The version of a record: at least 1, and growing over the whole life of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(NonZeroU64);

impl Revision {
    /// The first revision of all.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The greatest revision, which SQL databases can still hold.
    const MAX: u64 = i64::MAX.unsigned_abs();

    /// Checks a number.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] for 0 and for what is beyond 2^63 - 1.
    pub fn parse(number: u64) -> Result<Self, Error> {
        NonZeroU64::new(number)
            .filter(|n| n.get() <= Self::MAX)
            .map(Self)
            .ok_or_else(|| {
                Violation::argument(
                    "ifRevision",
                    "a revision is a number from 1 to 9223372036854775807",
                )
            })
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The revision that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The first revision above every one that was removed, of which `floor` is the greatest
    /// (0 where none was).
    pub const fn above(floor: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(floor))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must be true of the stored record for a write to happen. An expired record counts as
/// absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Nothing.
    #[default]
    Any,
    /// There is no record (`ifRevision: 0`).
    Absent,
    /// There is a record (`ifExists`).
    Exists,
    /// There is a record of this revision (`ifRevision`).
    Exactly(Revision),
}

impl Guard {
    /// Whether a record of revision `stored`, or no record, lets the write happen.
    pub fn allows(self, stored: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => stored.is_none(),
            Self::Exists => stored.is_some(),
            Self::Exactly(revision) => stored == Some(revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_at_least_one_and_fits_a_database() {
        assert!(Revision::parse(0).is_err());
        assert_eq!(Revision::parse(1).unwrap(), Revision::FIRST);
        assert_eq!(
            Revision::parse(i64::MAX.unsigned_abs()).unwrap().get(),
            i64::MAX.unsigned_abs()
        );
        assert!(Revision::parse(i64::MAX.unsigned_abs() + 1).is_err());
    }

    #[test]
    fn a_new_record_starts_above_the_floor() {
        assert_eq!(Revision::above(0), Revision::FIRST);
        assert_eq!(Revision::above(41).get(), 42);
    }

    #[test]
    fn guards_judge_what_is_stored() {
        let one = Some(Revision::FIRST);
        let two = Some(Revision::FIRST.next());
        let cases = [
            (Guard::Any, [true, true, true]),
            (Guard::Absent, [true, false, false]),
            (Guard::Exists, [false, true, true]),
            (Guard::Exactly(Revision::FIRST), [false, true, false]),
        ];
        for (guard, expected) in cases {
            assert_eq!(
                [None, one, two].map(|stored| guard.allows(stored)),
                expected,
                "{guard:?}"
            );
        }
    }
}
