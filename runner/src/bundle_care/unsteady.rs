//! A store that fails when it is told to.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::SystemTime;

use alga_bundles::{
    BundleStore, Content, Created, Cursor, ETag, Listing, LocalStore, ObjectKey, Page,
    PartedUpload, StagedUpload, StagingKey, Stat, StoreError, StoredObject, Unfinished, Verified,
};
use async_trait::async_trait;
use bytes::Bytes;

/// A folder with objects that can't always be had.
#[derive(Debug)]
pub(super) struct Unsteady {
    inner: LocalStore,
    /// How often an object is still unavailable when it is opened.
    away: Mutex<HashMap<ObjectKey, u32>>,
    /// Objects that nobody may remove.
    locked: Mutex<HashSet<ObjectKey>>,
    /// Whether unfinished uploads stay in the list when they are aborted.
    lists_for_ever: bool,
}

impl Unsteady {
    pub(super) fn new(inner: LocalStore) -> Self {
        Self {
            inner,
            away: Mutex::default(),
            locked: Mutex::default(),
            lists_for_ever: false,
        }
    }

    pub(super) fn listing_for_ever(inner: LocalStore) -> Self {
        Self {
            lists_for_ever: true,
            ..Self::new(inner)
        }
    }

    pub(super) fn away(&self, key: ObjectKey, times: u32) {
        self.away.lock().unwrap().insert(key, times);
    }

    pub(super) fn lock(&self, key: ObjectKey) {
        self.locked.lock().unwrap().insert(key);
    }
}

#[async_trait]
impl BundleStore for Unsteady {
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError> {
        self.inner.stat(key).await
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        let is_away = self
            .away
            .lock()
            .unwrap()
            .get_mut(&key)
            .is_some_and(|times| {
                let is_away = *times > 0;
                *times = times.saturating_sub(1);
                is_away
            });
        if is_away {
            return Err(StoreError::Unavailable {
                target: key.into(),
                source: "told to be away".into(),
            });
        }
        self.inner.open(key).await
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        self.inner.create(key, content).await
    }

    async fn stage(
        &self,
        key: StagingKey,
        content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError> {
        self.inner.stage(key, content_type, size).await
    }

    async fn begin_parts(
        &self,
        key: StagingKey,
        content_type: &str,
    ) -> Result<PartedUpload, StoreError> {
        self.inner.begin_parts(key, content_type).await
    }

    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError> {
        self.inner.put_part(upload, number, bytes).await
    }

    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError> {
        self.inner.join_parts(upload, parts, size).await
    }

    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError> {
        self.inner.abort_parts(upload).await
    }

    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError> {
        self.inner.promote(upload).await
    }

    async fn replace(&self, upload: &Verified) -> Result<(), StoreError> {
        self.inner.replace(upload).await
    }

    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError> {
        if self.locked.lock().unwrap().contains(&key) {
            return Err(StoreError::Failed {
                target: key.into(),
                source: "told to keep it".into(),
            });
        }
        self.inner.remove(key).await
    }

    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(listing, after, limit).await
    }

    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.unfinished(before, limit).await
    }

    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError> {
        if self.lists_for_ever {
            return Ok(());
        }
        self.inner.abort_unfinished(upload).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}
