//! Durations as arguments name them.

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

#[cfg(test)]
mod tests {
    use super::*;

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
