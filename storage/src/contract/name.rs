//! Names of namespaces and keys.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Violation};

/// The name of a namespace: 1–64 characters, `^[a-z0-9][a-z0-9._-]*$`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// The key of a record: 1–256 bytes of UTF-8 without `/` and control characters, and neither `.`
/// nor `..`. Ordered by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Namespace {
    /// The most characters a name may have.
    pub const MAX_BYTES: usize = 64;

    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] says what a name must look like.
    pub fn parse(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let tail_is_fine = |tail: &str| {
            tail.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        let fine = text.len() <= Self::MAX_BYTES
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && tail_is_fine(&text);
        if fine {
            Ok(Self(text.into()))
        } else {
            Err(Violation::argument(
                "namespace",
                "a namespace is 1 to 64 characters in a-z, 0-9, '.', '_' and '-', and starts with a letter or digit",
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// The most bytes a key may have.
    pub const MAX_BYTES: usize = 256;

    /// Checks a key.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] says what is wrong with it.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        let refused = |message: &str| Err(Violation::argument("key", message));
        if text.is_empty() {
            return refused("a key has at least one character");
        }
        if matches!(text, "." | "..") {
            return refused("a key is neither '.' nor '..'");
        }
        ensure_key_text("key", text)?;
        Ok(Self(text.into()))
    }

    /// A key the backend read back; it was checked when it was written.
    pub(crate) const fn from_stored(text: Arc<str>) -> Self {
        Self(text)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a key and the bounds of a range of keys have in common.
pub(super) fn ensure_key_text(argument: &'static str, text: &str) -> Result<(), Error> {
    let refused = |message: &str| Err(Violation::argument(argument, message));
    if text.len() > Key::MAX_BYTES {
        return refused("at most 256 bytes are allowed");
    }
    if text.contains('/') {
        return refused("'/' is not allowed");
    }
    if text.chars().any(char::is_control) {
        return refused("control characters are not allowed");
    }
    Ok(())
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_at_and_around_every_limit() {
        for good in ["a", "0", "a.b_c-d", "settings", &"n".repeat(64)] {
            assert_eq!(Namespace::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".a",
            "-a",
            "_a",
            "A",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"n".repeat(65),
        ] {
            assert!(Namespace::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_at_and_around_every_limit() {
        let widest = "\u{10FFFF}".repeat(64);
        for good in [
            "k",
            "...",
            ".a",
            "a b",
            "%_\\'\";--",
            "日本語",
            "👩‍👩‍👧",
            "\u{a0}",
            &"k".repeat(256),
            &widest,
        ] {
            assert_eq!(Key::parse(good).unwrap().as_str(), good);
        }
        let wider = format!("{widest}k");
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\0",
            "a\nb",
            "\u{7f}",
            "\u{85}",
            &"k".repeat(257),
            &wider,
        ] {
            assert!(Key::parse(bad).is_err(), "{bad:?}");
        }
    }
}
