//! Answers as plain data that can be compared and shown whole.

use crate::{BulkError, Error, Listed, NamespaceUsage, Page, Quota, Record, Usage, Written};

/// What an operation answered, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Written {
        rows: Vec<Row>,
        previous: Option<Row>,
    },
    Found(Vec<Option<Row>>),
    Page {
        rows: Vec<Row>,
        more: bool,
    },
    Deleted(bool),
    Used(Used),
    Refused(Refusal),
    /// Of operations that ask nothing of the storage.
    Nothing,
}

/// A record, or as much of it as the operation shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) revision: u64,
    pub(super) value: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) expires_at_ms: Option<i64>,
    pub(super) created_at_ms: i64,
    pub(super) updated_at_ms: i64,
}

/// Counters of live records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// By name; only where nothing is expired and not removed, as nobody promises when it is.
    pub(super) per_namespace: Option<Vec<(String, u64, u64)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    Conflict {
        item: Option<(usize, String)>,
        revision: Option<u64>,
        current: Option<Row>,
    },
    Quota {
        item: Option<(usize, String)>,
        quota: Quota,
    },
    /// What no operation of the model may be answered with.
    Unexpected(String),
}

impl Row {
    /// The row without what a listing or a write was not asked to show.
    pub(super) fn showing(mut self, value: bool, metadata: bool) -> Self {
        self.value = self.value.filter(|_| value);
        self.metadata = self.metadata.filter(|_| metadata);
        self
    }

    /// What the record counts against quotas.
    pub(super) fn bytes(&self) -> u64 {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len) as u64;
        length(&self.value) + length(&self.metadata)
    }
}

impl From<Record> for Row {
    fn from(record: Record) -> Self {
        Self {
            key: record.key.to_string(),
            revision: record.revision.get(),
            value: Some(record.value.into_string()),
            metadata: Some(record.metadata.into_string()),
            expires_at_ms: record.expires_at.map(alga_model::Timestamp::as_millis),
            created_at_ms: record.created_at.as_millis(),
            updated_at_ms: record.updated_at.as_millis(),
        }
    }
}

impl From<Listed> for Row {
    fn from(listed: Listed) -> Self {
        Self {
            key: listed.key.to_string(),
            revision: listed.revision.get(),
            value: listed.value.map(crate::JsonText::into_string),
            metadata: listed.metadata.map(crate::JsonText::into_string),
            expires_at_ms: listed.expires_at.map(alga_model::Timestamp::as_millis),
            created_at_ms: listed.created_at.as_millis(),
            updated_at_ms: listed.updated_at.as_millis(),
        }
    }
}

impl From<Written> for Row {
    fn from(written: Written) -> Self {
        Self {
            key: written.key.to_string(),
            revision: written.revision.get(),
            value: None,
            metadata: None,
            expires_at_ms: written.expires_at.map(alga_model::Timestamp::as_millis),
            created_at_ms: written.created_at.as_millis(),
            updated_at_ms: written.updated_at.as_millis(),
        }
    }
}

impl Answer {
    pub(super) fn of_put(outcome: Result<Written, Error>) -> Self {
        match outcome {
            Ok(mut written) => Self::Written {
                previous: written.previous.take().map(Row::from),
                rows: vec![written.into()],
            },
            Err(error) => Self::refused(None, error),
        }
    }

    pub(super) fn of_bulk_put(outcome: Result<Vec<Written>, BulkError>) -> Self {
        match outcome {
            Ok(written) => Self::Written {
                rows: written.into_iter().map(Row::from).collect(),
                previous: None,
            },
            Err(BulkError { item, error }) => {
                Self::refused(item.map(|item| (item.index, item.key)), error)
            }
        }
    }

    pub(super) fn of_get(outcome: Result<Record, Error>) -> Self {
        Self::of_get_many(outcome.map(|record| vec![Some(record)]))
    }

    pub(super) fn of_get_many(outcome: Result<Vec<Option<Record>>, Error>) -> Self {
        match outcome {
            Ok(found) => Self::Found(
                found
                    .into_iter()
                    .map(|record| record.map(Row::from))
                    .collect(),
            ),
            Err(error) => Self::refused(None, error),
        }
    }

    pub(super) fn of_list(outcome: Result<Page, Error>) -> Self {
        match outcome {
            Ok(page) => Self::Page {
                rows: page.items.into_iter().map(Row::from).collect(),
                more: page.next_cursor.is_some(),
            },
            Err(error) => Self::refused(None, error),
        }
    }

    pub(super) fn of_delete(outcome: Result<bool, Error>) -> Self {
        match outcome {
            Ok(deleted) => Self::Deleted(deleted),
            Err(error) => Self::refused(None, error),
        }
    }

    pub(super) fn of_usage(outcome: Result<Usage, Error>) -> Self {
        match outcome {
            Ok(usage) => Self::Used(usage.into()),
            Err(error) => Self::refused(None, error),
        }
    }

    fn refused(item: Option<(usize, String)>, error: Error) -> Self {
        Self::Refused(match error {
            Error::NotFound => Refusal::NotFound,
            Error::RevisionMismatch(conflict) => Refusal::Conflict {
                item,
                revision: conflict.current_revision.map(crate::Revision::get),
                current: conflict.current.map(Row::from),
            },
            Error::QuotaExceeded(quota) => Refusal::Quota { item, quota },
            other => Refusal::Unexpected(format!("{}: {other}", other.code())),
        })
    }
}

impl From<Usage> for Used {
    fn from(usage: Usage) -> Self {
        let counted = |NamespaceUsage {
                           namespace,
                           keys,
                           bytes,
                       }| (namespace.to_string(), keys, bytes);
        let exact = usage.expired_keys == 0;
        Self {
            keys: usage.keys - usage.expired_keys,
            bytes: usage.bytes - usage.expired_bytes,
            per_namespace: exact.then(|| usage.per_namespace.into_iter().map(counted).collect()),
        }
    }
}
