//! The settings an administrator gives an install.

use std::collections::BTreeMap;
use std::fmt;

use crate::bounds::{ensure_json_size, ensure_plain_text};
use crate::error::RegistryError;

/// An install's settings, by key. `Debug` shows the keys and never a value.
///
/// Keys are 1 to 256 bytes without control characters; everything together is at most 64 KiB of
/// JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

impl Config {
    const MAX_KEY_BYTES: usize = 256;
    const MAX_BYTES: usize = 64 * 1024;

    /// The settings.
    pub const fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The settings.
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        for key in self.0.keys() {
            ensure_plain_text(
                "config key",
                "1 to 256 bytes without control characters",
                key,
                Self::MAX_KEY_BYTES,
            )?;
        }
        ensure_json_size("config", "at most 64 KiB of JSON", &self.0, Self::MAX_BYTES)
    }

    /// The keys that `former` doesn't have, or has with another value.
    pub(crate) fn keys_set_since(&self, former: &Self) -> Vec<&str> {
        let is_set = |(key, value): &(&String, &String)| former.0.get(*key) != Some(*value);
        self.0
            .iter()
            .filter(is_set)
            .map(|(key, _)| key.as_str())
            .collect()
    }

    /// The keys of `former` that are gone.
    pub(crate) fn keys_removed_since<'a>(&self, former: &'a Self) -> Vec<&'a str> {
        former
            .0
            .keys()
            .filter(|key| !self.0.contains_key(*key))
            .map(String::as_str)
            .collect()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config")
            .field(&self.0.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl From<BTreeMap<String, String>> for Config {
    fn from(settings: BTreeMap<String, String>) -> Self {
        Self(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        Config(
            settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn values_are_not_shown() {
        assert_eq!(
            format!("{:?}", config(&[("token", "hunter2")])),
            r#"Config(["token"])"#
        );
    }

    #[test]
    fn a_difference_is_told_in_keys() {
        let before = config(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = config(&[("b", "2"), ("c", "1"), ("d", "1")]);
        assert_eq!(after.keys_set_since(&before), ["b", "d"]);
        assert_eq!(after.keys_removed_since(&before), ["a"]);
    }

    #[test]
    fn the_size_is_that_of_the_json_text() {
        let of_size = |size: usize| config(&[("k", &"x".repeat(size - r#"{"k":""}"#.len()))]);
        assert!(of_size(Config::MAX_BYTES - 1).ensure_valid().is_ok());
        assert!(of_size(Config::MAX_BYTES).ensure_valid().is_ok());
        assert!(of_size(Config::MAX_BYTES + 1).ensure_valid().is_err());
    }
}
