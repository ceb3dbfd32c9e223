//! Time, as a parameter: whatever decides by the time is handed a [`Clock`].

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// An instant in milliseconds since 1970-01-01T00:00:00Z.
///
/// Shown and serialized as RFC 3339 in UTC with milliseconds, `2026-11-21T18:49:41.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 time between 1970 and 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a time must be RFC 3339 in UTC, such as 2026-11-21T18:49:41.000Z")]
pub struct ParseTimestampError;

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write.
    const LAST: i64 = 253_402_300_799_999;

    /// The instant `ms` milliseconds after the epoch, brought into the years 1970 to 9999.
    pub fn from_millis(ms: i64) -> Self {
        Self(ms.clamp(0, Self::LAST))
    }

    /// Milliseconds since the epoch; never negative.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(Self::LAST);
        Self::from_millis(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = Duration::from_millis(self.0.unsigned_abs());
        humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = humantime::parse_rfc3339(text).map_err(|_| ParseTimestampError)?;
        let since_epoch = time
            .duration_since(UNIX_EPOCH)
            .map_err(|_| ParseTimestampError)?;
        i64::try_from(since_epoch.as_millis())
            .map(Self::from_millis)
            .map_err(|_| ParseTimestampError)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = ParseTimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present instant. Never earlier than an instant this clock gave before.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine, held still while somebody turns it back.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the time"
        )]
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        // Most calls find the millisecond there: writing it again would take it from the other cores.
        let latest = self.latest.load(Ordering::Relaxed);
        let latest = if latest < ms {
            self.latest.fetch_max(ms, Ordering::Relaxed).max(ms)
        } else {
            latest
        };
        Timestamp::from_millis(latest)
    }
}

/// A clock that stands still until it is told to go on, for tests and replays.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn starting_at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_millis()))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let now = self.now().plus(by);
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_shown_in_utc_with_milliseconds() {
        assert_eq!(
            Timestamp::from_millis(0).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(
            Timestamp::from_millis(1_795_286_981_042).to_string(),
            "2026-11-21T18:49:41.042Z"
        );
    }

    #[test]
    fn times_stay_within_what_can_be_written() {
        assert_eq!(Timestamp::from_millis(-5).as_millis(), 0);
        let last = Timestamp::from_millis(i64::MAX);
        assert_eq!(last.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(last.plus(Duration::MAX), last);
    }

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let clock = SystemClock::default();
        clock.latest.store(i64::MAX / 2, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp::from_millis(i64::MAX / 2));
    }

    proptest! {
        #[test]
        fn a_time_survives_its_text(ms in 0..=Timestamp::LAST) {
            let time = Timestamp::from_millis(ms);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
