//! Records as the commands print them: JSON in the shapes of the storage API. Values go out as they
//! were stored, not as a parser would write them again.

use alga_model::Timestamp;
use alga_storage::{JsonText, Key, Listed, Namespace, Record, Written};
use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::quoted;

/// A record, or as much of it as was asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordLine {
    key: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    ttl_expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A key of no record.
#[derive(Serialize)]
pub(super) struct MissLine<'a> {
    key: &'a str,
    found: bool,
}

/// What a write did.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenLine {
    key: String,
    revision: u64,
    ttl_expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// What a write did and what was there before; null where nothing was.
#[derive(Serialize)]
pub(super) struct ReplacedLine {
    #[serde(flatten)]
    written: WrittenLine,
    previous: Option<RecordLine>,
}

impl RecordLine {
    pub(super) fn of_record(namespace: &Namespace, record: Record) -> anyhow::Result<Self> {
        let listed = Listed {
            key: record.key,
            revision: record.revision,
            value: Some(record.value),
            metadata: Some(record.metadata),
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        };
        Self::of_listed(namespace, listed)
    }

    pub(super) fn of_listed(namespace: &Namespace, record: Listed) -> anyhow::Result<Self> {
        let raw = |what, text: Option<JsonText>| {
            let raw = text.map(|text| RawValue::from_string(text.into_string()));
            raw.transpose().with_context(|| {
                let key = quoted(record.key.as_str());
                format!(
                    "the stored {what} of the record {key} in the namespace '{namespace}' is damaged"
                )
            })
        };
        Ok(Self {
            value: raw("value", record.value)?,
            metadata: raw("metadata", record.metadata)?,
            key: record.key.to_string(),
            revision: record.revision.get(),
            ttl_expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }
}

impl<'a> MissLine<'a> {
    pub(super) fn of(key: &'a Key) -> Self {
        Self {
            key: key.as_str(),
            found: false,
        }
    }
}

impl From<Written> for WrittenLine {
    fn from(written: Written) -> Self {
        Self {
            key: written.key.to_string(),
            revision: written.revision.get(),
            ttl_expires_at: written.expires_at,
            created_at: written.created_at,
            updated_at: written.updated_at,
        }
    }
}

impl ReplacedLine {
    pub(super) fn of(namespace: &Namespace, mut written: Written) -> anyhow::Result<Self> {
        let previous = written.previous.take();
        let previous = previous.map(|record| RecordLine::of_record(namespace, record));
        Ok(Self {
            previous: previous.transpose()?,
            written: written.into(),
        })
    }
}
