//! The behaviour every [`BundleStore`] owes, as functions that panic where a store falls short.
//!
//! A store is finished when one line in its tests is green:
//!
//! ```text
//! alga_bundles::bundle_store_suite!(local, async { Some(TestStore::new()) });
//! ```
//!
//! The expression gives, for each test, something that dereferences to a store, or `None` where there
//! can be none here; each function uses objects of its own, so that one store may serve them all.

mod listing;
mod objects;
mod parts;
mod staging;

use alga_model::ContentHash;

use super::{BundleStore, Content, Created, Listed, Listing, ObjectKey, Stat};

pub use listing::{a_list_has_every_object_of_its_kind, a_list_is_read_in_pages};
pub use objects::{
    a_bundle_and_its_manifest_are_apart, a_missing_object_is_not_found, a_read_is_limited,
    a_removed_object_is_gone, a_store_that_works_passes_its_check,
    an_object_reads_back_as_it_was_written, an_unreadable_source_leaves_nothing,
    content_with_another_hash_is_refused, racing_writers_agree, the_first_write_stays,
    the_state_of_an_object_is_known_without_reading_it,
};
pub use parts::{
    a_part_that_is_none_is_refused, a_part_written_again_counts, a_taken_key_is_not_joined_over,
    an_unfinished_upload_in_parts_is_found_and_aborted, an_upload_in_parts_goes_on_elsewhere,
    an_upload_in_parts_reads_back, an_upload_in_parts_that_is_given_up_leaves_nothing,
    an_upload_in_parts_that_is_gone_is_not_found, joining_again_tells_the_same,
    only_the_last_part_may_be_short, parts_other_than_those_told_are_not_joined,
    racing_joins_agree, the_parts_have_the_size_that_is_told,
};
pub use staging::{
    a_canonical_object_is_not_promoted_over, a_damaged_object_is_replaced,
    a_dropped_upload_leaves_nothing, a_long_upload_leaves_nothing, a_short_upload_leaves_nothing,
    a_staged_upload_is_not_replaced, a_staged_upload_reads_back, a_verified_upload_is_promoted,
    an_aborted_upload_leaves_nothing, an_unfinished_upload_is_found_and_aborted,
    an_upload_dropped_at_its_end_leaves_nothing, an_upload_is_invisible_until_it_is_finished,
    an_upload_is_not_replaced_by_one_that_began_as_early, an_upload_that_changed_is_not_promoted,
    an_upload_that_goes_wrong_leaves_another_of_its_key_alone,
    an_upload_that_nobody_took_leaves_nothing, racing_promotions_agree,
    racing_uploads_of_one_key_agree, settling_waits_until_dropped_uploads_are_gone,
    what_was_given_up_can_be_uploaded_again,
};

/// Bytes no other test has, `len` of them.
fn unique(len: usize) -> Vec<u8> {
    uuid::Uuid::now_v7()
        .as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

fn bundle_key(bytes: &[u8]) -> ObjectKey {
    ObjectKey::Bundle(ContentHash::of(bytes))
}

async fn write(store: &dyn BundleStore, key: ObjectKey, bytes: &[u8]) -> Created {
    store
        .create(key, Content::Bytes(bytes))
        .await
        .expect("the store takes an object")
}

async fn read(store: &dyn BundleStore, key: ObjectKey) -> Vec<u8> {
    store
        .read(key, u64::MAX)
        .await
        .expect("the store has the object")
}

async fn size(store: &dyn BundleStore, key: ObjectKey) -> Option<u64> {
    let stat = store.stat(key).await.expect("asking for an object works");
    stat.map(|stat| stat.size)
}

async fn stat(store: &dyn BundleStore, key: ObjectKey) -> Stat {
    let stat = store.stat(key).await.expect("asking for an object works");
    stat.expect("the store has the object")
}

/// All objects of a kind.
async fn all(store: &dyn BundleStore, listing: Listing) -> Vec<Listed> {
    let mut objects = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .list(listing, after.as_ref(), 1000)
            .await
            .expect("objects can be listed");
        objects.extend(page.objects);
        match page.next {
            Some(next) => after = Some(next),
            None => return objects,
        }
    }
}

/// Runs every function of this module as a test against the store that an expression makes.
#[macro_export]
macro_rules! bundle_store_suite {
    ($name:ident, $store:expr) => {
        $crate::bundle_store_suite!(
            @ $name, $store,
            a_missing_object_is_not_found,
            an_object_reads_back_as_it_was_written,
            the_first_write_stays,
            a_bundle_and_its_manifest_are_apart,
            content_with_another_hash_is_refused,
            an_unreadable_source_leaves_nothing,
            a_read_is_limited,
            racing_writers_agree,
            the_state_of_an_object_is_known_without_reading_it,
            a_removed_object_is_gone,
            a_store_that_works_passes_its_check,
            a_staged_upload_reads_back,
            an_upload_is_invisible_until_it_is_finished,
            a_short_upload_leaves_nothing,
            a_long_upload_leaves_nothing,
            an_aborted_upload_leaves_nothing,
            a_dropped_upload_leaves_nothing,
            an_upload_dropped_at_its_end_leaves_nothing,
            an_upload_that_nobody_took_leaves_nothing,
            settling_waits_until_dropped_uploads_are_gone,
            a_staged_upload_is_not_replaced,
            an_upload_is_not_replaced_by_one_that_began_as_early,
            an_upload_that_goes_wrong_leaves_another_of_its_key_alone,
            racing_uploads_of_one_key_agree,
            what_was_given_up_can_be_uploaded_again,
            a_verified_upload_is_promoted,
            an_upload_that_changed_is_not_promoted,
            a_canonical_object_is_not_promoted_over,
            a_damaged_object_is_replaced,
            racing_promotions_agree,
            an_unfinished_upload_is_found_and_aborted,
            an_upload_in_parts_reads_back,
            joining_again_tells_the_same,
            racing_joins_agree,
            a_part_written_again_counts,
            parts_other_than_those_told_are_not_joined,
            the_parts_have_the_size_that_is_told,
            only_the_last_part_may_be_short,
            a_part_that_is_none_is_refused,
            a_taken_key_is_not_joined_over,
            an_upload_in_parts_that_is_gone_is_not_found,
            an_upload_in_parts_that_is_given_up_leaves_nothing,
            an_unfinished_upload_in_parts_is_found_and_aborted,
            a_list_has_every_object_of_its_kind,
            a_list_is_read_in_pages,
        );
    };
    (@ $name:ident, $store:expr, $($test:ident),+ $(,)?) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(store) = $store.await {
                        $crate::suite::$test(&*store).await;
                    }
                }
            )+
        }
    };
}
