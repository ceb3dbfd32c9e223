//! Removes uploads that nobody will publish, and what is known of old ones.

use std::time::{Duration, SystemTime};

use alga_bundles::{BundleStore, Listing, StoreError};
use alga_model::Timestamp;
use alga_registry::{Registry, RegistryError};
use serde::Serialize;

use super::{ANOTHERS, CareError, Owner, PAGE, Pages, earlier};

/// How much is forgotten at once.
const BATCH: u32 = 1_000;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SweptUploads {
    /// Uploads that were staged and never published.
    pub staged: u64,
    /// Uploads that never came to their end, and what a process that died left of other objects.
    pub unfinished: u64,
    /// What was known of uploads, whatever became of them.
    pub records: u64,
}

/// Removes uploads that are older than `age` at `now`, staged ones and those that never came to their end, and what
/// the registry knows of such. Several processes may do so at once. What fails keeps nothing else from being removed.
///
/// In a store that is not the registry's nothing is removed.
///
/// # Errors
/// The first failure.
pub async fn sweep_uploads(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    now: Timestamp,
    age: Duration,
) -> Result<SweptUploads, CareError> {
    let of_store = async {
        match Owner::claim(store, registry).await? {
            Owner::Ours => Ok(sweep_store(store, earlier(now, age)).await?),
            Owner::Another(_) => {
                tracing::warn!("{ANOTHERS}; old uploads in it are left alone");
                Ok(SweptUploads::default())
            }
            // Of which was said at the start what is strange about it.
            Owner::Nobody => Ok(SweptUploads::default()),
        }
    };
    let of_store: Result<_, CareError> = of_store.await;
    let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(ms));
    let records = forget(registry, before).await;
    Ok(SweptUploads {
        records: records?,
        ..of_store?
    })
}

async fn forget(registry: &dyn Registry, before: Timestamp) -> Result<u64, RegistryError> {
    let mut forgotten = 0;
    loop {
        let removed = registry.remove_uploads(before, BATCH).await?;
        forgotten += removed;
        if removed < u64::from(BATCH) {
            return Ok(forgotten);
        }
    }
}

async fn sweep_store(
    store: &dyn BundleStore,
    before: SystemTime,
) -> Result<SweptUploads, StoreError> {
    let staged = staged(store, before).await;
    let unfinished = unfinished(store, before).await;
    Ok(SweptUploads {
        staged: staged?,
        unfinished: unfinished?,
        records: 0,
    })
}

