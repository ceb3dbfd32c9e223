//! Writing and deleting a record.

use alga_storage::{BulkItem, DeleteRequest, Error, Guard, JsonText, PutRequest, Revision};
use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::lines::{ReplacedLine, record};
use super::refusal::Refusal;
use super::{Door, Place, at_revision, key};
use crate::cli::duration;
use crate::cli::{input, output};

/// More than any value may have, white space included; the gate says so then.
const MOST_OF_VALUE: u64 = 8 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Put {
    #[command(flatten)]
    pub(super) place: Place,
    /// The key
    key: String,
    /// The value, as JSON; `-` reads it from standard input
    value: String,
    /// A JSON object to keep beside the value; `-` reads it from standard input
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Let the record vanish after this time: seconds, or a duration such as 15m, 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration::seconds)]
    ttl: Option<u64>,
    /// Check the value against this version of the namespace's schema
    #[arg(long, value_name = "N")]
    schema_version: Option<u32>,
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
        let namespace = self.place.namespace()?;
        let key = key(self.key)?;
        let guard = self.guard.parse()?;
        ensure!(
            self.value != input::STDIN || self.metadata.as_deref() != Some(input::STDIN),
            "standard input is the value or the metadata, it can't be both"
        );
        let lacks_quotes = lacks_quotes(&self.value);
        let metadata = self
            .metadata
            .map(|json| input::argument(json, MOST_OF_VALUE));
        let item = BulkItem {
            key,
            value: input::argument(self.value, MOST_OF_VALUE)?,
            metadata: metadata.transpose()?,
            ttl_seconds: self.ttl,
            schema_version: self.schema_version,
            guard,
        };
        let request = PutRequest {
            namespace: namespace.clone(),
            item,
            return_previous: self.return_previous,
            return_current: self.return_current,
        };
        match door.gate.put(&door.caller, request).await {
            Ok(written) if self.return_previous => {
                output::json(&ReplacedLine::of(&namespace, written)?)?;
            }
            Ok(written) => output::line(written.revision)?,
            Err(error) => {
                if let Error::RevisionMismatch(found) = &error
                    && let Some(current) = found.current.clone()
                {
                    output::json(&record(&namespace, current)?)?;
                }
                let is_not_valid = matches!(error, Error::ValidationFailed(_));
                let mut refusal = door.refusal(error);
                if is_not_valid && lacks_quotes {
                    refusal = refusal.hinted(QUOTES);
                }
                return Err(refusal.into());
            }
        }
        Ok(())
    }
}

impl PutGuard {
    fn parse(&self) -> Result<Guard, Refusal> {
        Ok(match self.revision {
            Some(revision) => at_revision(revision)?,
            None if self.absent => Guard::Absent,
            None if self.exists => Guard::Exists,
            None => Guard::Any,
        })
    }
}

impl Delete {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let guard = match self.if_revision {
            Some(revision) => Guard::Exactly(Revision::parse(revision).map_err(Refusal::from)?),
            None if self.if_exists => Guard::Exists,
            None => Guard::Any,
        };
        let request = DeleteRequest {
            namespace: self.place.namespace()?,
            key: key(self.key)?,
            guard,
        };
        let deleted = door.gate.delete(&door.caller, request).await;
        let deleted = deleted.map_err(|error| door.refusal(error))?;
        Ok(output::json(&json!({ "deleted": deleted }))?)
    }
}

const QUOTES: &str = r#"a JSON string has quotes, and the shell takes them away unless there are others around them: '"hello"'"#;

/// Whether a value in the arguments may be a string whose quotes were forgotten, or lost to the
/// shell.
fn lacks_quotes(value: &str) -> bool {
    value != input::STDIN
        && !value.trim_start().starts_with(['{', '[', '"'])
        && JsonText::parse(value).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_meant_as_a_string_lacks_quotes() {
        for value in ["hello", "hello world", "True", "1.2.3", "'a'", ""] {
            assert!(lacks_quotes(value), "{value}");
        }
        for value in ["-", "1", "null", "\"a", "{a: 1}", " [1", r#""hello""#] {
            assert!(!lacks_quotes(value), "{value}");
        }
    }
}
