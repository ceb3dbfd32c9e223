//! What is answered.

use std::fmt;

use alga_model::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::even_null;
use crate::contract::{
    JsonText, Key, Listed, Namespace, NamespaceUsage, Page, Quotas, Record, Revision, Usage,
    Written,
};
use crate::error::Error;

/// An answer, to be written as JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(
    missing_docs,
    reason = "each is what is answered to its kind of request"
)]
pub enum Answer {
    Record(RecordBody),
    Page(PageBody),
    Written(WrittenBody),
    WrittenAll(WrittenAllBody),
    Many(ManyBody),
    Deleted(DeletedBody),
    Usage(UsageBody),
}

/// A record, or as much of it as was asked for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordBody {
    /// Where it is; absent where the request says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its key.
    pub key: String,
    /// Its version.
    pub revision: u64,
    /// Its value.
    #[serde(
        default,
        deserialize_with = "even_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub value: Option<Box<RawValue>>,
    /// A JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// When it vanishes, if ever.
    pub ttl_expires_at: Option<Timestamp>,
    /// When it was first written since it last did not exist.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// What a write did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenBody {
    /// Where; absent where the request says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The key.
    pub key: String,
    /// The record's new version.
    pub revision: u64,
    /// When the record vanishes, if ever.
    pub ttl_expires_at: Option<Timestamp>,
    /// When the record was first written since it last did not exist.
    pub created_at: Timestamp,
    /// The time of this write.
    pub updated_at: Timestamp,
    /// What it replaced, where that was asked for and there was anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordBody>,
}

/// What the writes of a batch did, in the order given.
#[derive(Debug, Serialize, Deserialize)]
pub struct WrittenAllBody {
    /// Where.
    pub namespace: String,
    /// What each did.
    pub items: Vec<WrittenBody>,
}

/// A page of records.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageBody {
    /// The records.
    pub items: Vec<RecordBody>,
    /// Where the next page starts; null on the last one.
    pub next_cursor: Option<String>,
}

/// Records in the order asked.
#[derive(Serialize, Deserialize)]
pub struct ManyBody {
    /// The records, and what is told of keys that have none.
    pub items: Vec<Box<RawValue>>,
}

/// A key of no record.
#[derive(Debug, Serialize, Deserialize)]
struct MissBody {
    /// The key.
    pub key: String,
    /// False.
    pub found: bool,
}

/// Whether a delete found something.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeletedBody {
    /// True.
    pub success: bool,
    /// Whether there was a record.
    pub deleted: bool,
}

/// What an install stores and may store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageBody {
    /// The bytes of its values and metadata.
    pub bytes: u64,
    /// Its records.
    pub keys: u64,
    /// Its namespaces that hold any.
    pub namespaces: u64,
    /// What of that is expired and still there.
    pub expired_not_removed: ExpiredBody,
    /// What it may store.
    pub limits: QuotasBody,
    /// Each namespace.
    pub per_namespace: Vec<NamespaceUsageBody>,
}

/// What is expired and still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredBody {
    /// Its records.
    pub keys: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What may be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotasBody {
    /// Namespaces of an install that hold records.
    pub namespaces: u64,
    /// Keys of one namespace.
    pub keys_per_namespace: u64,
    /// Bytes of an install.
    pub bytes_per_install: u64,
    /// Bytes of all installs of a tenant together.
    pub bytes_per_tenant: u64,
    /// The part of a quota, in percent, whose use is worth a mention.
    pub warning_percent: u8,
    /// The part of a quota, in percent, whose use is worth a warning.
    pub critical_percent: u8,
}

/// What is stored in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceUsageBody {
    /// The namespace.
    pub namespace: String,
    /// Its records.
    pub keys: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Shows no value: values never go into logs.
impl fmt::Debug for RecordBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBody")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Shows no value.
impl fmt::Debug for ManyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManyBody({} items)", self.items.len())
    }
}

/// Reads an answer.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(nonsense)
}

fn nonsense(error: impl Into<crate::error::Cause>) -> Error {
    Error::Internal(error.into())
}

/// The text as it is, within other JSON.
fn raw(text: JsonText) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text.into_string()).map_err(nonsense)
}

fn text(raw: Option<Box<RawValue>>) -> Result<JsonText, Error> {
    let raw = raw.ok_or_else(|| nonsense("a record without value or metadata"))?;
    JsonText::parse(raw.get()).map_err(nonsense)
}

fn revision(number: u64) -> Result<Revision, Error> {
    Revision::parse(number).map_err(|_| nonsense("a revision that is none"))
}

fn key(text: String) -> Result<Key, Error> {
    Key::parse(text).map_err(|_| nonsense("a key that is none"))
}

