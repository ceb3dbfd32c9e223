//! Durations as arguments name them.

use std::time::Duration;

/// Whole seconds: a number of them, or a duration with units such as `15m` or `1h 30m`.
pub(super) fn seconds(text: &str) -> Result<u64, &'static str> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| duration.subsec_nanos() == 0)
        .map(|duration| duration.as_secs())
        .ok_or("expected whole seconds, such as 90, 90s, 15m, 12h or 7d")
}

/// How old something is: a duration with units.
pub(super) fn age(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration with its unit, such as 1h or 7d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_units_and_what_is_none_is_told_how_to_write_one() {
        assert_eq!(age("7d"), Ok(Duration::from_hours(168)));
        assert_eq!(age("0s"), Ok(Duration::ZERO));
        for text in ["1", "x", "", "-1h"] {
            assert!(
                age(text).unwrap_err().contains("such as 1h or 7d"),
                "{text}"
            );
        }
    }

    #[test]
    fn seconds_are_a_number_or_have_units() {
        for (text, expected) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43_200),
            ("7d", 604_800),
            ("1h 30m", 5_400),
            ("2000ms", 2),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "-1",
            "1.5",
            "1500ms",
            "soon",
            "7 of them",
            "18446744073709551616",
            "99999999999999999999d",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
