//! The items of a `bulk-put`: JSON lines, or one JSON array.

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use alga_model::{Clock, Timestamp};
use alga_storage::{BulkItem, Guard, Key};
use anyhow::{Context as _, ensure};
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde_json::value::RawValue;

use super::refusal::Refusal;
use super::{at_revision, quoted};
use crate::cli::input;

/// More than any line may have, white space included; the gate says so then.
const MOST_OF_LINE: u64 = 8 << 20;
/// More than any request may have. An array is read as a whole.
pub(super) const MOST_OF_DOCUMENT: u64 = 16 << 20;

/// The items of a document, read one at a time.
pub(super) struct Items {
    source: Source,
    life: Life,
    /// The index of the next item.
    next: usize,
}

/// Where an item is in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// From 1; none in an array.
    line: Option<usize>,
    /// From 0, as the contract counts items.
    index: usize,
}

/// What an item asks for.
#[derive(Debug)]
pub(super) enum Entry {
    /// To be written.
    Item(BulkItem),
    /// To be left alone, as there is nothing to write (any more).
    Skipped(Skipped),
}

/// An item without a record.
#[derive(Debug)]
pub(super) struct Skipped {
    pub(super) key: Key,
    pub(super) why: String,
}

/// How long a copied record may still live.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) clock: Arc<dyn Clock>,
    /// What lives less than this is not taken.
    pub(super) shortest: Duration,
}

enum Source {
    Lines {
        reader: Box<dyn BufRead>,
        /// The number of the line at hand.
        number: usize,
    },
    Array(vec::IntoIter<Box<RawValue>>),
}

impl Items {
    /// The items of a document; an array if it begins with `[`, else JSON lines.
    pub(super) fn open(mut reader: Box<dyn BufRead>, life: Life) -> anyhow::Result<Self> {
        let (newlines, first) = skip_white_space(&mut *reader)?;
        let source = if first == Some(b'[') {
            let text = input::bounded(reader, MOST_OF_DOCUMENT)?;
            let items: Vec<_> = serde_json::from_str(&text)
                .map_err(|error| Refusal::not_valid(format!("it is no array of items: {error}")))?;
            Source::Array(items.into_iter())
        } else {
            Source::Lines {
                reader,
                number: 1 + newlines,
            }
        };
        Ok(Self {
            source,
            life,
            next: 0,
        })
    }

    /// Whether no item was read so far.
    pub(super) const fn none_was_read(&self) -> bool {
        self.next == 0
    }

    /// Reads the next item; none at the end.
    pub(super) fn read(&mut self) -> anyhow::Result<Option<(Position, Entry)>> {
        let Some((line, text)) = self.source.next_text()? else {
            return Ok(None);
        };
        let position = Position {
            line,
            index: self.next,
        };
        self.next += 1;
        let entry = parse(&text, &self.life)
            .with_context(|| position.cannot_write(key_of(&text).as_deref()))?;
        Ok(Some((position, entry)))
    }
}

impl Source {
    /// The text of the next item, and the number of its line.
    fn next_text(&mut self) -> anyhow::Result<Option<(Option<usize>, String)>> {
        match self {
            Self::Array(items) => Ok(items.next().map(|item| (None, text_of(item)))),
            Self::Lines { reader, number } => {
                let (newlines, first) = skip_white_space(&mut **reader)?;
                *number += newlines;
                if first.is_none() {
                    return Ok(None);
                }
                let mut line = read_line(&mut **reader)
                    .with_context(|| format!("cannot read line {number}"))?;
                let this = *number;
                *number += usize::from(line.ends_with('\n'));
                line.truncate(line.trim_ascii_end().len());
                Ok(Some((Some(this), line)))
            }
        }
    }
}

impl Position {
    /// What to say of an item that is refused, and of its key where that is known.
    pub(super) fn cannot_write(self, key: Option<&str>) -> String {
        match key {
            Some(key) => format!("cannot write {self}, key {}", quoted(key)),
            None => format!("cannot write {self}"),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} (item {})", self.index),
            None => write!(f, "item {}", self.index),
        }
    }
}

