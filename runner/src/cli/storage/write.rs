//! Writing and deleting records.

use std::path::{Path, PathBuf};

use alga_storage::{
    BulkError, BulkItem, BulkPutRequest, DeleteRequest, Error, Guard, Key, Namespace, PutRequest,
    Revision,
};
use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::lines::{RecordLine, ReplacedLine, WrittenLine};
use super::{Door, Place, refusal};
use crate::cli::{input, output};

/// More than any value may have, white space included; the gate says so then.
const MOST_OF_VALUE: u64 = 8 << 20;
/// More than any request may have.
const MOST_OF_BULK: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Put {
    #[command(flatten)]
    pub(super) place: Place,
    /// The key
    key: String,
    /// The value, as JSON; `-` reads it from standard input
    value: String,
    /// A JSON object to keep beside the value
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Let the record vanish after this time
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    #[command(flatten)]
    guard: PutGuard,
    /// Print what was written, and the record that it replaced, as JSON
    #[arg(long)]
    return_previous: bool,
    /// Where the guard fails, print the record that is there as JSON
    #[arg(long)]
    return_current: bool,
}

#[derive(Debug, Args)]
struct PutGuard {
    /// Write only if the record has this revision; 0 means that there is none
    #[arg(long = "if-revision", value_name = "REVISION")]
    revision: Option<u64>,
    /// Write only if there is no such record
    #[arg(long = "if-absent", conflicts_with = "revision")]
    absent: bool,
    /// Write only if there is such a record
    #[arg(long = "if-exists", conflicts_with_all = ["revision", "absent"])]
    exists: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BulkPut {
    #[command(flatten)]
    pub(super) place: Place,
    /// JSON lines of `key`, `value` and, where wanted, `metadata`, `ttlSeconds`, `ifRevision` (0: there
    /// is none), `ifExists`, `schemaVersion`; `-` reads standard input
    #[arg(default_value = input::STDIN)]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    pub(super) place: Place,
    /// The key
    key: String,
    /// Delete only if the record has this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Fail unless there is such a record
    #[arg(long, conflicts_with = "if_revision")]
    if_exists: bool,
}

impl Put {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let guard = self.guard.parse()?;
        let value = if self.value == input::STDIN {
            input::text(Path::new(input::STDIN), MOST_OF_VALUE)?
        } else {
            self.value
        };
        let item = BulkItem {
            key: Key::parse(self.key)?,
            value,
            metadata: self.metadata,
            ttl_seconds: self.ttl,
            schema_version: None,
            guard,
        };
        let request = PutRequest {
            namespace: Namespace::parse(self.place.namespace)?,
            item,
            return_previous: self.return_previous,
            return_current: self.return_current,
        };
        match door.gate.put(&door.caller, request).await {
            Ok(written) if self.return_previous => output::json(&ReplacedLine::of(written)?)?,
            Ok(written) => output::line(written.revision)?,
            Err(error) => {
                if let Error::RevisionMismatch(found) = &error
                    && let Some(current) = found.current.clone()
                {
                    output::json(&RecordLine::of_record(current)?)?;
                }
                return Err(refusal(error));
            }
        }
        Ok(())
    }
}

impl PutGuard {
    fn parse(&self) -> Result<Guard, Error> {
        Ok(match self.revision {
            Some(revision) => at_revision(revision)?,
            None if self.absent => Guard::Absent,
            None if self.exists => Guard::Exists,
            None => Guard::Any,
        })
    }
}

impl BulkPut {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let text = input::text(&self.file, MOST_OF_BULK)?;
        let (lines, items): (Vec<_>, Vec<_>) = items(&text)?.into_iter().unzip();
        let request = BulkPutRequest {
            namespace: Namespace::parse(self.place.namespace)?,
            items,
        };
        let written = door.gate.bulk_put(&door.caller, request).await;
        for written in written.map_err(|failed| bulk_refusal(failed, &lines))? {
            output::json(&WrittenLine::from(written))?;
        }
        Ok(())
    }
}

impl Delete {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let guard = match self.if_revision {
            Some(revision) => Guard::Exactly(Revision::parse(revision)?),
            None if self.if_exists => Guard::Exists,
            None => Guard::Any,
        };
        let request = DeleteRequest {
            namespace: Namespace::parse(self.place.namespace)?,
            key: Key::parse(self.key)?,
            guard,
        };
        let deleted = door.gate.delete(&door.caller, request).await;
        output::json(&json!({ "deleted": deleted.map_err(refusal)? }))?;
        Ok(())
    }
}

