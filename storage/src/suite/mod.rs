//! The behaviour that every backend must show, as functions over a [`Stage`].
//!
//! A backend is finished when [`contract_suite!`](crate::contract_suite) over it is green. Everything
//! goes through the gate, as guests and pages do, and the time is moved by hand.

pub mod expiry;
pub mod guards;
pub mod history;
pub mod isolation;
pub mod json;
pub mod lifetime;
pub mod listing;
pub mod many;
pub mod model;
pub mod nasty;
pub mod quotas;
pub mod repeats;
pub mod storms;
pub mod strangers;

#[cfg(test)]
mod planted;
mod stage;

pub use stage::{Install, Stage};

/// Makes a test of every behaviour: `contract_suite!(sqlite, new_stage())`, where the expression is
/// an `async` call that gives a new [`Stage`](crate::suite::Stage), or an `Option` of one: nothing is
/// tested where there is none.
#[macro_export]
macro_rules! contract_suite {
    ($backend:ident, $stage:expr) => {
        mod $backend {
            #[allow(unused_imports, reason = "the expression may need what its surroundings import")]
            use super::*;
            $crate::contract_suite!(@tests $stage;
                expiry::writes_of_a_tenant_remove_a_bounded_number_on_their_way,
                expiry::a_write_of_another_tenant_removes_nothing,
                expiry::expired_records_make_room_for_a_write_that_needs_it,
                expiry::room_comes_from_every_install_of_the_tenant,
                expiry::what_expired_elsewhere_does_not_hide_a_full_quota,
                expiry::a_sweep_clears_idle_installs_in_bounded_batches,
                expiry::a_removal_leaves_one_audit_record_a_namespace_and_the_floor,
                expiry::a_record_that_was_given_a_longer_life_is_not_removed,
                expiry::the_audit_is_read_in_pages_by_tenant_install_and_time,
                expiry::the_audit_is_removed_from_its_old_end,
                expiry::tenants_and_their_holdings_are_told,
                guards::a_first_put_has_revision_one_and_the_next_one_more,
                guards::each_guard_allows_what_it_says,
                guards::a_failed_guard_tells_what_is_there,
                guards::a_guard_taken_before_a_delete_never_matches_again,
                guards::the_floor_holds_for_the_whole_namespace,
                guards::deletes_obey_their_guards,
                guards::a_get_with_another_revision_is_a_conflict,
                guards::a_put_returns_what_it_replaced_where_asked,
                guards::one_of_many_racing_creators_wins,
                guards::racing_increments_lose_nothing,
                history::concurrent_calls_are_answered_in_some_order,
                history::calls_that_nobody_waits_for_happen_once_or_never,
                isolation::another_install_and_another_tenant_see_nothing,
                isolation::a_foreign_cursor_is_refused,
                isolation::what_is_not_granted_is_refused_in_order,
                isolation::a_revoked_grant_bites_on_the_next_call,
                json::values_come_back_as_compact_text,
                json::what_no_database_can_hold_is_refused_alike,
                json::sizes_are_allowed_to_the_limit_and_no_further,
                json::text_that_could_never_fit_is_not_looked_at,
                json::a_schema_version_that_does_not_exist_is_refused,
                json::nasty_keys_are_only_keys,
                lifetime::a_record_vanishes_at_the_instant_of_its_expiry,
                lifetime::an_expired_record_is_absent_to_guards_and_raises_the_floor,
                lifetime::an_overwrite_clears_expiry_and_metadata,
                lifetime::times_to_live_are_allowed_to_the_limits,
                listing::pages_give_every_record_once_in_byte_order,
                listing::prefixes_are_literal,
                listing::ranges_include_their_start_and_exclude_their_end,
                listing::a_page_ends_at_its_bytes,
                listing::values_and_metadata_come_where_asked,
                listing::limits_and_cursors_at_their_edges,
                many::get_many_answers_in_order_with_misses,
                many::a_bulk_put_is_all_or_nothing_and_names_the_item,
                many::sizes_and_counts_at_their_limits,
                model::every_sequence_of_operations_is_answered_as_the_model_says,
                nasty::any_text_is_a_key_and_a_value_and_nothing_else,
                nasty::any_text_is_a_prefix_and_a_bound_and_nothing_else,
                nasty::namespaces_that_look_alike_are_apart,
                nasty::no_spelling_of_half_a_character_gets_in,
                nasty::no_spelling_of_the_null_character_gets_in,
                nasty::numbers_keep_every_digit,
                nasty::nesting_ends_at_128,
                nasty::members_are_the_same_however_they_are_spelled,
                nasty::bytes_are_counted_not_characters,
                nasty::revisions_beyond_all_that_are_stored_are_conflicts,
                nasty::each_limit_of_a_request_is_that_of_the_install,
                nasty::a_page_ends_before_the_byte_that_is_too_much,
                quotas::counters_follow_every_operation,
                quotas::keys_bytes_and_namespaces_stop_at_their_quota,
                quotas::a_batch_is_judged_as_a_whole,
                quotas::the_quota_that_is_exceeded_in_the_end_is_named,
                quotas::racing_writers_stop_exactly_at_the_quota,
                quotas::rates_refuse_with_the_time_to_wait,
                repeats::a_repeated_put_is_answered_as_the_first_time,
                repeats::a_repeated_batch_is_answered_as_the_first_time,
                repeats::a_repeated_delete_removes_nothing_that_came_later,
                repeats::a_refused_write_is_judged_anew_when_it_is_repeated,
                repeats::repeats_at_once_are_one_write,
                repeats::an_id_is_that_of_one_write_of_one_install,
                repeats::answers_are_forgotten_after_their_time,
                repeats::answers_with_values_are_forgotten_sooner,
                repeats::answers_are_forgotten_a_batch_at_a_time,
                storms::exactly_as_many_writers_succeed_as_fit,
                storms::room_that_expired_records_hold_is_free,
                storms::writers_of_different_sizes_are_refused_only_what_does_not_fit,
                storms::whoever_made_room_is_never_refused,
                storms::writers_that_try_again_fill_every_gap,
                storms::records_that_grow_and_shrink_at_once_stay_within_the_quota,
                strangers::nothing_they_try_shows_or_changes_another_installs_records,
                strangers::records_of_the_same_name_live_and_die_apart,
                strangers::floors_are_not_shared,
                strangers::a_full_install_leaves_its_siblings_their_room,
                strangers::a_tenants_bytes_are_shared_by_its_installs_alone,
                strangers::a_busy_install_leaves_its_siblings_their_rate,
                strangers::a_cursor_is_good_for_its_own_listing_alone,
            );
        }
    };
    (@tests $stage:expr; $($module:ident::$behaviour:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let stage: ::std::option::Option<$crate::suite::Stage> = $stage.await.into();
                if let Some(stage) = stage {
                    $crate::suite::$module::$behaviour(&stage).await;
                }
            }
        )*
    };
}
