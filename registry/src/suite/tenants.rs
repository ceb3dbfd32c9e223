//! What is set for all installs of a tenant.

use alga_model::TenantId;
use serde_json::{Value, json};

use super::{Outcome, all_pages, assert_refused, at, installed, nested, records};
use crate::audit::{AuditAction, AuditFilter};
use crate::error::RegistryError;
use crate::page::PageRequest;
use crate::registry::Registry;
use crate::switches::Switches;
use crate::tenant::{TenantEdit, TenantSettings};

/// Any tenant may use the storage within the default limits, whether it has installs or not.
pub async fn settings_never_changed_are_the_default(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    for tenant in [install.tenant, TenantId::generate()] {
        let expected = TenantSettings {
            tenant,
            storage: true,
            limits: None,
            generation: 0,
            updated_at: None,
        };
        assert_eq!(registry.tenant_settings(tenant).await?, expected);
    }
    let listed = registry
        .tenants_with_settings(PageRequest::first(1))
        .await?;
    assert_eq!((listed.items.len(), listed.next), (0, None));
    Ok(())
}

/// An edit changes what it names, the generation and the time, on what is stored too, and nothing
/// of other tenants, installs or the deployment.
pub async fn each_edit_of_a_tenant_replaces_what_it_names(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let other = TenantId::generate();
    let other = registry.edit_tenant(other, lowered(1), None, at(0)).await?;
    let mut expected = TenantSettings::unchanged(install.tenant);
    let edits = [
        lowered(10),
        TenantEdit::Storage(false),
        // A JSON null is an override, if a strange one; it isn't the same as none.
        TenantEdit::Limits(Some(Value::Null)),
        TenantEdit::Limits(None),
        TenantEdit::Storage(true),
    ];
    for (generation, edit) in (1_u32..).zip(edits) {
        match edit.clone() {
            TenantEdit::Storage(storage) => expected.storage = storage,
            TenantEdit::Limits(limits) => expected.limits = limits,
        }
        let change = at(generation.into());
        expected.updated_at = Some(change.now);
        expected.generation = generation.into();
        let edited = registry
            .edit_tenant(
                install.tenant,
                edit,
                Some(u64::from(generation) - 1),
                change,
            )
            .await?;
        assert_eq!(edited, expected);
        assert_eq!(registry.tenant_settings(install.tenant).await?, expected);
    }
    assert_eq!(registry.tenant_settings(other.tenant).await?, other);
    assert_eq!(registry.install(install.id).await?, Some(install));
    assert_eq!(registry.switches().await?, Switches::default());
    Ok(())
}

/// Setting what is set already is no change, neither at first nor later.
pub async fn setting_what_a_tenant_has_leaves_no_trace(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    for edit in [TenantEdit::Storage(true), TenantEdit::Limits(None)] {
        let settings = registry.edit_tenant(tenant, edit, Some(0), at(1)).await?;
        assert_eq!(settings, TenantSettings::unchanged(tenant));
    }
    assert_eq!(ids(registry, 1).await?, []);
    assert_eq!(records(registry, &of(tenant)).await?.len(), 0);

    let edited = registry
        .edit_tenant(tenant, lowered(10), None, at(2))
        .await?;
    for edit in [TenantEdit::Storage(true), lowered(10)] {
        let settings = registry.edit_tenant(tenant, edit, Some(1), at(3)).await?;
        assert_eq!(settings, edited);
    }
    assert_eq!(registry.tenant_settings(tenant).await?, edited);
    assert_eq!(records(registry, &of(tenant)).await?.len(), 1);
    Ok(())
}

/// Who saw other settings changes nothing; every tenant has generations of its own.
pub async fn a_stale_generation_of_a_tenant_is_a_conflict(registry: &dyn Registry) -> Outcome {
    let [tenant, other] = [TenantId::generate(), TenantId::generate()];
    assert_refused!(
        registry
            .edit_tenant(tenant, lowered(10), Some(1), at(1))
            .await,
        RegistryError::Conflict {
            expected: 1,
            actual: 0
        }
    );
    let edited = registry
        .edit_tenant(tenant, lowered(10), Some(0), at(2))
        .await?;
    for stale in [0, 2, u64::MAX] {
        assert_refused!(
            registry.edit_tenant(tenant, TenantEdit::Storage(false), Some(stale), at(3)).await,
            RegistryError::Conflict { expected, actual: 1 } if expected == stale
        );
    }
    assert_eq!(registry.tenant_settings(tenant).await?, edited);
    let edited = registry
        .edit_tenant(other, lowered(10), Some(0), at(4))
        .await?;
    assert_eq!(edited.generation, 1);
    Ok(())
}

