//! What mutations leave behind.

use std::time::Duration;

use alga_model::{TenantId, Timestamp};
use serde_json::json;

use super::{Outcome, all_pages, assert_refused, at, config, grants, installed, name, version};
use crate::audit::{AuditAction, AuditFilter, AuditOrder, AuditRecord};
use crate::change::Change;
use crate::error::RegistryError;
use crate::install::{InstallEdit, InstallState, NewInstall};
use crate::page::{MAX_PAGE_ITEMS, PageRequest};
use crate::registry::Registry;

/// One mutation, one record; a refusal, none.
pub async fn every_mutation_leaves_one_record(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    registry
        .set_grants(install.id, grants("cache"), None, at(2))
        .await?;
    registry
        .set_config(install.id, config(&[]), None, at(3))
        .await?;
    registry.set_quotas(install.id, None, None, at(4)).await?;
    registry
        .edit_install(
            install.id,
            InstallEdit::AllowEnvelopeConfig(false),
            None,
            at(5),
        )
        .await?;
    registry
        .set_state(install.id, InstallState::Uninstalled, None, at(6))
        .await?;
    assert_refused!(
        registry
            .set_state(install.id, InstallState::Enabled, None, at(7))
            .await,
        RegistryError::Uninstalled
    );

    let records = records(registry, &AuditFilter::default()).await?;
    let actions: Vec<_> = records
        .iter()
        .map(|record| record.action.as_str())
        .collect();
    let expected = [
        AuditAction::VersionRegister,
        AuditAction::InstallCreate,
        AuditAction::InstallGrants,
        AuditAction::InstallConfig,
        AuditAction::InstallQuotas,
        AuditAction::InstallEnvelopeConfig,
        AuditAction::InstallState,
    ];
    assert_eq!(actions, expected.map(AuditAction::as_str));
    for (ms, record) in (0..).zip(&records) {
        assert_eq!(record.at, at(ms).now);
        assert_eq!(
            (record.actor.as_str(), record.request_id.as_deref()),
            ("admin", Some("req-1"))
        );
        assert_eq!(record.extension.as_ref(), Some(&install.extension_name));
        let is_of_install = record.action != AuditAction::VersionRegister.as_str();
        assert_eq!(record.tenant, is_of_install.then_some(install.tenant));
        assert_eq!(record.install, is_of_install.then_some(install.id));
    }
    Ok(())
}

/// A record is enough to understand what was changed, by whom or not on whose request.
pub async fn a_record_tells_what_changed(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let alone = Change {
        actor: "cli",
        request_id: None,
        ..at(2)
    };
    registry
        .set_grants(install.id, grants("cache"), None, alone)
        .await?;
    registry
        .set_state(install.id, InstallState::Disabled, None, at(3))
        .await?;

    let records = records(registry, &AuditFilter::default()).await?;
    let [registered, created, granted, disabled] = records.as_slice() else {
        panic!("expected four records, got {records:?}");
    };
    let new = version("notes", "1.0.0");
    let expected = json!({
        "version": "1.0.0", "contentHash": new.content_hash, "publisher": "Example Inc.", "size": 1_000,
    });
    assert_eq!(registered.details, expected);
    let expected = json!({
        "version": "1.0.0", "contentHash": new.content_hash, "grants": grants("settings"),
        "configKeys": ["mode", "url"], "allowEnvelopeConfig": true, "quotas": { "keysPerNamespace": 10 },
    });
    assert_eq!(created.details, expected);
    let expected =
        json!({ "before": grants("settings"), "after": grants("cache"), "generation": 2 });
    assert_eq!(granted.details, expected);
    assert_eq!(
        (granted.actor.as_str(), granted.request_id.as_deref()),
        ("cli", None)
    );
    assert_eq!(
        disabled.details,
        json!({ "before": "enabled", "after": "disabled", "generation": 3 })
    );
    Ok(())
}

/// A setting may be a secret; its key is all that is told of it.
pub async fn config_values_stay_out_of_the_audit(registry: &dyn Registry) -> Outcome {
    let registered = registry
        .register_version(&version("notes", "1.0.0"), at(0))
        .await?;
    let new = NewInstall {
        config: config(&[
            ("kept", "hunter2"),
            ("changed", "hunter2"),
            ("removed", "hunter2"),
        ]),
        ..NewInstall::new(TenantId::generate(), registered.version.id)
    };
    let install = registry.create_install(&new, at(1)).await?;
    let changed = config(&[
        ("kept", "hunter2"),
        ("changed", "hunter3"),
        ("added", "hunter3"),
    ]);
    registry
        .set_config(install.id, changed, None, at(2))
        .await?;

    let records = records(registry, &AuditFilter::default()).await?;
    assert!(!format!("{records:?}").contains("hunter"), "{records:?}");
    let expected = json!({ "set": ["added", "changed"], "removed": ["removed"], "generation": 2 });
    assert_eq!(
        records.last().map(|record| &record.details),
        Some(&expected)
    );
    Ok(())
}

