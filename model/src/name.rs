//! The name an extension is known by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of an extension: a reverse domain such as `com.example.notes`.
///
/// Two or more labels joined by dots, at most 128 bytes together; a label is 1–63 of `a-z`, `0-9`
/// and `-`, and neither starts nor ends with `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtensionName(String);

/// A text that is not an [`ExtensionName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an extension name must be a reverse domain of at most 128 characters in a-z, 0-9, '-' and '.', \
     such as com.example.notes"
)]
pub struct ParseExtensionNameError;

impl ExtensionName {
    /// The most bytes a name may have.
    pub const MAX_BYTES: usize = 128;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExtensionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ExtensionName {
    type Err = ParseExtensionNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= Self::MAX_BYTES && text.contains('.') && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseExtensionNameError)
        }
    }
}

impl TryFrom<String> for ExtensionName {
    type Error = ParseExtensionNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ExtensionName> for String {
    fn from(name: ExtensionName) -> Self {
        name.0
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_domains_are_names() {
        for name in [
            "com.example.notes",
            "a.b",
            "io.x-1.y2",
            &format!("a.{}", "b".repeat(63)),
        ] {
            assert!(name.parse::<ExtensionName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long_label = format!("a.{}", "b".repeat(64));
        let long_name = format!("a.{}", ["b"; 64].join("."));
        for name in [
            "",
            "notes",
            "com..notes",
            ".a.b",
            "a.b.",
            "Com.example",
            "a.-b",
            "a.b-",
            "a.b_c",
            "ä.b",
            &long_label,
            &long_name,
        ] {
            assert!(name.parse::<ExtensionName>().is_err(), "{name}");
        }
    }
}
