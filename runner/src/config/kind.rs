//! The kinds of values that settings have: how each is read, and how it is shown.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use alga_model::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::secret_file;

/// A value as it was written.
pub(super) enum Raw {
    /// In a file, where numbers and booleans are no text.
    Toml(toml::Value),
    /// In the environment or on the command line.
    Text(String),
}

impl Raw {
    /// The text, whichever way it was written.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }
}

/// How the values of a setting are read and shown.
pub(super) trait Kind {
    /// What a value is read into.
    type Value;

    /// The value, or what is wrong with it in sentences that don't contain it.
    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>>;

    /// The value in TOML, secrets masked; nothing where it is not set.
    fn show(&self, value: &Self::Value) -> Option<String>;

    /// What the setting takes, to follow the words "must be".
    fn expects(&self) -> String;

    /// The value, if `reading` found one.
    fn expect_value(&self, reading: Option<Self::Value>) -> Result<Self::Value, Vec<String>> {
        reading.ok_or_else(|| vec![format!("must be {}", self.expects())])
    }
}

/// Text in TOML.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What is shown of a secret.
pub(super) const MASK: &str = "\"***\"";

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn parse(&self, raw: &Raw) -> Result<bool, Vec<String>> {
        self.expect_value(match raw {
            Raw::Toml(value) => value.as_bool(),
            Raw::Text(text) => text.parse().ok(),
        })
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn expects(&self) -> String {
        "true or false".into()
    }
}

/// `true` or `false` in a file; in the environment anything means `true`, as is the custom for
/// `NO_COLOR`.
pub(super) struct Presence;

impl Kind for Presence {
    type Value = bool;

    fn parse(&self, raw: &Raw) -> Result<bool, Vec<String>> {
        self.expect_value(match raw {
            Raw::Toml(value) => value.as_bool(),
            Raw::Text(_) => Some(true),
        })
    }

    fn show(&self, value: &bool) -> Option<String> {
        Flag.show(value)
    }

    fn expects(&self) -> String {
        "true or false; any value of the variable means true".into()
    }
}

/// A whole number within a range, of a unit that the name of the setting ends with.
pub(super) struct Whole<T> {
    range: RangeInclusive<u64>,
    unit: &'static str,
    from_number: fn(u64) -> Option<T>,
    to_number: fn(&T) -> u64,
}

/// A number of things.
pub(super) fn count<T>(range: RangeInclusive<u64>) -> Whole<T>
where
    T: TryFrom<u64> + TryInto<u64> + Copy,
{
    Whole {
        range,
        unit: "",
        from_number: |number| number.try_into().ok(),
        to_number: |value| (*value).try_into().unwrap_or(u64::MAX),
    }
}

/// A number of things, of which there is at least one.
pub(super) fn count_from_one(most: u32) -> Whole<NonZeroU32> {
    Whole {
        range: 1..=most.into(),
        unit: "",
        from_number: |number| NonZeroU32::new(number.try_into().ok()?),
        to_number: |value| value.get().into(),
    }
}

/// A duration in milliseconds.
pub(super) fn millis(range: RangeInclusive<u64>) -> Whole<Duration> {
    Whole {
        range,
        unit: " ms",
        from_number: |number| Some(Duration::from_millis(number)),
        to_number: |value| value.as_millis().try_into().unwrap_or(u64::MAX),
    }
}

/// A duration in seconds.
pub(super) fn seconds(range: RangeInclusive<u64>) -> Whole<Duration> {
    Whole {
        range,
        unit: " s",
        from_number: |number| Some(Duration::from_secs(number)),
        to_number: Duration::as_secs,
    }
}

