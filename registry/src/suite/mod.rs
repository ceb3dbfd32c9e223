//! The behaviour every [`Registry`] must show, as functions.
//!
//! Each function is handed an empty registry and panics where it doesn't behave. A backend is
//! finished when this is green in its tests:
//!
//! ```
//! use alga_registry::{SqliteRegistry, registry_suite};
//! use alga_sqlite::Options;
//!
//! registry_suite!(in_memory, Box::new(SqliteRegistry::open(Options::memory()).await?));
//! # fn main() {}
//! ```

mod answers;
mod audit;
mod extensions;
mod identity;
mod installs;
mod switches;
mod tenants;
mod upgrades;
mod uploads;
mod versions;

use alga_model::{ContentHash, ExtensionName, TenantId, Timestamp};
use serde_json::{Value, json};

pub use self::answers::*;
pub use self::audit::*;
pub use self::extensions::*;
pub use self::identity::*;
pub use self::installs::*;
pub use self::switches::*;
pub use self::tenants::*;
pub use self::upgrades::*;
pub use self::uploads::*;
pub use self::versions::*;
use crate::audit::{AuditFilter, AuditRecord};
use crate::change::Change;
use crate::config::Config;
use crate::error::RegistryError;
use crate::grant::Grants;
use crate::install::{Install, NewInstall};
use crate::page::{MAX_PAGE_ITEMS, PageRequest};
use crate::registry::Registry;
use crate::version::{NewVersion, Registered};

/// Makes one test of every function of the suite, in a module named after the backend.
///
/// `$open` is an expression, evaluated in the async body of each test, for a guard that keeps the
/// backend alive and derefs or coerces to a [`Registry`](crate::Registry) by `&*`. The tests use
/// `tokio::test`.
#[macro_export]
macro_rules! registry_suite {
    ($backend:ident, $open:expr) => {
        $crate::registry_suite! {
            @stamp $backend, $open,
            a_registry_stays_the_one_it_is
            a_registered_version_is_found_by_every_key
            registering_a_version_again_changes_nothing
            an_extension_belongs_to_its_first_publisher
            a_version_is_not_registered_again_with_other_content
            a_manifest_is_not_swapped_under_its_content
            of_two_racing_registrations_one_wins
            of_publishers_who_race_for_a_name_one_gets_it
            a_refused_registration_leaves_nothing
            a_version_outside_its_bounds_is_refused
            versions_are_paged_from_the_last_one_back
            an_unknown_extension_or_version_is_not_found
            extensions_are_paged_by_name
            a_page_has_bounds
            a_new_install_is_enabled_and_complete
            an_install_of_an_unknown_version_is_refused
            an_extension_that_is_not_allowed_is_not_installed
            a_tenant_may_install_an_extension_twice
            every_edit_raises_the_generation_and_touches_nothing_else
            an_edit_that_changes_nothing_leaves_no_trace
            a_stale_generation_is_a_conflict
            of_two_edits_of_one_generation_one_wins
            an_install_goes_on_and_off_and_away
            an_uninstalled_install_is_not_changed
            an_unknown_install_is_not_edited
            grants_outside_their_bounds_are_refused
            settings_outside_their_bounds_are_refused
            limits_outside_their_bounds_are_refused
            a_concurrency_outside_its_bounds_is_refused
            installs_of_another_tenant_never_show
            installs_of_some_tenants_or_of_a_list_are_found
            installs_are_found_by_extension
            uninstalled_installs_show_only_when_asked_for
            installs_are_paged_in_the_order_they_were_made
            an_upgrade_remembers_what_it_replaces
            a_rollback_brings_version_and_grants_back_once
            an_upgrade_to_the_same_version_leaves_no_trace
            an_upgrade_that_makes_no_sense_is_refused
            a_version_is_removed_once_nobody_needs_it
            a_removed_version_comes_back_only_as_it_was
            a_removed_versions_content_comes_back_with_another_manifest
            a_record_tells_what_was_upgraded_and_removed
            switches_never_changed_are_the_default
            each_edit_of_the_switches_replaces_what_it_names
            switching_to_what_is_set_leaves_no_trace
            a_stale_generation_of_the_switches_is_a_conflict
            of_two_edits_of_the_same_switches_one_wins
            racing_edits_of_different_switches_both_last
            a_list_of_extensions_outside_its_bound_is_refused
            a_record_tells_what_was_switched
            settings_never_changed_are_the_default
            each_edit_of_a_tenant_replaces_what_it_names
            setting_what_a_tenant_has_leaves_no_trace
            a_stale_generation_of_a_tenant_is_a_conflict
            of_two_edits_of_the_same_tenant_one_wins
            limits_of_a_tenant_outside_their_bounds_are_refused
            a_record_tells_what_was_set_for_a_tenant
            tenants_with_settings_are_paged_by_id
            every_mutation_leaves_one_record
            a_record_tells_what_changed
            config_values_stay_out_of_the_audit
            the_audit_is_filtered
            the_audit_is_paged_in_both_directions
            an_export_goes_on_where_it_stopped
            the_audit_is_removed_up_to_an_instant
            the_oldest_records_are_removed_first_and_never_too_many
            a_removal_has_bounds
            a_change_without_an_actor_is_refused
            a_request_is_answered_once
            a_key_is_not_used_for_two_requests
            every_install_has_keys_of_its_own
            a_request_that_is_given_up_can_be_claimed_again
            a_claim_ends_with_its_lease
            an_answer_that_comes_late_is_kept_where_nobody_else_answers
            an_answer_is_kept_until_its_time
            an_answer_has_a_bound
            of_claims_at_once_one_succeeds
            expired_answers_are_removed_in_batches
            a_request_is_looked_up_without_being_claimed
            a_mark_is_kept_without_the_content
            the_oldest_answers_are_forgotten_where_there_are_too_many
            the_oldest_answers_become_marks_where_they_are_too_large
            installs_of_a_tenant_share_what_is_kept_for_it
            what_is_gone_does_not_count
            answers_go_with_their_install
            many_answers_go_with_their_install
            an_upload_is_noted_and_found
            an_id_is_good_for_one_upload
            an_upload_goes_on_from_where_it_is
            of_those_who_go_on_at_once_one_does
            an_upload_ends_once
            what_is_published_is_published
            an_upload_that_has_ended_does_not_go_on
            uploads_outside_their_bounds_are_refused
            old_uploads_are_removed_in_batches
        }
    };
    (@stamp $backend:ident, $open:expr, $($behaviour:ident)*) => {
        mod $backend {
            #[allow(unused_imports, reason = "what the expression needs is the caller's to say")]
            use super::*;

            $(
                #[tokio::test]
                async fn $behaviour() -> Result<(), Box<dyn std::error::Error>> {
                    let registry = $open;
                    Ok($crate::suite::$behaviour(&*registry).await?)
                }
            )*
        }
    };
}