/// Each filter restricts, and they do so together; times are from, inclusive, to, exclusive.
pub async fn the_audit_is_filtered(registry: &dyn Registry) -> Outcome {
    let notes = installed(registry, "notes", TenantId::generate()).await?;
    let other = installed(registry, "other", TenantId::generate()).await?;
    registry
        .set_state(notes.id, InstallState::Disabled, None, at(2))
        .await?;
    registry
        .set_state(other.id, InstallState::Disabled, None, at(3))
        .await?;

    let all = AuditFilter::default;
    let since = |ms: i64| Some(at(ms).now);
    let cases = [
        (all(), 6),
        (
            AuditFilter {
                tenant: Some(notes.tenant),
                ..all()
            },
            2,
        ),
        (
            AuditFilter {
                install: Some(notes.id),
                ..all()
            },
            2,
        ),
        (
            AuditFilter {
                extension: Some(name("notes")),
                ..all()
            },
            3,
        ),
        (
            AuditFilter {
                action: Some(AuditAction::InstallState),
                ..all()
            },
            2,
        ),
        (
            AuditFilter {
                since: since(2),
                ..all()
            },
            2,
        ),
        (
            AuditFilter {
                until: since(2),
                ..all()
            },
            4,
        ),
        (
            AuditFilter {
                since: since(2),
                until: since(3),
                ..all()
            },
            1,
        ),
        (
            AuditFilter {
                tenant: Some(notes.tenant),
                action: Some(AuditAction::InstallState),
                ..all()
            },
            1,
        ),
        (
            AuditFilter {
                tenant: Some(notes.tenant),
                install: Some(other.id),
                ..all()
            },
            0,
        ),
        (
            AuditFilter {
                since: Some(Timestamp::from_millis(i64::MAX)),
                ..all()
            },
            0,
        ),
    ];
    for (filter, expected) in cases {
        let found = records(registry, &filter).await?;
        assert_eq!(found.len(), expected, "{filter:?}");
        assert!(found.iter().all(|record| {
            filter
                .tenant
                .is_none_or(|tenant| record.tenant == Some(tenant))
        }));
    }
    Ok(())
}

/// Pages of any size add up to the same records, from either end.
pub async fn the_audit_is_paged_in_both_directions(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    for step in 0..5_u32 {
        let change = Change {
            now: at(2).now.plus(Duration::from_secs(step.into())),
            ..at(2)
        };
        registry
            .set_grants(install.id, grants(&format!("n{step}")), None, change)
            .await?;
    }
    let oldest_first = AuditFilter::default();
    let newest_first = AuditFilter {
        order: AuditOrder::NewestFirst,
        ..AuditFilter::default()
    };
    let mut expected = records(registry, &oldest_first).await?;
    assert_eq!(expected.len(), 7);
    assert!(expected.is_sorted_by(|a, b| a.seq < b.seq));
    for limit in [1, 3, 7, 8] {
        assert_eq!(
            all_pages!(limit, |page| registry.audit(&oldest_first, page)).concat(),
            expected
        );
    }
    expected.reverse();
    for limit in [1, 3, 7, 8] {
        assert_eq!(
            all_pages!(limit, |page| registry.audit(&newest_first, page)).concat(),
            expected
        );
    }
    let beyond = registry
        .audit(&oldest_first, PageRequest::after(u64::MAX, 1))
        .await?;
    assert_eq!((beyond.items.len(), beyond.next), (0, None));
    Ok(())
}

/// Nobody changes anything anonymously or under a name that would garble a log.
pub async fn a_change_without_an_actor_is_refused(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0");
    let long = "a".repeat(257);
    for actor in ["", "a\nb", &long] {
        let change = Change { actor, ..at(0) };
        assert_refused!(
            registry.register_version(&new, change).await,
            RegistryError::Invalid { field: "actor", .. }
        );
    }
    for request_id in ["", "a\rb", &long] {
        let change = Change {
            request_id: Some(request_id),
            ..at(0)
        };
        assert_refused!(
            registry.register_version(&new, change).await,
            RegistryError::Invalid {
                field: "request id",
                ..
            }
        );
    }
    let longest = "a".repeat(256);
    let change = Change {
        actor: &longest,
        request_id: Some(&longest),
        ..at(0)
    };
    let registered = registry.register_version(&new, change).await?;
    let nobody = Change { actor: "", ..at(0) };
    let install = NewInstall::new(TenantId::generate(), registered.version.id);
    assert_refused!(
        registry.create_install(&install, nobody).await,
        RegistryError::Invalid { field: "actor", .. }
    );
    let install = registry.create_install(&install, at(1)).await?;
    assert_refused!(
        registry
            .set_state(install.id, InstallState::Disabled, None, nobody)
            .await,
        RegistryError::Invalid { field: "actor", .. }
    );
    Ok(())
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
