//! Removes uploads that nobody will publish.

use std::time::SystemTime;

use alga_bundles::{BundleStore, Listing, StoreError};
use serde::Serialize;

use super::{PAGE, Pages};

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SweptUploads {
    /// Uploads that were staged and never published.
    pub staged: u64,
    /// Uploads that never came to their end, and what a process that died left of other objects.
    pub unfinished: u64,
}

/// Removes uploads that were last written before `before`, staged ones and those that never came to
/// their end. Several processes may do so at once.
///
/// # Errors
///
/// The first failure. What can't be removed is in the way of nothing else: the others are removed.
pub async fn sweep_uploads(
    store: &dyn BundleStore,
    before: SystemTime,
) -> Result<SweptUploads, StoreError> {
    let staged = staged(store, before).await;
    let unfinished = unfinished(store, before).await;
    Ok(SweptUploads {
        staged: staged?,
        unfinished: unfinished?,
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
    use std::time::Duration;

    use alga_bundles::{LocalStore, StagingKey};
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::unsteady::Unsteady;
    use super::*;

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
        let late = modified + Duration::from_secs(60);
        let error = sweep_uploads(&unsteady, late).await.unwrap_err();
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
        let late = modified + Duration::from_secs(60);
        let unsteady = Unsteady::listing_for_ever(store);
        let swept = sweep_uploads(&unsteady, late);
        let swept = tokio::time::timeout(Duration::from_secs(60), swept).await;
        assert_eq!(swept.unwrap().unwrap().unfinished, PAGE as u64);
    }

    #[tokio::test]
    async fn old_uploads_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let (key, modified) = stage(&store).await;
        let other = StagingKey::new(Uuid::new_v4());
        let unfinished = store.stage(other, "", 1).await.unwrap();

        let early = sweep_uploads(&store, modified - Duration::from_secs(60)).await;
        assert_eq!(early.unwrap(), SweptUploads::default());
        let late = modified + Duration::from_secs(60);
        let expected = SweptUploads {
            staged: 1,
            unfinished: 1,
        };
        assert_eq!(sweep_uploads(&store, late).await.unwrap(), expected);
        assert_eq!(store.stat(key.into()).await.unwrap(), None);
        let again = sweep_uploads(&store, late).await.unwrap();
        assert_eq!(again, SweptUploads::default());
        drop(unfinished);
    }
}