impl Life {
    /// The seconds left until a time, as many as a record must live at least; none if it has passed.
    fn left_until(&self, end: Timestamp) -> Option<u64> {
        let left = end.as_millis() - self.clock.now().as_millis();
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Some(left.div_ceil(1_000).max(self.shortest.as_secs()))
    }
}

/// An item. A member that is spelt wrongly must not be taken for one that is absent.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemBody {
    key: String,
    #[serde(default, deserialize_with = "even_null")]
    value: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    ttl_seconds: Option<u64>,
    if_revision: Option<u64>,
    if_absent: Option<bool>,
    if_exists: Option<bool>,
    schema_version: Option<u32>,
    // What records are printed with, so that what is printed can be written again.
    ttl_expires_at: Option<Timestamp>,
    found: Option<bool>,
    #[serde(rename = "revision")]
    _revision: Option<IgnoredAny>,
    #[serde(rename = "createdAt")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "updatedAt")]
    _updated_at: Option<IgnoredAny>,
}

impl ItemBody {
    fn guard(&self) -> Result<Guard, Refusal> {
        let asked = (
            self.if_revision,
            self.if_absent.unwrap_or(false),
            self.if_exists.unwrap_or(false),
        );
        Ok(match asked {
            (Some(revision), false, false) => at_revision(revision)?,
            (None, true, false) => Guard::Absent,
            (None, false, true) => Guard::Exists,
            (None, false, false) => Guard::Any,
            _ => {
                return Err(Refusal::not_valid(
                    "an item has one of ifRevision, ifAbsent and ifExists, not several",
                ));
            }
        })
    }
}

/// `null` is a value like any other, and no absence of one.
fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
}

fn parse(text: &str, life: &Life) -> Result<Entry, Refusal> {
    let body: ItemBody = serde_json::from_str(text).map_err(|error| not_an_item(&error))?;
    let guard = body.guard()?;
    let key = Key::parse(body.key)?;
    let skipped = |key, why| Ok(Entry::Skipped(Skipped { key, why }));
    let Some(value) = body.value else {
        if body.found == Some(false) {
            return skipped(key, "there was no such record".to_owned());
        }
        return Err(Refusal::not_valid(
            "the value is missing; `storage list` prints values with --values",
        ));
    };
    let ttl_seconds = match (body.ttl_seconds, body.ttl_expires_at) {
        (ttl_seconds, None) => ttl_seconds,
        (None, Some(end)) => match life.left_until(end) {
            None => return skipped(key, format!("it expired at {end}")),
            left => left,
        },
        (Some(_), Some(_)) => {
            return Err(Refusal::not_valid(
                "an item has one of ttlSeconds and ttlExpiresAt, not both",
            ));
        }
    };
    Ok(Entry::Item(BulkItem {
        key,
        value: text_of(value),
        metadata: body.metadata.map(text_of),
        ttl_seconds,
        schema_version: body.schema_version,
        guard,
    }))
}

/// The key of an item that is refused, where it can be read.
fn key_of(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Keyed {
        key: String,
    }
    let keyed: Keyed = serde_json::from_str(text).ok()?;
    Some(keyed.key)
}

/// An item mostly is one line for the parser; which one it is of the document is said already.
fn not_an_item(error: &serde_json::Error) -> Refusal {
    let reason = error.to_string();
    Refusal::not_valid(reason.replace(" at line 1 column ", " at column "))
}

fn text_of(json: Box<RawValue>) -> String {
    Box::<str>::from(json).into()
}

/// Reads what remains of a line, which must not be longer than [`MOST_OF_LINE`].
fn read_line(reader: &mut dyn BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    reader.take(MOST_OF_LINE + 1).read_line(&mut line)?;
    ensure!(
        line.len() as u64 <= MOST_OF_LINE,
        "it is longer than {MOST_OF_LINE} bytes"
    );
    Ok(line)
}