/// A duration in days.
pub(super) fn days(range: RangeInclusive<u64>) -> Whole<Duration> {
    Whole {
        range,
        unit: " days",
        from_number: |number| number.checked_mul(DAY_SECONDS).map(Duration::from_secs),
        to_number: |value| value.as_secs() / DAY_SECONDS,
    }
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// A size in bytes.
pub(super) fn bytes(range: RangeInclusive<u64>) -> Whole<u64> {
    Whole {
        unit: " bytes",
        ..count(range)
    }
}

/// A size written in MiB and kept in bytes.
pub(super) fn mebibytes(range: RangeInclusive<u64>) -> Whole<u64> {
    Whole {
        range,
        unit: " MiB",
        from_number: |number| number.checked_mul(1 << 20),
        to_number: |bytes| bytes >> 20,
    }
}

impl<T> Kind for Whole<T> {
    type Value = T;

    fn parse(&self, raw: &Raw) -> Result<T, Vec<String>> {
        let number = match raw {
            Raw::Toml(value) => value.as_integer().and_then(|number| number.try_into().ok()),
            Raw::Text(text) => text.parse().ok(),
        };
        self.expect_value(
            number
                .filter(|number| self.range.contains(number))
                .and_then(self.from_number),
        )
    }

    fn show(&self, value: &T) -> Option<String> {
        Some((self.to_number)(value).to_string())
    }

    fn expects(&self) -> String {
        format!(
            "{} to {}{}",
            self.range.start(),
            self.range.end(),
            self.unit
        )
    }
}

/// A value that may be missing.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>> {
        self.0.parse(raw).map(Some)
    }

    fn show(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(|value| self.0.show(value))
    }

    fn expects(&self) -> String {
        self.0.expects()
    }
}

/// One of a few words.
pub(super) struct OneOf<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for OneOf<T> {
    type Value = T;

    fn parse(&self, raw: &Raw) -> Result<T, Vec<String>> {
        let text = raw.as_text();
        let found = self.0.iter().find(|(word, _)| Some(*word) == text);
        self.expect_value(found.map(|(_, value)| *value))
    }

    fn show(&self, value: &T) -> Option<String> {
        let (word, _) = self.0.iter().find(|(_, known)| known == value)?;
        Some(toml_text(word))
    }

    fn expects(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        words.join(" or ")
    }
}

/// An IP address with a port.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn parse(&self, raw: &Raw) -> Result<SocketAddr, Vec<String>> {
        self.expect_value(raw.as_text().and_then(|text| text.parse().ok()))
    }

    fn show(&self, value: &SocketAddr) -> Option<String> {
        Some(toml_text(&value.to_string()))
    }

    fn expects(&self) -> String {
        "an IP address with a port, such as 127.0.0.1:7410 or [::]:7410".into()
    }
}

/// A path, relative to the working directory.
pub(super) struct Path;

impl Kind for Path {
    type Value = PathBuf;

    fn parse(&self, raw: &Raw) -> Result<PathBuf, Vec<String>> {
        let text = raw.as_text().filter(|text| !text.is_empty());
        self.expect_value(text.map(PathBuf::from))
    }

    fn show(&self, value: &PathBuf) -> Option<String> {
        Some(toml_text(&value.to_string_lossy()))
    }

    fn expects(&self) -> String {
        "a path".into()
    }
}

/// A filter of log events.
pub(super) struct LogFilter;

impl Kind for LogFilter {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Result<String, Vec<String>> {
        // A bare word that is no level would be taken for a module, and nothing be logged at all.
        let is_level =
            |word: &str| word.contains(['=', '[', ':']) || word.parse::<LevelFilter>().is_ok();
        let fine = |text: &&str| {
            !text.trim().is_empty()
                && text.parse::<EnvFilter>().is_ok()
                && text.split(',').all(|part| is_level(part.trim()))
        };
        self.expect_value(raw.as_text().filter(fine).map(str::to_owned))
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(toml_text(value))
    }

    fn expects(&self) -> String {
        "a level or a list such as info,alga_runner=debug".into()
    }
}

/// A key of 32 bytes.
pub(super) struct Key;

impl Kind for Key {
    type Value = Secret<[u8; 32]>;

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>> {
        self.expect_value(raw.as_text().and_then(parse_key))
    }

    fn show(&self, _: &Self::Value) -> Option<String> {
        Some(MASK.into())
    }

    fn expects(&self) -> String {
        "32 bytes in base64 or hexadecimal digits".into()
    }
}

/// The 32 bytes that `text` spells in 64 hexadecimal digits or in base64 of either alphabet, with
/// or without padding; white space around it doesn't count.
pub(crate) fn parse_key(text: &str) -> Option<Secret<[u8; 32]>> {
    let text = text.trim();
    let bytes = if text.len() == 64 {
        parse_hex(text)?
    } else {
        let padded = Secret::new(format!("{}=", text.trim_end_matches('=')));
        STANDARD
            .decode(padded.expose())
            .or_else(|_| URL_SAFE.decode(padded.expose()))
            .ok()?
    };
    let bytes = Secret::new(bytes);
    bytes.expose().as_slice().try_into().ok().map(Secret::new)
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
    bytes.collect::<Option<_>>().filter(|_| rest.is_empty())
}

