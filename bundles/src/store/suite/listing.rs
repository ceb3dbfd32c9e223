//! Objects that are listed.

use std::collections::HashSet;

use alga_model::ContentHash;

use super::{all, bundle_key, stat, unique, write};
use crate::store::{BundleStore, Listing, ObjectKey, StagingKey};

/// Every object is in its list, with what is known of it, and in no other.
pub async fn a_list_has_every_object_of_its_kind(store: &dyn BundleStore) {
    let (bytes, hash) = {
        let bytes = unique(500);
        let hash = ContentHash::of(&bytes);
        (bytes, hash)
    };
    let objects = [
        (Listing::Canonical, bundle_key(&bytes)),
        (Listing::Canonical, ObjectKey::Manifest(hash)),
        (
            Listing::Compiled,
            ObjectKey::Compiled {
                bundle: hash,
                compatibility: hash,
            },
        ),
        (
            Listing::Staging,
            StagingKey::new(uuid::Uuid::new_v4()).into(),
        ),
        // A check that was interrupted left it.
        (Listing::Staging, ObjectKey::Check(uuid::Uuid::new_v4())),
    ];
    for (_, key) in objects {
        write(store, key, &bytes).await;
    }
    // A note, which nobody lists, sweeps or collects.
    write(store, ObjectKey::Owner, b"somebody").await;
    for listing in [Listing::Canonical, Listing::Compiled, Listing::Staging] {
        let listed = all(store, listing).await;
        assert!(listed.iter().all(|object| listing.contains(&object.key)));
        for (kind, key) in objects {
            let found = listed.iter().find(|object| object.key == key);
            assert_eq!(found.is_some(), kind == listing, "{key} in {listing}");
            if let Some(found) = found {
                let known = stat(store, key).await;
                assert_eq!((found.stat.size, &found.stat.etag), (500, &known.etag));
            }
        }
    }
}

/// A list read in small pages has each object once, in order, and what comes and goes moves nothing.
pub async fn a_list_is_read_in_pages(store: &dyn BundleStore) {
    let mut expected = HashSet::new();
    for _ in 0..7 {
        let bytes = unique(20);
        for key in [
            bundle_key(&bytes),
            ObjectKey::Manifest(ContentHash::of(&bytes)),
        ] {
            write(store, key, &bytes).await;
            expected.insert(key);
        }
    }
    for limit in [1, 3, 14] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store
                .list(Listing::Canonical, after.as_ref(), limit)
                .await
                .expect("objects can be listed");
            assert!(page.objects.len() <= limit);
            seen.extend(page.objects.iter().map(|object| object.key));
            let Some(next) = page.next else { break };
            after = Some(next);
            if seen.len() == limit {
                let bytes = unique(20);
                write(store, bundle_key(&bytes), &bytes).await;
                store
                    .remove(bundle_key(&bytes))
                    .await
                    .expect("removing works");
            }
        }
        let ours: Vec<_> = seen.iter().filter(|key| expected.contains(key)).collect();
        assert_eq!(ours.len(), expected.len(), "in pages of {limit}");
        assert!(
            seen.is_sorted_by_key(ToString::to_string),
            "{limit}: {seen:?}"
        );
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
    }
}
