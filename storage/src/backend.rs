//! What a database must promise so that the contract holds over it.

use std::fmt;

use alga_schema::Database;
use async_trait::async_trait;

use crate::contract::{DeleteRequest, Key, KeyRange, Listed, Namespace, Record, Usage, Written};
use crate::distribution::Distribution;
use crate::error::{BulkError, Error};
use crate::maintenance::Maintenance;
use crate::service::{Put, Scope};

/// A database that holds records, counters and audit.
///
/// One method is one transaction. Every operation sees each write that was answered before it was
/// called, and no record that is expired at that moment. A future that is dropped may or may not
/// have written; what it wrote is whole.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The live record of a key.
    async fn get(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Record>, Error>;

    /// The live records of several keys, all as of one moment, in the order asked.
    async fn get_many(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        keys: &[Key],
    ) -> Result<Vec<Option<Record>>, Error>;

    /// Writes every item or none.
    ///
    /// All guards are judged against one state of the namespace, and the batch as a whole against
    /// the quotas. The first item whose guard fails, or with which a quota was exceeded, is reported
    /// with its index; nothing is stored then and no counter moves. What is
    /// answered is durable, and so are its audit records.
    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError>;

    /// Removes a record; true where a live one was there. The revision of what was removed never
    /// occurs again in the namespace.
    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error>;

    /// Live records in key order, all as of one moment.
    async fn list(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        query: ListQuery,
    ) -> Result<ListedPage, Error>;

    /// What the install holds, from counters.
    async fn usage(&self, scope: &Scope) -> Result<Usage, Error>;
}

/// A database with all that is asked of it, by guests and by operators.
#[async_trait]
pub trait StorageDatabase: Backend + Maintenance {
    /// The database itself, to migrate, to ask whether it is there, or to close it.
    fn database(&self) -> &dyn Database;

    /// Where what is stored is, and whose. Reads counters and what the database knows of its tables,
    /// not as of one moment, and no record.
    async fn distribution(&self) -> Result<Distribution, Error>;
}

/// Which records to list and when to stop.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which keys.
    pub range: KeyRange,
    /// Last key first.
    pub reverse: bool,
    /// The most records of a page.
    pub limit: u32,
    /// A page ends before the record that would bring it above this many bytes of keys, values and
    /// metadata; it holds one record at least.
    pub max_bytes: u64,
    /// Read values.
    pub include_values: bool,
    /// Read metadata.
    pub include_metadata: bool,
}

/// A page and whether it is the last one.
#[derive(Debug, Clone)]
pub struct ListedPage {
    /// The records.
    pub items: Vec<Listed>,
    /// Whether the range holds records after these.
    pub more: bool,
}

impl ListedPage {
    /// The page that `found` makes, which go on after its end. No more of them is looked at than tells
    /// that there are more.
    pub(crate) fn filled<E>(
        query: &ListQuery,
        found: impl Iterator<Item = Result<Listed, E>>,
    ) -> Result<Self, E> {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let mut page = Self {
            items: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        for listed in found {
            let listed = listed?;
            bytes += listed.size();
            let full = page.items.len() >= limit || bytes > query.max_bytes;
            if full && !page.items.is_empty() {
                page.more = true;
                break;
            }
            page.items.push(listed);
        }
        Ok(page)
    }
}
