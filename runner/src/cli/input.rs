//! What commands read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The argument that stands for standard input.
pub(super) const STDIN: &str = "-";

/// Reads a whole file, or standard input, that must not be longer than `most` bytes.
pub(super) fn text(file: &Path, most: u64) -> anyhow::Result<String> {
    if file == Path::new(STDIN) {
        return bounded(io::stdin().lock(), most).context("cannot read standard input");
    }
    File::open(file)
        .map_err(anyhow::Error::from)
        .and_then(|open| bounded(open, most))
        .with_context(|| format!("cannot read {}", file.display()))
}

/// Reads a JSON value from a file or from standard input.
pub(super) fn json(file: &Path, most: u64) -> anyhow::Result<Value> {
    let text = text(file, most)?;
    serde_json::from_str(&text).with_context(|| match file.to_str() {
        Some(STDIN) => "standard input is not JSON".to_owned(),
        _ => format!("{} is not JSON", file.display()),
    })
}

fn bounded(source: impl Read, most: u64) -> anyhow::Result<String> {
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
}
