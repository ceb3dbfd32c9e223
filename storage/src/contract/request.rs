//! What a caller asks for. Names are checked; JSON is still the text the caller sent, because the
//! gate looks at it only after it knows that the caller may ask at all.

use super::name::{Key, Namespace};
use super::range::KeyRange;
use super::revision::{Guard, Revision};

/// Read one record.
#[derive(Debug, Clone)]
pub struct GetRequest {
    /// Where.
    pub namespace: Namespace,
    /// Which.
    pub key: Key,
    /// Fail unless the record has this revision.
    pub if_revision: Option<Revision>,
}

/// Read several records of one namespace.
#[derive(Debug, Clone)]
pub struct GetManyRequest {
    /// Where.
    pub namespace: Namespace,
    /// Which, in the order of the answer.
    pub keys: Vec<Key>,
}

/// Write one record.
#[derive(Debug, Clone)]
pub struct PutRequest {
    /// Where.
    pub namespace: Namespace,
    /// What.
    pub item: BulkItem,
    /// Answer with the record that was replaced.
    pub return_previous: bool,
    /// Where the guard fails, answer with the record that is there.
    pub return_current: bool,
}

/// One record to write.
#[derive(Clone)]
pub struct BulkItem {
    /// Which.
    pub key: Key,
    /// The value, as JSON text.
    pub value: String,
    /// A JSON object, as text; `{}` when absent.
    pub metadata: Option<String>,
    /// Seconds until the record vanishes; never when absent.
    pub ttl_seconds: Option<u64>,
    /// The version of the namespace's schema to check the value against; the active one when absent.
    pub schema_version: Option<u32>,
    /// What must be true of the stored record.
    pub guard: Guard,
}

/// Shows no value: values never go into logs.
impl std::fmt::Debug for BulkItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkItem")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("ttl_seconds", &self.ttl_seconds)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// Write several records of one namespace, all or none.
#[derive(Debug, Clone)]
pub struct BulkPutRequest {
    /// Where.
    pub namespace: Namespace,
    /// What; the keys must be distinct.
    pub items: Vec<BulkItem>,
}

/// Remove one record.
#[derive(Debug, Clone)]
pub struct DeleteRequest {
    /// Where.
    pub namespace: Namespace,
    /// Which.
    pub key: Key,
    /// What must be true of the stored record; [`Guard::Absent`] makes no sense and is refused.
    pub guard: Guard,
}

/// List records in key order, a page at a time.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// Where.
    pub namespace: Namespace,
    /// Which keys.
    pub range: KeyRange,
    /// Last key first.
    pub reverse: bool,
    /// Records on the page, at most.
    pub limit: Option<u32>,
    /// Where the page before ended, as it said itself.
    pub cursor: Option<String>,
    /// Answer with values.
    pub include_values: bool,
    /// Answer with metadata.
    pub include_metadata: bool,
}