/// One line of a bulk. A member that is spelt wrongly must not be taken for one that is absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemBody {
    key: String,
    value: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    ttl_seconds: Option<u64>,
    if_revision: Option<u64>,
    if_exists: Option<bool>,
    schema_version: Option<u32>,
}

/// The items of a bulk, each with the number of its line.
fn items(text: &str) -> anyhow::Result<Vec<(usize, BulkItem)>> {
    let lines = (1..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .enumerate()
        .map(|(index, (number, line))| {
            let item = item(line)
                .with_context(|| format!("nothing was written: line {number} (item {index})"))?;
            Ok((number, item))
        })
        .collect()
}

fn item(line: &str) -> anyhow::Result<BulkItem> {
    let body: ItemBody = serde_json::from_str(line).map_err(|error| not_an_item(&error))?;
    let if_exists = body.if_exists.unwrap_or(false);
    let guard = match body.if_revision {
        Some(revision) => at_revision(revision)?,
        None if if_exists => Guard::Exists,
        None => Guard::Any,
    };
    ensure!(
        !(if_exists && guard == Guard::Absent),
        "a record can't both exist and have the ifRevision 0"
    );
    Ok(BulkItem {
        key: Key::parse(body.key)?,
        value: String::from(Box::<str>::from(body.value)),
        metadata: body
            .metadata
            .map(|json| String::from(Box::<str>::from(json))),
        ttl_seconds: body.ttl_seconds,
        schema_version: body.schema_version,
        guard,
    })
}

/// The text has one line for the parser; which one it is of the bulk is said already.
fn not_an_item(error: &serde_json::Error) -> anyhow::Error {
    anyhow!(
        "{}",
        error
            .to_string()
            .replace(" at line 1 column ", " at column ")
    )
}

fn at_revision(revision: u64) -> Result<Guard, Error> {
    match revision {
        0 => Ok(Guard::Absent),
        _ => Revision::parse(revision).map(Guard::Exactly),
    }
}

/// Why a bulk failed; `lines` are those of its items.
fn bulk_refusal(failed: BulkError, lines: &[usize]) -> anyhow::Error {
    let reason = refusal(failed.error);
    match failed.item {
        None => reason,
        Some(item) => {
            let line = lines.get(item.index).copied().unwrap_or_default();
            let (index, key) = (item.index, item.key);
            reason.context(format!(
                "nothing was written: line {line} (item {index}, key '{key}')"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_an_item_and_its_json_stays_as_it_is() {
        let text = concat!(
            r#"{"key": "a", "value": 1e5, "metadata": { "b": -0 }, "ttlSeconds": 60}"#,
            "\n\n",
            r#"{"key": "b", "value": null, "metadata": null, "ifRevision": 0}"#,
            "\n",
            r#"{"key": "c", "value": "", "ifExists": true, "schemaVersion": 2}"#,
        );
        let items = items(text).unwrap();
        let numbers: Vec<_> = items.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 3, 4]);
        let [a, b, c] = [0, 1, 2].map(|index: usize| &items[index].1);
        assert_eq!((a.value.as_str(), a.guard), ("1e5", Guard::Any));
        assert_eq!(a.metadata.as_deref(), Some(r#"{ "b": -0 }"#));
        assert_eq!(a.ttl_seconds, Some(60));
        assert_eq!((b.value.as_str(), b.guard), ("null", Guard::Absent));
        assert_eq!(b.metadata, None);
        assert_eq!((c.guard, c.schema_version), (Guard::Exists, Some(2)));
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = r#"{"key": "a", "value": 1}"#;
        for (bad, reason) in [
            ("{", "EOF"),
            (r#"{"key": "b"}"#, "value"),
            (r#"{"value": 1}"#, "key"),
            (r#"{"key": "b", "value": 1, "ttl": 60}"#, "ttl"),
            (r#"{"key": "a/b", "value": 1}"#, "key"),
            (r#"{"key": "b", "value": 1, "ttlSeconds": -1}"#, "-1"),
            (
                r#"{"key": "b", "value": 1, "ifRevision": 0, "ifExists": true}"#,
                "both",
            ),
        ] {
            let error = items(&format!("{good}\n\n{bad}\n")).unwrap_err();
            let said = format!("{error:#}");
            assert!(
                said.starts_with("nothing was written: line 3 (item 1): ") && said.contains(reason),
                "{said}"
            );
        }
    }
}