/// Goes on to what is no white space; how many line ends were passed, and which byte is there.
fn skip_white_space(reader: &mut dyn BufRead) -> io::Result<(usize, Option<u8>)> {
    let mut newlines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let is_at_end = buffer.is_empty();
        let rest = buffer.trim_ascii_start();
        let (white, first) = (buffer.len() - rest.len(), rest.first().copied());
        newlines += buffer.iter().take(white).filter(|b| **b == b'\n').count();
        reader.consume(white);
        if is_at_end || first.is_some() {
            return Ok((newlines, first));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use alga_model::ManualClock;

    use super::*;

    const NOW: &str = "2026-11-21T18:49:41.000Z";

    fn items(text: &str) -> anyhow::Result<Vec<(Position, Entry)>> {
        let life = Life {
            clock: Arc::new(ManualClock::starting_at(NOW.parse().unwrap())),
            shortest: Duration::from_secs(60),
        };
        let mut items = Items::open(Box::new(Cursor::new(text.to_owned())), life)?;
        std::iter::from_fn(|| items.read().transpose()).collect()
    }

    fn item(text: &str) -> BulkItem {
        match items(text).unwrap().remove(0).1 {
            Entry::Item(item) => item,
            Entry::Skipped(skipped) => panic!("{skipped:?}"),
        }
    }

    #[test]
    fn a_line_becomes_an_item_and_its_json_stays_as_it_is() {
        let text = concat!(
            r#"{"key": "a", "value": 1e5, "metadata": { "b": -0 }, "ttlSeconds": 60}"#,
            "\r\n \n",
            r#"  {"key": "b", "value": null, "metadata": null, "ifRevision": 0}"#,
            "\n",
            r#"{"key": "c", "value": "", "ifExists": true, "schemaVersion": 2}"#,
        );
        let items = items(text).unwrap();
        let positions: Vec<_> = items.iter().map(|(at, _)| at.to_string()).collect();
        assert_eq!(
            positions,
            ["line 1 (item 0)", "line 3 (item 1)", "line 4 (item 2)"]
        );
        let [a, b, c] = [0, 1, 2].map(|index: usize| match &items[index].1 {
            Entry::Item(item) => item,
            Entry::Skipped(skipped) => panic!("{skipped:?}"),
        });
        assert_eq!((a.value.as_str(), a.guard), ("1e5", Guard::Any));
        assert_eq!(a.metadata.as_deref(), Some(r#"{ "b": -0 }"#));
        assert_eq!(a.ttl_seconds, Some(60));
        assert_eq!((b.value.as_str(), b.guard), ("null", Guard::Absent));
        assert_eq!(b.metadata, None);
        assert_eq!((c.guard, c.schema_version), (Guard::Exists, Some(2)));
    }

    #[test]
    fn a_document_that_begins_with_a_bracket_is_an_array_of_items() {
        let text =
            "\n\n [\n{\"key\": \"a\",\n \"value\": [1]}, {\"key\": \"b\", \"value\": 1e5}]\n";
        let read = items(text).unwrap();
        let positions: Vec<_> = read.iter().map(|(at, _)| at.to_string()).collect();
        assert_eq!(positions, ["item 0", "item 1"]);
        assert_eq!(item(text).value, "[1]");
        assert!(items(" [ ] ").unwrap().is_empty());
        for (bad, reason) in [
            (r#"[{"key": "a", "value": 1}, 2]"#, "cannot write item 1: "),
            (
                r#"[{"key": "a", "value": 1}, {"key": "b"}]"#,
                "cannot write item 1, key 'b': VALIDATION_FAILED: the value is missing",
            ),
            (r#"[{"key": "a", "value": 1}"#, "no array of items: EOF"),
            (r#"[{"key": "a", "value": 1}] 2"#, "no array of items: trai"),
        ] {
            let said = format!("{:#}", items(bad).unwrap_err());
            assert!(said.contains(reason), "{said}");
        }
    }

    #[test]
    fn there_is_one_guard_at_most() {
        for (member, guard) in [
            (r#""ifAbsent": true"#, Guard::Absent),
            (r#""ifRevision": 0"#, Guard::Absent),
            (r#""ifAbsent": true, "ifExists": false"#, Guard::Absent),
            (r#""ifExists": true, "ifAbsent": null"#, Guard::Exists),
            (r#""ifAbsent": false"#, Guard::Any),
        ] {
            let item = item(&format!(r#"{{"key": "a", "value": 1, {member}}}"#));
            assert_eq!(item.guard, guard, "{member}");
        }
        for members in [
            r#""ifAbsent": true, "ifRevision": 0"#,
            r#""ifAbsent": true, "ifExists": true"#,
            r#""ifRevision": 3, "ifExists": true"#,
        ] {
            let refused = items(&format!(r#"{{"key": "a", "value": 1, {members}}}"#));
            let said = format!("{:#}", refused.unwrap_err());
            assert!(said.contains("ifRevision, ifAbsent and ifExists"), "{said}");
        }
    }

    #[test]
    fn what_is_printed_of_a_record_is_an_item() {
        let printed = |end: &str| {
            format!(
                r#"{{"key": "a", "revision": 7, "value": 1e5, "metadata": {{"b": 1}}, "ttlExpiresAt": {end},
                "createdAt": "{NOW}", "updatedAt": "{NOW}"}}"#
            )
            .replace('\n', "")
        };
        let forever = item(&printed("null"));
        assert_eq!((forever.guard, forever.ttl_seconds), (Guard::Any, None));
        assert_eq!(forever.metadata.as_deref(), Some(r#"{"b": 1}"#));
        for (end, left) in [
            ("2026-11-21T18:49:41.001Z", 60),
            ("2026-11-21T18:50:41.000Z", 60),
            ("2026-11-21T18:50:41.001Z", 61),
            ("2026-11-22T18:49:41.000Z", 86_400),
        ] {
            let mortal = item(&printed(&format!("\"{end}\"")));
            assert_eq!(mortal.ttl_seconds, Some(left), "{end}");
        }
        for (gone, reason) in [
            (printed(&format!("\"{NOW}\"")), "expired"),
            (r#"{"key": "a", "found": false}"#.to_owned(), "no such"),
        ] {
            match &items(&gone).unwrap()[..] {
                [(_, Entry::Skipped(skipped))] => assert!(skipped.why.contains(reason)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_bad_line_is_named_and_its_key_where_it_can_be_read() {
        let good = r#"{"key": "a", "value": 1}"#;
        for (bad, key, reason) in [
            ("{", "", "EOF while parsing an object at column 1"),
            (r#"{"key": "b"}"#, ", key 'b'", "value"),
            (r#"{"value": 1}"#, "", "key"),
            (
                r#"{"key": "b", "value": 1, "ttl": 60}"#,
                ", key 'b'",
                "`ttl`",
            ),
            (
                r#"{"key": "a/\nb", "value": 1}"#,
                r", key 'a/\nb'",
                "'/' is not allowed",
            ),
            (
                r#"{"key": "b", "value": 1, "ttlSeconds": -1}"#,
                ", key 'b'",
                "-1",
            ),
            (
                r#"{"key": "b", "value": 1, "ttlSeconds": 60, "ttlExpiresAt": "2027-01-01T00:00:00Z"}"#,
                ", key 'b'",
                "not both",
            ),
            (
                r#"{"key": "b", "value": 1, "ttlExpiresAt": "soon"}"#,
                ", key 'b'",
                "RFC 3339",
            ),
        ] {
            let error = items(&format!("{good}\n\n{bad}\n")).unwrap_err();
            let said = format!("{error:#}");
            let expected = format!("cannot write line 3 (item 1){key}: VALIDATION_FAILED: ");
            assert!(
                said.starts_with(&expected) && said.contains(reason),
                "{said}"
            );
        }
    }

    #[test]
    fn a_line_is_taken_up_to_its_longest_length() {
        let item = r#"{"key": "a", "value": 1}"#;
        let longest = usize::try_from(MOST_OF_LINE).unwrap() - "\n".len();
        for (length, fine) in [(longest, true), (longest + 1, false)] {
            let spaces = " ".repeat(length - item.len());
            let read = items(&format!("\n{item}{spaces}\n{item}"));
            assert_eq!(read.is_ok(), fine, "{length}");
            if let Err(error) = read {
                assert!(format!("{error:#}").starts_with("cannot read line 2: "));
            }
        }
    }
}
