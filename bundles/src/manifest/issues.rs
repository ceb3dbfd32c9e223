//! What is wrong with a manifest, in no more words than an answer or a line of a log may have.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

/// The most issues that are told one by one: a manifest of 256 KiB has room for a hundred thousand.
const MOST: usize = 100;
/// The most bytes of a path and of a message, whatever they quote.
const MOST_BYTES: usize = 512;
/// The issues that the one line of an error has room for.
const SHOWN: usize = 5;

/// Something to say about one place of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Issue {
    /// JSON pointer of the place, in which long names are cut; empty for the manifest as a whole.
    pub path: String,
    /// What it is.
    pub message: String,
}

/// A manifest that is refused, with its reasons.
///
/// As text it has the first few of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest is invalid: {}", Shown(.issues))]
pub struct InvalidManifest {
    /// At least one, sorted by path. Of more than a hundred, the last one tells how many others there are.
    pub issues: Vec<Issue>,
}

impl InvalidManifest {
    pub(crate) fn of(path: String, message: impl Into<String>) -> Self {
        let mut issues = Issues::default();
        issues.add(path, message);
        Self {
            issues: issues.into_list(),
        }
    }
}

/// At most one issue per path, the first one: what else is found there is noise. Beyond a hundred paths
/// they are only counted.
#[derive(Debug, Default)]
pub(crate) struct Issues {
    told: BTreeMap<String, String>,
    untold: usize,
}

impl Issues {
    pub(crate) fn add(&mut self, path: String, message: impl Into<String>) {
        let path = cut(path);
        if self.told.contains_key(&path) {
            return;
        }
        if self.told.len() == MOST {
            self.untold += 1;
        } else {
            self.told.insert(path, cut(message.into()));
        }
    }

    pub(crate) fn check<T, E: Display>(&mut self, path: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.add(path.to_owned(), error.to_string());
        }
    }

    /// Sorted by path, but for the last one where there are others.
    pub(crate) fn into_list(self) -> Vec<Issue> {
        let told = self.told.into_iter();
        let mut list: Vec<_> = told
            .map(|(path, message)| Issue { path, message })
            .collect();
        if self.untold > 0 {
            list.push(Issue {
                path: String::new(),
                message: format!("and {} more", self.untold),
            });
        }
        list
    }

    pub(crate) fn into_result(self) -> Result<(), InvalidManifest> {
        let issues = self.into_list();
        if issues.is_empty() {
            Ok(())
        } else {
            Err(InvalidManifest { issues })
        }
    }
}

impl Extend<Issue> for Issues {
    fn extend<I: IntoIterator<Item = Issue>>(&mut self, issues: I) {
        for Issue { path, message } in issues {
            self.add(path, message);
        }
    }
}

/// A text without what is beyond the bytes that it may have.
fn cut(mut text: String) -> String {
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES));
        text.push('…');
    }
    text
}

/// The first few issues, in one line.
struct Shown<'a>(&'a [Issue]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Issue { path, message }) in self.0.iter().take(SHOWN).enumerate() {
            let between = if index == 0 { "" } else { "; " };
            let colon = if path.is_empty() { "" } else { ": " };
            write!(f, "{between}{path}{colon}{message}")?;
        }
        if self.0.len() > SHOWN {
            f.write_str("; and others")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: usize) -> Vec<Issue> {
        let mut issues = Issues::default();
        // The second look at a place tells nothing new.
        for index in (0..count).chain(0..count.min(MOST)) {
            issues.add(format!("/assets/{index}"), "must be a string");
        }
        issues.into_list()
    }

    #[test]
    fn a_hundred_are_told_and_the_others_counted() {
        assert_eq!(of(99).len(), 99);
        assert_eq!(of(100).len(), 100);
        for (count, more) in [(101, "and 1 more"), (160_001, "and 159901 more")] {
            let issues = of(count);
            assert_eq!(issues.len(), 101);
            let last = issues.last().unwrap();
            assert_eq!((last.path.as_str(), last.message.as_str()), ("", more));
        }
    }

    #[test]
    fn an_error_shows_the_first_few_in_one_line() {
        let shown = |count| InvalidManifest { issues: of(count) }.to_string();
        assert_eq!(
            shown(2),
            "the manifest is invalid: /assets/0: must be a string; /assets/1: must be a string"
        );
        assert!(shown(5).ends_with("/assets/4: must be a string"));
        assert!(shown(6).ends_with("/assets/4: must be a string; and others"));
        let whole = InvalidManifest::of(String::new(), "not valid JSON");
        assert_eq!(whole.to_string(), "the manifest is invalid: not valid JSON");
    }

    #[test]
    fn what_is_told_of_one_is_bounded() {
        for (bytes, expected) in [
            (512, 512),
            (513, 512 + "…".len()),
            (100_000, 512 + "…".len()),
        ] {
            let issues = InvalidManifest::of("x".repeat(bytes), "x".repeat(bytes)).issues;
            assert_eq!(issues[0].path.len(), expected);
            assert_eq!(issues[0].message.len(), expected);
        }
        let within_a_character =
            InvalidManifest::of(String::new(), "x".to_owned() + &"ä".repeat(512));
        assert_eq!(within_a_character.issues[0].message.len(), 511 + "…".len());
    }
}
