//! Moments as arguments name them.

use std::str::FromStr;
use std::time::Duration;

use alga_model::Timestamp;

/// A time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The time itself.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    /// The time, where it is `now`.
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(duration) => {
                let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(ms))
            }
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self::At)
            .or_else(|_| humantime::parse_duration(text).map(Self::Ago))
            .map_err(|_| "expected RFC 3339 in UTC such as 2026-11-21T18:49:41Z, or a time back such as 24h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_time_back() {
        let now: Timestamp = "2026-11-21T18:49:41.000Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T00:00:00Z", "2026-11-20T00:00:00.000Z"),
            ("24h", "2026-11-20T18:49:41.000Z"),
            ("1day 1s", "2026-11-20T18:49:40.000Z"),
            ("5000years", "1970-01-01T00:00:00.000Z"),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.resolve(now).to_string(), expected, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "24",
            "-1h",
            "2026-11-20",
            "2026-13-01T00:00:00Z",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
