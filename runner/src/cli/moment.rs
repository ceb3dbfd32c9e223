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
        time(text)
            .map(Self::At)
            .or_else(|| humantime::parse_duration(text).ok().map(Self::Ago))
            .ok_or("expected RFC 3339 such as 2026-11-21T18:49:41Z, a date such as 2026-11-21 for its beginning in UTC, or a time back such as 24h")
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let in_utc = || text.parse().ok();
    let beginning_of_date = || format!("{text}T00:00:00Z").parse().ok();
    in_utc()
        .or_else(beginning_of_date)
        .or_else(|| with_offset(text))
}

/// A time that says how far it is from UTC, such as `2026-11-21T19:49:41+01:00`.
fn with_offset(text: &str) -> Option<Timestamp> {
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+01:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let ms = (two_digits(hours, 23)? * 60 + two_digits(minutes, 59)?) * 60_000;
    let ends_in_digit = local.ends_with(|last: char| last.is_ascii_digit());
    let local: Timestamp = format!("{local}Z").parse().ok().filter(|_| ends_in_digit)?;
    let utc = match offset.chars().next()? {
        '+' => local.as_millis() - ms,
        '-' => local.as_millis() + ms,
        _ => return None,
    };
    Some(Timestamp::from_millis(utc))
}

fn two_digits(text: &str, most: i64) -> Option<i64> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number)?;
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_time_back() {
        let now: Timestamp = "2026-11-21T18:49:41.000Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T00:00:00Z", "2026-11-20T00:00:00.000Z"),
            ("2026-11-20T00:00:00.5+00:00", "2026-11-20T00:00:00.500Z"),
            ("2026-11-20T01:30:00+01:30", "2026-11-20T00:00:00.000Z"),
            ("2026-11-19T12:00:00.25-12:00", "2026-11-20T00:00:00.250Z"),
            ("2026-11-19T00:01:00-23:59", "2026-11-20T00:00:00.000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000Z"),
            ("2028-02-29", "2028-02-29T00:00:00.000Z"),
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
            "2026-11",
            "2026-02-29",
            "2026-11-20Z",
            "2026-11-20+01:00",
            "2026-13-01T00:00:00Z",
            "2026-11-20T00:00:00",
            "2026-11-20T00:00:00+24:00",
            "2026-11-20T00:00:00+01:60",
            "2026-11-20T00:00:00+1:000",
            "2026-11-20T00:00:00+0100",
            "2026-11-20T00:00:00 01:00",
            "2026-11-20T00:00:00Z+01:00",
            "2026-11-20T00:00:00é1:00",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
