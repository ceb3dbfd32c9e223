//! Ranges of keys, as plain bounds that every database compares alike.

use super::name::{Key, ensure_key_text};
use crate::error::Error;

/// Sorts after every key: a key has room for 64 of these characters, and none is greater.
const CEILING: &str = {
    const ABOVE_ALL: [u8; 65 * 4] = {
        let mut bytes = [0; 65 * 4];
        let mut i = 0;
        while i < bytes.len() {
            // U+10FFFF in UTF-8.
            let unit = [0xF4, 0x8F, 0xBF, 0xBF];
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            {
                bytes[i] = unit[i % 4];
            }
            i += 1;
        }
        bytes
    };
    match std::str::from_utf8(&ABOVE_ALL) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    }
};

/// The keys from `lower` (inclusive) to `upper` (exclusive), by bytes.
///
/// Prefix, start, end and the place a cursor names all become these two bounds, so that a backend
/// needs one statement for a direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    lower: String,
    upper: String,
    asked: Asked,
}

/// What a range was asked for by; its bounds don't tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) prefix: Option<String>,
    pub(crate) start: Option<String>,
    pub(crate) end: Option<String>,
}

impl KeyRange {
    /// The keys that start with `prefix`, from `start` (inclusive) to `end` (exclusive).
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] where one of them could not be part of a key.
    pub fn parse(
        prefix: Option<&str>,
        start: Option<&str>,
        end: Option<&str>,
    ) -> Result<Self, Error> {
        let mut range = Self {
            lower: String::new(),
            upper: CEILING.to_owned(),
            asked: Asked {
                prefix: prefix.map(str::to_owned),
                start: start.map(str::to_owned),
                end: end.map(str::to_owned),
            },
        };
        if let Some(prefix) = prefix {
            ensure_key_text("keyPrefix", prefix)?;
            range.raise(prefix.to_owned());
            range.cap(after_prefix(prefix));
        }
        if let Some(start) = start {
            ensure_key_text("startKey", start)?;
            range.raise(start.to_owned());
        }
        if let Some(end) = end {
            ensure_key_text("endKey", end)?;
            range.cap(end.to_owned());
        }
        Ok(range)
    }

    /// What is left of the range after `key` was listed in the given direction.
    #[must_use]
    pub fn beyond(mut self, key: &Key, reverse: bool) -> Self {
        if reverse {
            self.cap(key.as_str().to_owned());
        } else {
            // No valid key lies between: a key holds no character as small as U+0001.
            self.raise(format!("{key}\u{1}"));
        }
        self
    }

    /// What it was asked for by.
    pub(crate) const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The first key that belongs to the range.
    pub fn lower(&self) -> &str {
        &self.lower
    }

    /// The first key that lies behind the range.
    pub fn upper(&self) -> &str {
        &self.upper
    }

    fn raise(&mut self, lower: String) {
        if lower > self.lower {
            self.lower = lower;
        }
    }

    fn cap(&mut self, upper: String) {
        if upper < self.upper {
            self.upper = upper;
        }
    }
}

/// The least text greater than every text that starts with `prefix`.
///
/// UTF-8 sorts like the code points it encodes, so the last character that has a successor is
/// replaced by it and the rest dropped.
fn after_prefix(prefix: &str) -> String {
    let mut head = prefix.to_owned();
    while let Some(last) = head.pop() {
        if let Some(next) = successor(last) {
            head.push(next);
            return head;
        }
    }
    CEILING.to_owned()
}

fn successor(character: char) -> Option<char> {
    match character {
        // The surrogates in between are no characters.
        '\u{D7FF}' => Some('\u{E000}'),
        _ => char::from_u32(u32::from(character) + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(range: &KeyRange, key: &str) -> bool {
        range.lower() <= key && key < range.upper()
    }

    #[test]
    fn no_bounds_contain_every_key() {
        let all = KeyRange::parse(None, None, None).unwrap();
        for key in ["!", "k", &"\u{10FFFF}".repeat(64)] {
            assert!(contains(&all, key));
        }
    }

    #[test]
    fn bounds_that_could_be_no_key_are_refused() {
        for text in ["a/b", "a\u{1}", &"k".repeat(257)] {
            assert!(KeyRange::parse(Some(text), None, None).is_err());
            assert!(KeyRange::parse(None, Some(text), None).is_err());
            assert!(KeyRange::parse(None, None, Some(text)).is_err());
        }
    }

    /// Keys near the edges of UTF-8, where a prefix has no simple successor.
    fn key() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                Just('a'),
                Just('b'),
                Just('%'),
                Just('\u{7ff}'),
                Just('\u{D7FF}'),
                Just('\u{E000}'),
                Just('\u{FFFF}'),
                Just('\u{10FFFF}')
            ],
            1..5,
        )
        .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn a_range_is_what_prefix_start_and_end_say(
            key in key(), prefix in proptest::option::of(key()),
            start in proptest::option::of(key()), end in proptest::option::of(key()),
        ) {
            let range = KeyRange::parse(prefix.as_deref(), start.as_deref(), end.as_deref()).unwrap();
            let expected = prefix.is_none_or(|prefix| key.starts_with(&prefix))
                && start.is_none_or(|start| start <= key)
                && end.is_none_or(|end| key < end);
            prop_assert_eq!(contains(&range, &key), expected);
        }

        #[test]
        fn what_lies_beyond_a_key_is_every_key_on_that_side(at in key(), other in key()) {
            let all = KeyRange::parse(None, None, None).unwrap();
            let place = Key::parse(at.clone()).unwrap();
            prop_assert_eq!(contains(&all.clone().beyond(&place, false), &other), other > at);
            prop_assert_eq!(contains(&all.beyond(&place, true), &other), other < at);
        }
    }
}
