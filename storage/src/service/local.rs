//! The storage service in this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{CheckedList, Put, Scope, StorageClient};
use crate::backend::{Backend, ListQuery};
use crate::contract::{
    CursorKey, CursorScope, DeleteRequest, GetManyRequest, GetRequest, Page, Record, Usage, Written,
};
use crate::error::{BulkError, Error, FailedItem, Violation};

/// Serves storage from a database of this process.
#[derive(Debug)]
pub struct LocalService {
    backend: Arc<dyn Backend>,
    cursor_key: CursorKey,
    timeout: Duration,
}

impl LocalService {
    /// How long an operation may take before it is answered as [`Error::Unavailable`]. Longer than
    /// any healthy database needs, shorter than the deadline of most invocations.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A service over `backend` that authenticates cursors with `cursor_key`.
    pub fn new(backend: Arc<dyn Backend>, cursor_key: CursorKey, timeout: Duration) -> Self {
        Self {
            backend,
            cursor_key,
            timeout,
        }
    }

    async fn in_time<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|elapsed| Err(Error::Unavailable(elapsed.into()).into()))
    }
}

#[async_trait]
impl StorageClient for LocalService {
    async fn get(&self, scope: &Scope, request: GetRequest) -> Result<Record, Error> {
        let found = self
            .in_time(self.backend.get(scope, &request.namespace, &request.key))
            .await?;
        let revision = found.as_ref().map(|record| record.revision);
        if request
            .if_revision
            .is_some_and(|expected| revision != Some(expected))
        {
            return Err(Error::conflict(revision, None));
        }
        found.ok_or(Error::NotFound)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        request: GetManyRequest,
    ) -> Result<Vec<Option<Record>>, Error> {
        self.in_time(
            self.backend
                .get_many(scope, &request.namespace, &request.keys),
        )
        .await
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        ensure_schemas(&put)?;
        self.in_time(self.backend.put(scope, put)).await
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        self.in_time(self.backend.delete(scope, request)).await
    }

    async fn list(&self, scope: &Scope, list: CheckedList) -> Result<Page, Error> {
        let request = list.request;
        let cursor_scope = CursorScope {
            tenant: scope.tenant,
            install: scope.install,
            namespace: &request.namespace,
            range: &request.range,
            reverse: request.reverse,
        };
        let range = match &request.cursor {
            None => request.range.clone(),
            Some(cursor) => {
                let last = self.cursor_key.open(&cursor_scope, cursor)?;
                request.range.clone().beyond(&last, request.reverse)
            }
        };
        let query = ListQuery {
            range,
            reverse: request.reverse,
            limit: list.limit,
            max_bytes: scope.request_limits().page_bytes,
            include_values: request.include_values,
            include_metadata: request.include_metadata,
        };
        let listed = self
            .in_time(self.backend.list(scope, &request.namespace, query))
            .await?;
        let next_cursor = listed
            .items
            .last()
            .filter(|_| listed.more)
            .map(|last| self.cursor_key.seal(&cursor_scope, &last.key));
        Ok(Page {
            items: listed.items,
            next_cursor,
        })
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        self.in_time(self.backend.usage(scope)).await
    }
}

/// No namespace has a schema yet, so a version that is asked for doesn't exist.
fn ensure_schemas(put: &Put) -> Result<(), BulkError> {
    for (index, item) in put.items.iter().enumerate() {
        if let Some(version) = item.schema_version {
            let message = format!(
                "the namespace '{}' has no schema version {version}",
                put.namespace
            );
            return Err(BulkError {
                item: Some(FailedItem {
                    index,
                    key: item.key.as_str().to_owned(),
                }),
                error: Violation::argument("schemaVersion", message),
            });
        }
    }
    Ok(())
}
