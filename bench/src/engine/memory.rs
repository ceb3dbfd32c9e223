//! Storage that costs as little as storage can: a map.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alga_model::{InstallId, Timestamp};
use alga_storage::{
    BulkError, CheckedList, DeleteRequest, Error, GetManyRequest, GetRequest, JsonText, Key, Page,
    Put, Record, Revision, Scope, StorageClient, Usage, Written,
};
use async_trait::async_trait;

/// Records in memory. It keeps what it is told and has what the notes example needs.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<(InstallId, Key), (JsonText, Revision)>>);

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

impl Memory {
    pub(super) fn seed(&self, install: InstallId, key: Key, value: JsonText) {
        self.lock().insert((install, key), (value, Revision::FIRST));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(InstallId, Key), (JsonText, Revision)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StorageClient for Memory {
    async fn get(&self, scope: &Scope, request: GetRequest) -> Result<Record, Error> {
        let place = (scope.install, request.key);
        let records = self.lock();
        let (value, revision) = records.get(&place).ok_or(Error::NotFound)?;
        Ok(Record {
            value: value.clone(),
            metadata: JsonText::empty_object(),
            revision: *revision,
            expires_at: None,
            created_at: now(),
            updated_at: now(),
            key: place.1,
        })
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        let mut records = self.lock();
        let written = put.items.into_iter().map(|item| {
            let place = (scope.install, item.key.clone());
            let revision = records
                .get(&place)
                .map_or(Revision::FIRST, |(_, revision)| revision.next());
            records.insert(place, (item.value, revision));
            Written {
                key: item.key,
                revision,
                expires_at: None,
                created_at: now(),
                updated_at: now(),
                previous: None,
            }
        });
        Ok(written.collect())
    }

    async fn get_many(&self, _: &Scope, _: GetManyRequest) -> Result<Vec<Option<Record>>, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn delete(&self, _: &Scope, _: DeleteRequest) -> Result<bool, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn list(&self, _: &Scope, _: CheckedList) -> Result<Page, Error> {
        Err(Error::CapabilityDenied)
    }

    async fn usage(&self, _: &Scope) -> Result<Usage, Error> {
        Err(Error::CapabilityDenied)
    }
}
