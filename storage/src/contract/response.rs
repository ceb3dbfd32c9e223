//! What the operations answer.

use alga_model::Timestamp;

use super::json::JsonText;
use super::limits::Quotas;
use super::name::{Key, Namespace};
use super::revision::Revision;

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: JsonText,
    /// A JSON object.
    pub metadata: JsonText,
    /// Its version.
    pub revision: Revision,
    /// When it vanishes, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was first written since it last did not exist.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The key that was written.
    pub key: Key,
    /// The record's new version.
    pub revision: Revision,
    /// When the record vanishes, if ever.
    pub expires_at: Option<Timestamp>,
    /// When the record was first written since it last did not exist.
    pub created_at: Timestamp,
    /// The time of this write.
    pub updated_at: Timestamp,
    /// What it replaced, where that was asked for.
    pub previous: Option<Record>,
}

/// A record on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub revision: Revision,
    /// Its value, where asked for.
    pub value: Option<JsonText>,
    /// Its metadata, where asked for.
    pub metadata: Option<JsonText>,
    /// When it vanishes, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was first written since it last did not exist.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// A page of records in key order; one snapshot of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub items: Vec<Listed>,
    /// Where the next page starts; none on the last one.
    pub next_cursor: Option<String>,
}

/// What an install holds and may hold. Bytes are those of values and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all namespaces together.
    pub bytes: u64,
    /// Keys of all namespaces together.
    pub keys: u64,
    /// Of these, the bytes of records that are expired and not removed yet; see
    /// [`MOST_EXPIRED_COUNTED`](Self::MOST_EXPIRED_COUNTED).
    pub expired_bytes: u64,
    /// Of these, the records that are expired and not removed yet.
    pub expired_keys: u64,
    /// What may be stored.
    pub quotas: Quotas,
    /// The namespaces that hold records, by name.
    pub per_namespace: Vec<NamespaceUsage>,
}

/// What one namespace holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Its name.
    pub namespace: Namespace,
    /// Its keys.
    pub keys: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Record {
    /// What the record counts against quotas, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.value.size() + self.metadata.size()
    }
}

impl Usage {
    /// Expired records are counted up to so many, so that a backlog makes no request slow.
    pub const MOST_EXPIRED_COUNTED: u64 = 10_000;
}

impl Listed {
    /// What the record adds to a page, in bytes.
    pub(crate) fn size(&self) -> u64 {
        let json = |text: &Option<JsonText>| text.as_ref().map_or(0, JsonText::size);
        self.key.as_str().len() as u64 + json(&self.value) + json(&self.metadata)
    }
}
