//! What commands read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use alga_model::parse_json;
use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The argument that stands for standard input.
pub(super) const STDIN: &str = "-";

/// A file, or standard input, as messages call it.
pub(super) fn name(file: &Path) -> String {
    if file == Path::new(STDIN) {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

/// Opens a file, or standard input, to be read a piece at a time.
pub(super) fn open(file: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if file == Path::new(STDIN) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| format!("cannot read {}", name(file)))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// Reads a whole file, or standard input, that must not be longer than `most` bytes.
pub(super) fn text(file: &Path, most: u64) -> anyhow::Result<String> {
    bounded(open(file)?, most).with_context(|| format!("cannot read {}", name(file)))
}

/// What an argument says, or standard input where the argument stands for it.
pub(super) fn argument(text: String, most: u64) -> anyhow::Result<String> {
    if text == STDIN {
        self::text(Path::new(STDIN), most)
    } else {
        Ok(text)
    }
}

/// Reads a JSON value from a file or from standard input.
pub(super) fn json(file: &Path, most: u64) -> anyhow::Result<Value> {
    let text = text(file, most)?;
    parsed(&text).with_context(|| format!("{} is not JSON that can be used", name(file)))
}

/// The JSON value that a text is, read as strictly as a server reads it.
pub(super) fn parsed(text: &str) -> anyhow::Result<Value> {
    let (value, repeated) = parse_json(text.as_bytes())?;
    let repeated = repeated.join(", ");
    ensure!(repeated.is_empty(), "written twice: {repeated}");
    Ok(value)
}

/// Reads what is left of `source`, which must not be longer than `most` bytes.
pub(super) fn bounded(source: impl Read, most: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = source
        .take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    ensure!(read as u64 <= most, "it is longer than {most} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_allowed_is_read_and_nothing_cut_off() {
        assert_eq!(bounded("12345".as_bytes(), 5).unwrap(), "12345");
        assert!(bounded("123456".as_bytes(), 5).is_err());
        assert!(bounded([0xFF].as_slice(), 5).is_err(), "no UTF-8");
    }

    #[test]
    fn json_says_nothing_twice_and_nothing_but_what_is_written() {
        assert_eq!(parsed(r#"{"a": 1}"#).unwrap()["a"], 1);
        for bad in [
            "{",
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": {"$serde_json::private::RawValue": "7"}}"#,
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_argument_is_what_it_says_unless_it_stands_for_standard_input() {
        assert_eq!(argument("--".to_owned(), 0).unwrap(), "--");
        assert_eq!(name(Path::new(STDIN)), "standard input");
        assert_eq!(name(Path::new("./-")), "./-");
    }
}
