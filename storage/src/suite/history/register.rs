//! What one key answers to one caller at a time: the sequential specification.

/// A call on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    /// Values are numbers that no two writes share.
    Put {
        guard: Guard,
        value: u64,
    },
    Delete(Guard),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Any,
    Absent,
    Exists,
    Revision(u64),
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Read(Option<Version>),
    Written {
        revision: u64,
        previous: Option<Version>,
    },
    Deleted(bool),
    /// The guard failed; the value is told to writers alone.
    Conflict {
        revision: Option<u64>,
        value: Option<u64>,
    },
    /// Nobody waited for the answer, or none came: it may have happened at any time after its
    /// invocation, or never.
    Unknown,
}

/// A record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) value: u64,
}

/// The state of a key.
///
/// The floor that a new record starts above belongs to the namespace, so it may rise for reasons
/// that one key doesn't see: all that is known of a new revision is that it is greater than every
/// former one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Register {
    /// There is no record; the next one's revision is above this.
    Absent {
        above: u64,
    },
    Stored {
        revision: Number,
        value: u64,
    },
}

/// A revision, which nobody was told if an unknown call made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Number {
    Exactly(u64),
    Above(u64),
}

impl Register {
    /// The state of a key that never had a record.
    pub(super) const NEW: Self = Self::Absent { above: 0 };

    /// The state after the call, if at this state it may be answered so. A call without an answer
    /// is taken to happen; none comes of it where it would change nothing.
    pub(super) fn after(self, action: Action, answer: Answer) -> Option<Self> {
        match (action, answer) {
            (Action::Get, Answer::Read(found)) => self.read(found),
            (Action::Put { guard, value }, Answer::Written { revision, previous }) => self
                .read(previous)
                .filter(|_| guard.allows(previous.map(|version| version.revision)))
                .filter(|before| before.may_become(revision))
                .map(|_| Self::stored(Number::Exactly(revision), value)),
            (Action::Put { guard, value }, Answer::Unknown) => {
                Some(Self::stored(self.matched(guard)?.successor(), value))
            }
            (Action::Delete(guard), Answer::Deleted(true) | Answer::Unknown) => {
                self.matched(guard)?.removed()
            }
            (Action::Delete(Guard::Any), Answer::Deleted(false)) => self.read(None),
            (
                Action::Put { guard, .. } | Action::Delete(guard),
                Answer::Conflict { revision, value },
            ) => self
                .told(revision)
                .filter(|_| !guard.allows(revision))
                .filter(|found| value.is_none() || found.value() == value),
            _ => None,
        }
    }

    /// No revision below this will ever be seen again.
    pub(super) const fn least_revision(self) -> u64 {
        match self {
            Self::Absent { above } => above + 1,
            Self::Stored {
                revision: Number::Exactly(revision),
                ..
            } => revision,
            Self::Stored {
                revision: Number::Above(revision),
                ..
            } => revision + 1,
        }
    }

    const fn stored(revision: Number, value: u64) -> Self {
        Self::Stored { revision, value }
    }

    const fn value(self) -> Option<u64> {
        match self {
            Self::Absent { .. } => None,
            Self::Stored { value, .. } => Some(value),
        }
    }

    /// The state in which this record, or none, is read.
    fn read(self, found: Option<Version>) -> Option<Self> {
        self.told(found.map(|version| version.revision))
            .filter(|state| state.value() == found.map(|version| version.value))
    }

    /// The state in which this revision, or none, is there.
    fn told(self, found: Option<u64>) -> Option<Self> {
        match (self, found) {
            (Self::Absent { .. }, None) => Some(self),
            (Self::Stored { revision, value }, Some(found)) if revision.may_be(found) => {
                Some(Self::stored(Number::Exactly(found), value))
            }
            _ => None,
        }
    }

    /// The state in which the guard holds.
    fn matched(self, guard: Guard) -> Option<Self> {
        match (guard, self) {
            (Guard::Any, _)
            | (Guard::Absent, Self::Absent { .. })
            | (Guard::Exists, Self::Stored { .. }) => Some(self),
            (Guard::Revision(revision), _) => self.told(Some(revision)),
            _ => None,
        }
    }

    /// Whether a write here may make this revision.
    fn may_become(self, revision: u64) -> bool {
        self.successor().may_be(revision)
    }

    /// The revision that a write here makes.
    const fn successor(self) -> Number {
        match self {
            Self::Absent { above } => Number::Above(above),
            Self::Stored {
                revision: Number::Exactly(revision),
                ..
            } => Number::Exactly(revision + 1),
            Self::Stored {
                revision: Number::Above(revision),
                ..
            } => Number::Above(revision + 1),
        }
    }

    /// The state without the record that is here.
    const fn removed(self) -> Option<Self> {
        match self {
            Self::Absent { .. } => None,
            Self::Stored {
                revision: Number::Exactly(revision),
                ..
            } => Some(Self::Absent { above: revision }),
            Self::Stored {
                revision: Number::Above(revision),
                ..
            } => Some(Self::Absent {
                above: revision + 1,
            }),
        }
    }
}

impl Answer {
    /// The revision that the answer shows.
    pub(super) fn revision(self) -> Option<u64> {
        match self {
            Self::Read(found) => found.map(|version| version.revision),
            Self::Written { revision, .. } => Some(revision),
            Self::Conflict { revision, .. } => revision,
            Self::Deleted(_) | Self::Unknown => None,
        }
    }
}

impl Number {
    const fn may_be(self, revision: u64) -> bool {
        match self {
            Self::Exactly(this) => this == revision,
            Self::Above(this) => this < revision,
        }
    }
}

impl Guard {
    fn allows(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Exists => found.is_some(),
            Self::Revision(revision) => found == Some(revision),
        }
    }
}