async fn staged(store: &dyn BundleStore, before: SystemTime) -> Result<u64, StoreError> {
    let (mut removed, mut failure) = (0, None);
    let mut pages = Pages::of(store, Listing::Staging);
    while let Some(objects) = pages.next().await? {
        for object in objects {
            if object.stat.modified < before {
                match store.remove(object.key).await {
                    Ok(()) => removed += 1,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
    }
    failure.map_or(Ok(removed), Err)
}

async fn unfinished(store: &dyn BundleStore, before: SystemTime) -> Result<u64, StoreError> {
    let (mut removed, mut failure) = (0, None);
    let mut last = Vec::new();
    loop {
        let uploads = store.unfinished(before, PAGE).await?;
        // Some servers go on listing what they say is gone.
        if uploads == last {
            break;
        }
        for upload in &uploads {
            match store.abort_unfinished(upload).await {
                Ok(()) => removed += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if uploads.len() < PAGE {
            break;
        }
        last = uploads;
    }
    failure.map_or(Ok(removed), Err)
}

#[cfg(test)]
mod tests {
    use alga_bundles::{LocalStore, StagingKey};
    use alga_model::Clock as _;
    use alga_registry::NewBundleUpload;
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::unsteady::Unsteady;
    use super::*;
    use crate::stage::Stage;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(time: SystemTime) -> Timestamp {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since_epoch.as_millis().try_into().unwrap())
    }

    async fn stage(store: &LocalStore) -> (StagingKey, SystemTime) {
        let key = StagingKey::new(Uuid::now_v7());
        let mut upload = store.stage(key, "", 1).await.unwrap();
        upload.write(Bytes::from_static(b"a")).await.unwrap();
        (key, upload.finish().await.unwrap().modified)
    }

    #[tokio::test]
    async fn what_cannot_be_removed_is_in_the_way_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let (first, _) = stage(&store).await;
        let (second, modified) = stage(&store).await;
        let third = StagingKey::new(Uuid::new_v4());
        let unfinished = store.stage(third, "", 1).await.unwrap();
        let unsteady = Unsteady::new(store.clone());
        unsteady.lock(first.into());
        let late = modified + MINUTE;
        let error = sweep_store(&unsteady, late).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        assert!(store.stat(first.into()).await.unwrap().is_some());
        assert_eq!(store.stat(second.into()).await.unwrap(), None);
        assert_eq!(store.unfinished(late, 1).await.unwrap(), []);
        drop(unfinished);
    }

    #[tokio::test]
    async fn a_server_that_lists_for_ever_what_is_gone_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        for number in 0..PAGE {
            std::fs::write(folder.path().join(format!(".tmp{number}")), b"").unwrap();
        }
        let (_, modified) = stage(&store).await;
        let late = modified + MINUTE;
        let unsteady = Unsteady::listing_for_ever(store);
        let swept = sweep_store(&unsteady, late);
        let swept = tokio::time::timeout(Duration::from_secs(60), swept).await;
        assert_eq!(swept.unwrap().unwrap().unfinished, PAGE as u64);
    }

    #[tokio::test]
    async fn old_uploads_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let registry = Stage::open().await.registry;
        let (key, modified) = stage(&store).await;
        let other = StagingKey::new(Uuid::new_v4());
        let unfinished = store.stage(other, "", 1).await.unwrap();

        let early = sweep_uploads(&store, &*registry, at(modified), MINUTE).await;
        assert_eq!(early.unwrap(), SweptUploads::default());
        let late = at(modified + 2 * MINUTE);
        let expected = SweptUploads {
            staged: 1,
            unfinished: 1,
            records: 0,
        };
        let swept = sweep_uploads(&store, &*registry, late, MINUTE).await;
        assert_eq!(swept.unwrap(), expected);
        assert_eq!(store.stat(key.into()).await.unwrap(), None);
        let again = sweep_uploads(&store, &*registry, late, MINUTE).await;
        assert_eq!(again.unwrap(), SweptUploads::default());
        drop(unfinished);
    }

    #[tokio::test]
    async fn what_is_known_of_old_uploads_is_forgotten_also_where_the_store_fails() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let stage = Stage::open().await;
        let note = async || {
            let new = NewBundleUpload {
                id: Uuid::new_v4(),
                actor: "admin".to_owned(),
                filename: "a".to_owned(),
                content_type: String::new(),
                size: 1,
                declared_hash: None,
                store_upload: None,
            };
            let begun = stage.registry.begin_upload(&new, stage.clock.now());
            assert!(begun.await.unwrap());
        };
        let sweep = || sweep_uploads(&store, &*stage.registry, stage.clock.now(), MINUTE);
        for _ in 0..=BATCH {
            note().await;
        }
        stage.clock.advance(MINUTE);
        note().await;
        assert_eq!(sweep().await.unwrap().records, 0);
        stage.clock.advance(Duration::from_millis(1));
        assert_eq!(sweep().await.unwrap().records, u64::from(BATCH) + 1);

        stage.clock.advance(MINUTE);
        stage.clock.advance(Duration::from_millis(1));
        let parent = folder.path().join("sha256");
        // The mark is there by now.
        std::os::unix::fs::symlink("_staging", parent.join("_staging")).unwrap();
        let failed = sweep().await.unwrap_err();
        assert!(matches!(failed, CareError::Store(_)), "{failed:?}");
        let left = stage.registry.remove_uploads(stage.clock.now(), 1).await;
        assert_eq!(left.unwrap(), 0);
    }
}