/// A file that holds a key of 32 bytes, and that key.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub key: Secret<[u8; 32]>,
}

/// The path of a file that holds a [`Key`], read together with the configuration.
pub(super) struct FileOfKey;

impl Kind for FileOfKey {
    type Value = KeyFile;

    fn parse(&self, raw: &Raw) -> Result<KeyFile, Vec<String>> {
        let path = Path.parse(raw)?;
        let text = secret_file::read(&path, secret_file::Readers::Group)
            .map_err(|error| vec![error.without_path()])?;
        let key = parse_key(text.expose())
            .ok_or_else(|| vec![format!("must name a file that holds {}", Key.expects())])?;
        Ok(KeyFile { path, key })
    }

    fn show(&self, value: &KeyFile) -> Option<String> {
        Path.show(&value.path)
    }

    fn expects(&self) -> String {
        format!("the path of a file that holds {}", Key.expects())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<K: Kind>(kind: &K, text: &str) -> Option<K::Value> {
        kind.parse(&Raw::Text(text.into())).ok()
    }

    fn toml<K: Kind>(kind: &K, value: impl Into<toml::Value>) -> Option<K::Value> {
        kind.parse(&Raw::Toml(value.into())).ok()
    }

    #[test]
    fn a_number_is_taken_up_to_both_ends_of_its_range() {
        let kind = bytes(10..=20);
        for (number, fine) in [(9, false), (10, true), (20, true), (21, false), (-1, false)] {
            assert_eq!(text(&kind, &number.to_string()).is_some(), fine, "{number}");
            assert_eq!(toml(&kind, number).is_some(), fine, "{number}");
        }
    }

    #[test]
    fn a_number_in_a_file_is_no_text_and_no_fraction() {
        let kind = bytes(10..=20);
        assert_eq!(toml(&kind, "10"), None);
        assert_eq!(toml(&kind, 10.5), None);
        assert_eq!(text(&kind, "10.5"), None);
        assert_eq!(text(&kind, "99999999999999999999999"), None);
    }

    #[test]
    fn a_number_too_large_for_its_type_is_refused() {
        let kind = count::<u32>(1..=u64::MAX);
        assert_eq!(text(&kind, "4294967295"), Some(u32::MAX));
        assert_eq!(text(&kind, "4294967296"), None);
    }

    #[test]
    fn units_are_applied_when_read_and_when_shown() {
        assert_eq!(text(&mebibytes(1..=9), "2"), Some(2 << 20));
        assert_eq!(mebibytes(1..=9).show(&(2 << 20)).unwrap(), "2");
        assert_eq!(text(&millis(1..=9), "5"), Some(Duration::from_millis(5)));
        assert_eq!(seconds(1..=9).show(&Duration::from_secs(7)).unwrap(), "7");
        let two_days = Duration::from_hours(48);
        assert_eq!(text(&days(1..=9), "2"), Some(two_days));
        assert_eq!(days(1..=9).show(&two_days).unwrap(), "2");
    }

    #[test]
    fn a_key_may_be_spelt_in_several_ways() {
        let key = [0xfb_u8; 32];
        let hex = "fb".repeat(32);
        let base64 = STANDARD.encode(key);
        let url_safe = URL_SAFE.encode(key);
        assert_ne!(base64, url_safe);
        for spelt in [
            &hex,
            &hex.to_uppercase(),
            &base64,
            &url_safe,
            base64.trim_end_matches('='),
            &format!(" {base64}\n"),
        ] {
            assert_eq!(parse_key(spelt).unwrap().expose(), &key, "{spelt}");
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for spelt in [
            STANDARD.encode([1; 31]),
            STANDARD.encode([1; 33]),
            "fb".repeat(31),
            "fb".repeat(33),
            format!("{}zz", "fb".repeat(31)),
            "é".repeat(32),
            String::new(),
            "=".to_owned(),
        ] {
            assert!(parse_key(&spelt).is_none(), "{spelt}");
        }
    }
}
