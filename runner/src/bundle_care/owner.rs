//! Whose a store of bundles is.
//!
//! Which bundles are needed only their registry knows. To any other one they are all garbage: so a store is marked
//! with the identity of its registry, and is cleared out for no other.

use alga_bundles::{BundleStore, Content, Listing, ObjectKey, StoreError};
use alga_registry::{Registry, VersionKey};
use uuid::Uuid;

use super::CareError;

/// Whose a store of bundles is, as a registry sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The registry's own.
    Ours,
    /// That of the registry with this identity, where the mark is one.
    Another(Option<Uuid>),
    /// Nobody has marked it yet.
    Nobody,
}

/// What an operator should look at who meets the store of another registry.
pub const ANOTHERS: &str = "the bundle store is that of another registry; check that DATABASE_URL and the settings of \
                            the bucket belong together";

/// More than any identity has.
const LONGEST_MARK: u64 = 64;
/// How many bundles are looked at before a store counts as one of which the registry knows nothing.
const LOOKED_AT: usize = 100;

impl Owner {
    /// Whose the store is.
    pub async fn of(store: &dyn BundleStore, registry: &dyn Registry) -> Result<Self, CareError> {
        let identity = registry.identity().await?;
        Ok(Self::marked(store, identity).await?)
    }

    /// Marks a store that is nobody's as that of `registry`, and tells whose it is then. One with bundles of which the
    /// registry knows none stays nobody's: it most likely belongs to another registry, which just didn't mark it.
    pub async fn claim(
        store: &dyn BundleStore,
        registry: &dyn Registry,
    ) -> Result<Self, CareError> {
        // Nearly always it is marked: that takes no more than a look.
        let owner = Self::of(store, registry).await?;
        if owner != Self::Nobody || is_foreign(store, registry).await? {
            return Ok(owner);
        }
        Self::mark(store, registry).await
    }

    /// Marks a store as that of `registry`, whosever it was. It is another's still where a server of that one marks it
    /// again in the same moment.
    pub async fn take_over(
        store: &dyn BundleStore,
        registry: &dyn Registry,
    ) -> Result<Self, CareError> {
        if let Self::Another(_) = Self::of(store, registry).await? {
            store.remove(ObjectKey::Owner).await?;
        }
        Self::mark(store, registry).await
    }

    /// Marks a store that nobody has marked.
    async fn mark(store: &dyn BundleStore, registry: &dyn Registry) -> Result<Self, CareError> {
        let identity = registry.identity().await?;
        let mark = identity.to_string();
        store
            .create(ObjectKey::Owner, Content::Bytes(mark.as_bytes()))
            .await?;
        // Read back: not every server sees to it that only the first one writes.
        Ok(Self::marked(store, identity).await?)
    }

    async fn marked(store: &dyn BundleStore, identity: Uuid) -> Result<Self, StoreError> {
        let mark = match store.read(ObjectKey::Owner, LONGEST_MARK).await {
            Ok(mark) => Uuid::try_parse_ascii(&mark).ok(),
            Err(StoreError::NotFound { .. }) => return Ok(Self::Nobody),
            Err(StoreError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(if mark == Some(identity) {
            Self::Ours
        } else {
            Self::Another(mark)
        })
    }
}

/// Whether there are bundles, and the registry knows none of the first of them.
async fn is_foreign(store: &dyn BundleStore, registry: &dyn Registry) -> Result<bool, CareError> {
    let page = store.list(Listing::Canonical, None, LOOKED_AT).await?;
    let mut is_foreign = false;
    for object in page.objects {
        if let ObjectKey::Bundle(hash) = object.key {
            let version = registry.version(&VersionKey::Content(hash)).await?;
            if version.is_some() {
                return Ok(false);
            }
            is_foreign = true;
        }
    }
    Ok(is_foreign)
}

#[cfg(test)]
mod tests {
    use alga_bundles::LocalStore;
    use alga_model::{ContentHash, TenantId};

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
        let another = Owner::Another(Some(ours.identity().await.unwrap()));
        assert_eq!(Owner::claim(&store, theirs).await.unwrap(), another);
        assert_eq!(Owner::of(&store, theirs).await.unwrap(), another);
        assert_eq!(Owner::of(&store, ours).await.unwrap(), Owner::Ours);

        let taken = Owner::take_over(&store, theirs).await.unwrap();
        assert_eq!(taken, Owner::Ours);
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
            assert_eq!(owner, Owner::Another(None));
        }
    }

    #[tokio::test]
    async fn a_store_full_of_bundles_that_a_registry_does_not_know_is_not_claimed_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let (ours, theirs) = (Stage::open().await, Stage::open().await);
        // Its bundle has these bytes.
        ours.install(TenantId::generate()).await;
        let bundle = ObjectKey::Bundle(ContentHash::of(b"notes"));
        store
            .create(bundle, Content::Bytes(b"notes"))
            .await
            .unwrap();
        let (ours, theirs) = (&*ours.registry, &*theirs.registry);
        assert_eq!(Owner::claim(&store, theirs).await.unwrap(), Owner::Nobody);
        assert_eq!(Owner::of(&store, ours).await.unwrap(), Owner::Nobody);
        assert_eq!(Owner::claim(&store, ours).await.unwrap(), Owner::Ours);
    }
}
