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
pub async fn sweep_uploads(
    store: &dyn BundleStore,
    before: SystemTime,
) -> Result<SweptUploads, StoreError> {
    let mut swept = SweptUploads::default();
    let mut pages = Pages::of(store, Listing::Staging);
    while let Some(objects) = pages.next().await? {
        for object in objects {
            if object.stat.modified < before {
                store.remove(object.key).await?;
                swept.staged += 1;
            }
        }
    }
    loop {
        let unfinished = store.unfinished(before, PAGE).await?;
        for upload in &unfinished {
            store.abort_unfinished(upload).await?;
            swept.unfinished += 1;
        }
        if unfinished.len() < PAGE {
            return Ok(swept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alga_bundles::{LocalStore, StagingKey};
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn old_uploads_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let key = StagingKey::new(Uuid::new_v4());
        let mut upload = store.stage(key, "", 1).await.unwrap();
        upload.write(Bytes::from_static(b"a")).await.unwrap();
        let modified = upload.finish().await.unwrap().modified;
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