/// What every function of the suite returns: a failure nobody expected.
type Outcome = Result<(), RegistryError>;

/// The first instant of the suite's time.
const START_MS: i64 = 1_795_286_981_000;

/// A change by `admin`, `ms` after the start.
fn at(ms: i64) -> Change<'static> {
    Change {
        actor: "admin",
        request_id: Some("req-1"),
        now: Timestamp::from_millis(START_MS + ms),
    }
}

/// A version of `com.example.<extension>` by Example Inc., with content of its own.
fn version(extension: &str, version: &str) -> NewVersion {
    let content = format!("{extension} {version}");
    NewVersion {
        name: name(extension),
        publisher: "Example Inc.".to_owned(),
        version: version.to_owned(),
        content_hash: ContentHash::of(content.as_bytes()),
        manifest: json!({ "name": name(extension), "version": version }).to_string(),
        size: 1_000,
    }
}

fn name(extension: &str) -> ExtensionName {
    format!("com.example.{extension}")
        .parse()
        .expect("the suite names its extensions validly")
}

/// An install that has something in every field.
fn full_install(tenant: TenantId, registered: &Registered) -> NewInstall {
    NewInstall {
        allow_envelope_config: true,
        config: config(&[("url", "https://example.com"), ("mode", "fast")]),
        grants: grants("settings"),
        limits: Some(json!({ "keysPerNamespace": 10 })),
        ..NewInstall::new(tenant, registered.version.id)
    }
}

fn grants(namespace: &str) -> Grants {
    let storage = json!({ "namespaces": [{ "name": namespace, "access": ["read"] }] });
    Grants::from([("alga.storage".to_owned(), storage)])
}

fn config(settings: &[(&str, &str)]) -> Config {
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::from(settings.collect::<std::collections::BTreeMap<_, _>>())
}

/// Arrays within arrays.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

/// Registers version 1.0.0 of `extension` and installs it for `tenant`.
async fn installed(
    registry: &dyn Registry,
    extension: &str,
    tenant: TenantId,
) -> Result<Install, RegistryError> {
    let registered = registry
        .register_version(&version(extension, "1.0.0"), at(0))
        .await?;
    registry
        .create_install(&full_install(tenant, &registered), at(1))
        .await
}

/// All records that match, which the suite keeps to one page.
async fn records(
    registry: &dyn Registry,
    filter: &AuditFilter,
) -> Result<Vec<AuditRecord>, RegistryError> {
    Ok(registry
        .audit(filter, PageRequest::first(MAX_PAGE_ITEMS))
        .await?
        .items)
}

/// Asserts that a result is an error of this pattern.
macro_rules! assert_refused {
    ($result:expr, $error:pat $(if $guard:expr)?) => {
        match $result {
            Err($error) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($error)),
        }
    };
}
use assert_refused;

/// Reads a listing to its end in pages of `$limit`.
macro_rules! all_pages {
    ($limit:expr, |$page:ident| $list:expr) => {{
        let mut $page = crate::page::PageRequest::first($limit);
        let mut pages = Vec::new();
        loop {
            let found = $list.await?;
            pages.push(found.items);
            match found.next {
                Some(next) => $page = crate::page::PageRequest::after(next, $limit),
                None => break pages,
            }
        }
    }};
}
use all_pages;
