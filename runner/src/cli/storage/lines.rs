//! Records as the commands print them: JSON in the shapes of the storage API. Values go out as they
//! were stored, not as a parser would write them again.

use alga_storage::{Key, Listed, Namespace, Record, RecordBody, Written, WrittenBody};
use anyhow::Context as _;
use serde::Serialize;

use super::quoted;

/// A key of no record.
#[derive(Serialize)]
pub(super) struct MissLine<'a> {
    key: &'a str,
    found: bool,
}

/// What a write did and what was there before; null where nothing was.
#[derive(Serialize)]
pub(super) struct ReplacedLine {
    #[serde(flatten)]
    written: WrittenBody,
    previous: Option<RecordBody>,
}

/// A whole record.
pub(super) fn record(namespace: &Namespace, record: Record) -> anyhow::Result<RecordBody> {
    let key = record.key.clone();
    RecordBody::of(record).with_context(|| is_damaged(namespace, &key))
}

/// As much of a record as was asked for.
pub(super) fn listed(namespace: &Namespace, record: Listed) -> anyhow::Result<RecordBody> {
    let key = record.key.clone();
    RecordBody::of_listed(record).with_context(|| is_damaged(namespace, &key))
}

fn is_damaged(namespace: &Namespace, key: &Key) -> String {
    let key = quoted(key.as_str());
    format!("the record {key} in the namespace '{namespace}' is damaged")
}

impl<'a> MissLine<'a> {
    pub(super) fn of(key: &'a Key) -> Self {
        Self {
            key: key.as_str(),
            found: false,
        }
    }
}

impl ReplacedLine {
    pub(super) fn of(namespace: &Namespace, mut written: Written) -> anyhow::Result<Self> {
        let previous = written.previous.take();
        let previous = previous.map(|replaced| record(namespace, replaced));
        Ok(Self {
            previous: previous.transpose()?,
            written: WrittenBody::of(written)?,
        })
    }
}