impl RecordBody {
    /// A record.
    ///
    /// # Errors
    /// [`Error::Internal`] where what is stored is no JSON.
    pub fn of(record: Record) -> Result<Self, Error> {
        Self::of_listed(Listed {
            key: record.key,
            revision: record.revision,
            value: Some(record.value),
            metadata: Some(record.metadata),
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }

    /// A record of a page.
    ///
    /// # Errors
    /// [`Error::Internal`] where what is stored is no JSON.
    pub fn of_listed(record: Listed) -> Result<Self, Error> {
        Ok(Self {
            namespace: None,
            key: record.key.to_string(),
            revision: record.revision.get(),
            value: record.value.map(raw).transpose()?,
            metadata: record.metadata.map(raw).transpose()?,
            ttl_expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }

    pub(crate) fn in_namespace(self, namespace: &Namespace) -> Self {
        Self {
            namespace: Some(namespace.to_string()),
            ..self
        }
    }

    pub(crate) fn into_record(self) -> Result<Record, Error> {
        Ok(Record {
            value: text(self.value)?,
            metadata: text(self.metadata)?,
            key: key(self.key)?,
            revision: revision(self.revision)?,
            expires_at: self.ttl_expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    fn into_listed(self) -> Result<Listed, Error> {
        let optional = |raw: Option<Box<RawValue>>| raw.map(|raw| text(Some(raw))).transpose();
        Ok(Listed {
            value: optional(self.value)?,
            metadata: optional(self.metadata)?,
            key: key(self.key)?,
            revision: revision(self.revision)?,
            expires_at: self.ttl_expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl WrittenBody {
    /// What a write did.
    ///
    /// # Errors
    /// [`Error::Internal`] where what it replaced was no JSON.
    pub fn of(written: Written) -> Result<Self, Error> {
        Ok(Self {
            namespace: None,
            key: written.key.to_string(),
            revision: written.revision.get(),
            ttl_expires_at: written.expires_at,
            created_at: written.created_at,
            updated_at: written.updated_at,
            previous: written.previous.map(RecordBody::of).transpose()?,
        })
    }

    pub(crate) fn in_namespace(self, namespace: &Namespace) -> Self {
        Self {
            namespace: Some(namespace.to_string()),
            ..self
        }
    }

    pub(crate) fn into_written(self) -> Result<Written, Error> {
        let previous = self.previous.map(RecordBody::into_record);
        Ok(Written {
            key: key(self.key)?,
            revision: revision(self.revision)?,
            expires_at: self.ttl_expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            previous: previous.transpose()?,
        })
    }
}

impl WrittenAllBody {
    pub(crate) fn of(namespace: &Namespace, written: Vec<Written>) -> Result<Self, Error> {
        let items = written.into_iter().map(WrittenBody::of);
        Ok(Self {
            namespace: namespace.to_string(),
            items: items.collect::<Result<_, _>>()?,
        })
    }
}

impl PageBody {
    pub(crate) fn of(page: Page) -> Result<Self, Error> {
        let items = page.items.into_iter().map(RecordBody::of_listed);
        Ok(Self {
            items: items.collect::<Result<_, _>>()?,
            next_cursor: page.next_cursor,
        })
    }

    pub(crate) fn into_page(self) -> Result<Page, Error> {
        let items = self.items.into_iter().map(RecordBody::into_listed);
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            next_cursor: self.next_cursor,
        })
    }
}

impl ManyBody {
    pub(crate) fn of(keys: &[Key], found: Vec<Option<Record>>) -> Result<Self, Error> {
        let items = keys.iter().zip(found).map(|(key, record)| {
            let item = match record {
                Some(record) => serde_json::value::to_raw_value(&RecordBody::of(record)?),
                None => serde_json::value::to_raw_value(&MissBody {
                    key: key.to_string(),
                    found: false,
                }),
            };
            item.map_err(nonsense)
        });
        Ok(Self {
            items: items.collect::<Result<_, _>>()?,
        })
    }

    /// Each key and its record, if there is one.
    pub(crate) fn into_records(self) -> Result<Vec<(Key, Option<Record>)>, Error> {
        let record = |item: Box<RawValue>| {
            let item = item.get().as_bytes();
            if let Ok(MissBody {
                key: text,
                found: false,
            }) = parse(item)
            {
                return Ok((key(text)?, None));
            }
            let record = parse::<RecordBody>(item)?.into_record()?;
            Ok((record.key.clone(), Some(record)))
        };
        self.items.into_iter().map(record).collect()
    }
}

impl From<&Quotas> for QuotasBody {
    fn from(quotas: &Quotas) -> Self {
        let [warning_percent, critical_percent] = quotas.alert_percent;
        Self {
            namespaces: quotas.namespaces,
            keys_per_namespace: quotas.keys_per_namespace,
            bytes_per_install: quotas.bytes_per_install,
            bytes_per_tenant: quotas.bytes_per_tenant,
            warning_percent,
            critical_percent,
        }
    }
}

impl From<&Usage> for UsageBody {
    fn from(usage: &Usage) -> Self {
        let per_namespace = usage.per_namespace.iter().map(|of| NamespaceUsageBody {
            namespace: of.namespace.to_string(),
            keys: of.keys,
            bytes: of.bytes,
        });
        Self {
            bytes: usage.bytes,
            keys: usage.keys,
            namespaces: usage.per_namespace.len() as u64,
            expired_not_removed: ExpiredBody {
                keys: usage.expired_keys,
                bytes: usage.expired_bytes,
            },
            limits: (&usage.quotas).into(),
            per_namespace: per_namespace.collect(),
        }
    }
}

impl UsageBody {
    pub(crate) fn into_usage(self) -> Result<Usage, Error> {
        let per_namespace = self.per_namespace.into_iter().map(|of| {
            let namespace = Namespace::parse(of.namespace);
            Ok(NamespaceUsage {
                namespace: namespace.map_err(|_| nonsense("a namespace that is none"))?,
                keys: of.keys,
                bytes: of.bytes,
            })
        });
        Ok(Usage {
            bytes: self.bytes,
            keys: self.keys,
            expired_bytes: self.expired_not_removed.bytes,
            expired_keys: self.expired_not_removed.keys,
            quotas: Quotas {
                namespaces: self.limits.namespaces,
                keys_per_namespace: self.limits.keys_per_namespace,
                bytes_per_install: self.limits.bytes_per_install,
                bytes_per_tenant: self.limits.bytes_per_tenant,
                alert_percent: [self.limits.warning_percent, self.limits.critical_percent],
            },
            per_namespace: per_namespace.collect::<Result<_, Error>>()?,
        })
    }
}
