//! Names of files inside a bundle.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The path of a file or folder inside a bundle: relative, with `/` between the parts.
///
/// Joined to a folder it never leaves that folder, and two paths that differ as text name two
/// different files: there is no `.`, `..`, empty part, backslash or control character in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BundlePath(String);

/// Why a text is not a [`BundlePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundlePathError {
    /// There is no text.
    #[error("a path must not be empty")]
    Empty,
    /// More than [`BundlePath::MAX_BYTES`].
    #[error("a path must be at most {max} bytes", max = BundlePath::MAX_BYTES)]
    TooLong,
    /// It starts with `/`.
    #[error("a path must be relative")]
    Absolute,
    /// A part is `.` or `..`.
    #[error("a path must not contain '.' or '..' as a part")]
    Dots,
    /// Two slashes in a row, or one at the end.
    #[error("a path must not contain an empty part")]
    EmptyPart,
    /// A part is longer than [`BundlePath::MAX_PART_BYTES`].
    #[error("a part of a path must be at most {max} bytes", max = BundlePath::MAX_PART_BYTES)]
    PartTooLong,
    /// Some systems take a backslash for a separator.
    #[error("a path must not contain a backslash")]
    Backslash,
    /// NUL, a line break or another control character.
    #[error("a path must not contain a control character")]
    Control,
}

impl BundlePath {
    /// The most bytes a path may have.
    pub const MAX_BYTES: usize = 512;

    /// The most bytes a file system takes for one part of a path.
    pub const MAX_PART_BYTES: usize = 255;

    /// Parses a path as a manifest may spell it: one `./` in front is dropped.
    pub fn parse_reference(text: &str) -> Result<Self, BundlePathError> {
        text.strip_prefix("./").unwrap_or(text).parse()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders this path lies in, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0
            .match_indices('/')
            .filter_map(|(end, _)| self.0.get(..end))
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BundlePath {
    type Err = BundlePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(BundlePathError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(BundlePathError::TooLong);
        }
        if text.contains(char::is_control) {
            return Err(BundlePathError::Control);
        }
        if text.contains('\\') {
            return Err(BundlePathError::Backslash);
        }
        if text.starts_with('/') {
            return Err(BundlePathError::Absolute);
        }
        text.split('/').try_for_each(check_part)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for BundlePath {
    type Error = BundlePathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BundlePath> for String {
    fn from(path: BundlePath) -> Self {
        path.0
    }
}

impl Borrow<str> for BundlePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn check_part(part: &str) -> Result<(), BundlePathError> {
    match part {
        "" => Err(BundlePathError::EmptyPart),
        "." | ".." => Err(BundlePathError::Dots),
        _ if part.len() > BundlePath::MAX_PART_BYTES => Err(BundlePathError::PartTooLong),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_paths() {
        for path in [
            "manifest.json",
            "dist/main.wasm",
            "ui/a b/ä.js",
            "...",
            "a/..b",
            "%2e%2e/x",
            "c:x",
        ] {
            assert_eq!(path.parse::<BundlePath>().unwrap().as_str(), path);
        }
    }

    #[test]
    fn every_way_out_of_the_folder_is_refused() {
        let cases = [
            ("", BundlePathError::Empty),
            ("/etc/passwd", BundlePathError::Absolute),
            ("//x", BundlePathError::Absolute),
            ("..", BundlePathError::Dots),
            ("../x", BundlePathError::Dots),
            ("a/../../x", BundlePathError::Dots),
            ("a/..", BundlePathError::Dots),
            (".", BundlePathError::Dots),
            ("./x", BundlePathError::Dots),
            ("a/./b", BundlePathError::Dots),
            ("a//b", BundlePathError::EmptyPart),
            ("a/", BundlePathError::EmptyPart),
            ("..\\x", BundlePathError::Backslash),
            ("a\0b", BundlePathError::Control),
            ("a\nb", BundlePathError::Control),
            ("a\u{85}b", BundlePathError::Control),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<BundlePath>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_refused_just_above_the_limit() {
        let part = "a".repeat(BundlePath::MAX_PART_BYTES);
        let path = format!("{part}/{}/", "a".repeat(200));
        let fill = BundlePath::MAX_BYTES - path.len();
        assert!(
            format!("{path}{}", "b".repeat(fill))
                .parse::<BundlePath>()
                .is_ok()
        );
        let too_long = format!("{path}{}", "b".repeat(fill + 1));
        assert_eq!(
            too_long.parse::<BundlePath>(),
            Err(BundlePathError::TooLong)
        );
        assert_eq!(
            format!("{part}a").parse::<BundlePath>(),
            Err(BundlePathError::PartTooLong)
        );
    }

    #[test]
    fn a_reference_may_start_with_one_dot() {
        assert_eq!(
            BundlePath::parse_reference("./schemas/a.json")
                .unwrap()
                .as_str(),
            "schemas/a.json"
        );
        assert_eq!(
            BundlePath::parse_reference("././a"),
            Err(BundlePathError::Dots)
        );
        assert_eq!(
            BundlePath::parse_reference(".//a"),
            Err(BundlePathError::Absolute)
        );
    }

    #[test]
    fn ancestors_are_the_folders_around_a_path() {
        let path: BundlePath = "a/b/c".parse().unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
    }

    proptest! {
        #[test]
        fn a_path_has_only_ordinary_components(text in r"[./\\ab\x00\u{e4}]{0,12}") {
            if let Ok(path) = text.parse::<BundlePath>() {
                let parts: Vec<_> = Path::new(path.as_str()).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                // No two spellings of one file: the components say all that the text says.
                let joined: Vec<_> = parts.iter().map(|part| part.as_os_str().to_str().unwrap()).collect();
                prop_assert_eq!(joined.join("/"), text);
            }
        }
    }
}
