//! Whose a store of bundles is.
//!
//! Which bundles are needed only their registry knows. To any other one they are all garbage: so a store is marked
//! with the identity of its registry, and is cleared out for no other.

use alga_bundles::{BundleStore, Content, Created, ObjectKey, StoreError};
use alga_registry::Registry;
use anyhow::Context as _;
use uuid::Uuid;

/// Whose a store of bundles is, as a registry sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The registry's own.
    Ours,
    /// That of the registry with this identity, or of whatever else the mark says.
    Another(String),
    /// Nobody has marked it yet.
    Nobody,
}

/// More than any identity has; a mark is cut there.
const LONGEST_MARK: u64 = 256;

impl Owner {
    /// Whose the store is.
    pub async fn of(store: &dyn BundleStore, registry: &dyn Registry) -> anyhow::Result<Self> {
        let identity = identity(registry).await?;
        Ok(Self::marked(store, identity).await?)
    }

    /// Marks a store that is nobody's as that of `registry`, and tells whose it is then.
    pub async fn claim(store: &dyn BundleStore, registry: &dyn Registry) -> anyhow::Result<Self> {
        let identity = identity(registry).await?;
        // Nearly always it is there: that takes no more than a look.
        match Self::marked(store, identity).await? {
            Self::Nobody => {}
            marked => return Ok(marked),
        }
        let mark = identity.to_string();
        match store
            .create(ObjectKey::Owner, Content::Bytes(mark.as_bytes()))
            .await?
        {
            Created::Written => Ok(Self::Ours),
            // Somebody was first.
            Created::Existing { .. } => Ok(Self::marked(store, identity).await?),
        }
    }

    /// Marks a store as that of `registry`, whosever it was.
    pub async fn take_over(store: &dyn BundleStore, registry: &dyn Registry) -> anyhow::Result<()> {
        if Self::of(store, registry).await? != Self::Ours {
            store.remove(ObjectKey::Owner).await?;
            Self::claim(store, registry).await?;
        }
        Ok(())
    }

    async fn marked(store: &dyn BundleStore, identity: Uuid) -> Result<Self, StoreError> {
        let mark = match store.read(ObjectKey::Owner, LONGEST_MARK).await {
            Ok(mark) => String::from_utf8_lossy(&mark).into_owned(),
            Err(StoreError::NotFound { .. }) => return Ok(Self::Nobody),
            Err(StoreError::TooLarge { .. }) => "nobody knows whom".to_owned(),
            Err(error) => return Err(error),
        };
        Ok(if mark.trim() == identity.to_string() {
            Self::Ours
        } else {
            Self::Another(mark)
        })
    }
}

async fn identity(registry: &dyn Registry) -> anyhow::Result<Uuid> {
    let identity = registry.identity().await;
    identity.context("cannot use the registry")
}

#[cfg(test)]
mod tests {
    use alga_bundles::LocalStore;

    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn a_store_is_the_first_registrys_until_another_one_takes_it_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let (ours, theirs) = (Stage::open().await, Stage::open().await);
        let (ours, theirs) = (&*ours.registry, &*theirs.registry);
        assert_eq!(Owner::of(&store, ours).await.unwrap(), Owner::Nobody);
        assert_eq!(Owner::claim(&store, ours).await.unwrap(), Owner::Ours);
        assert_eq!(Owner::claim(&store, ours).await.unwrap(), Owner::Ours);
        let us = ours.identity().await.unwrap().to_string();
        let another = Owner::Another(us);
        assert_eq!(Owner::claim(&store, theirs).await.unwrap(), another);
        assert_eq!(Owner::of(&store, theirs).await.unwrap(), another);
        assert_eq!(Owner::of(&store, ours).await.unwrap(), Owner::Ours);

        Owner::take_over(&store, theirs).await.unwrap();
        assert_eq!(Owner::of(&store, theirs).await.unwrap(), Owner::Ours);
        assert!(matches!(
            Owner::claim(&store, ours).await.unwrap(),
            Owner::Another(_)
        ));
    }

    #[tokio::test]
    async fn a_mark_that_nobody_understands_is_anothers() {
        let stage = Stage::open().await;
        for mark in [&b""[..], b"\xff\xfe", &[b'x'; 300]] {
            let folder = tempfile::tempdir().unwrap();
            let store = LocalStore::open(folder.path()).unwrap();
            let planted = store.create(ObjectKey::Owner, Content::Bytes(mark)).await;
            planted.unwrap();
            let owner = Owner::claim(&store, &*stage.registry).await.unwrap();
            assert!(matches!(owner, Owner::Another(_)), "{owner:?}");
        }
    }
}