/// Two who saw the same settings: one changes them, the other learns of it; from the very first
/// change on.
pub async fn of_two_edits_of_the_same_tenant_one_wins(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    for generation in 0..20_u64 {
        let outcomes = tokio::join!(
            registry.edit_tenant(tenant, lowered(2 * generation), Some(generation), at(1)),
            registry.edit_tenant(tenant, lowered(2 * generation + 1), Some(generation), at(1)),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { expected, actual }))
            | (Err(RegistryError::Conflict { expected, actual }), Ok(won)) => {
                assert_eq!((expected, actual), (generation, generation + 1));
                assert_eq!(registry.tenant_settings(tenant).await?, won);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
    Ok(())
}

/// A tenant's limit overrides have the bounds of an install's, and reach them.
pub async fn limits_of_a_tenant_outside_their_bounds_are_refused(
    registry: &dyn Registry,
) -> Outcome {
    const MAX_BYTES: usize = 16 * 1024;
    let sized = |bytes: usize| json!("x".repeat(bytes - r#""""#.len()));
    let tenant = TenantId::generate();

    for limits in [sized(MAX_BYTES), nested(64)] {
        let edited = registry
            .edit_tenant(tenant, TenantEdit::Limits(Some(limits)), None, at(1))
            .await?;
        assert_eq!(registry.tenant_settings(tenant).await?, edited);
    }
    // An audit record holds the former limits and these.
    assert_eq!(records(registry, &of(tenant)).await?.len(), 2);
    for limits in [sized(MAX_BYTES + 1), nested(65)] {
        assert_refused!(
            registry
                .edit_tenant(tenant, TenantEdit::Limits(Some(limits)), None, at(2))
                .await,
            RegistryError::Invalid {
                field: "limits",
                ..
            }
        );
    }
    assert_eq!(registry.tenant_settings(tenant).await?.generation, 2);
    Ok(())
}

/// One record for each change, of the tenant, with what was and what is.
pub async fn a_record_tells_what_was_set_for_a_tenant(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    for edit in [lowered(10), TenantEdit::Storage(false), lowered(20)] {
        registry.edit_tenant(tenant, edit, None, at(1)).await?;
    }
    registry
        .edit_tenant(TenantId::generate(), lowered(10), None, at(1))
        .await?;

    let (storage, limits) = (AuditAction::TenantStorage, AuditAction::TenantLimits);
    let [ten, twenty] = [10, 20].map(|keys| json!({ "keysPerNamespace": keys }));
    let expected = [
        (
            limits,
            json!({ "before": null, "after": ten, "generation": 1 }),
        ),
        (
            storage,
            json!({ "before": true, "after": false, "generation": 2 }),
        ),
        (
            limits,
            json!({ "before": ten, "after": twenty, "generation": 3 }),
        ),
    ];
    let records = records(registry, &of(tenant)).await?;
    assert_eq!(records.len(), expected.len());
    for (record, (action, details)) in records.into_iter().zip(expected) {
        assert_eq!(
            (record.action.as_str(), &record.details),
            (action.as_str(), &details)
        );
        assert_eq!((record.at, record.actor.as_str()), (at(1).now, "admin"));
        assert_eq!(record.tenant, Some(tenant));
        assert_eq!((record.install, record.extension), (None, None));
    }
    Ok(())
}

/// A listing has every tenant once whose settings were ever changed, also back to the default.
pub async fn tenants_with_settings_are_paged_by_id(registry: &dyn Registry) -> Outcome {
    let mut expected = Vec::new();
    for _ in 0..7 {
        let tenant = TenantId::generate();
        installed(registry, "notes", TenantId::generate()).await?;
        registry
            .edit_tenant(tenant, lowered(10), None, at(1))
            .await?;
        registry
            .edit_tenant(tenant, TenantEdit::Limits(None), None, at(2))
            .await?;
        expected.push(tenant);
    }
    expected.sort_unstable();
    for limit in [1, 2, 6, 7, 8] {
        assert_eq!(ids(registry, limit).await?, expected, "in pages of {limit}");
    }
    let first = registry
        .tenants_with_settings(PageRequest::first(1))
        .await?;
    for settings in first.items {
        assert_eq!(registry.tenant_settings(settings.tenant).await?, settings);
    }
    Ok(())
}

/// An edit that sets this limit.
fn lowered(keys: u64) -> TenantEdit {
    TenantEdit::Limits(Some(json!({ "keysPerNamespace": keys })))
}

/// The tenants of the listing, read in pages of `limit`.
async fn ids(registry: &dyn Registry, limit: u32) -> Result<Vec<TenantId>, RegistryError> {
    let pages = all_pages!(limit, |page| registry.tenants_with_settings(page));
    assert!(pages.iter().all(|page| page.len() <= limit as usize));
    Ok(pages
        .concat()
        .into_iter()
        .map(|settings| settings.tenant)
        .collect())
}

/// A filter for what was done to the tenant.
fn of(tenant: TenantId) -> AuditFilter {
    AuditFilter {
        tenant: Some(tenant),
        ..AuditFilter::default()
    }
}
