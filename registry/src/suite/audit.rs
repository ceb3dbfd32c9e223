//! What mutations leave behind.

use std::time::Duration;

use alga_model::{TenantId, Timestamp};
use serde_json::json;

use super::{
    Outcome, all_pages, assert_refused, at, config, grants, installed, name, records, version,
};
use crate::audit::{AuditAction, AuditFilter, AuditOrder, AuditRecord, MAX_AUDIT_REMOVAL};
use crate::change::Change;
use crate::error::RegistryError;
use crate::install::{InstallEdit, InstallState, NewInstall};
use crate::page::PageRequest;
use crate::registry::Registry;
use crate::switches::SwitchesEdit;
use crate::tenant::TenantEdit;

/// One mutation, one record; a refusal, none.
pub async fn every_mutation_leaves_one_record(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    registry
        .set_grants(install.id, grants("cache"), None, at(2))
        .await?;
    registry
        .set_config(install.id, config(&[]), None, at(3))
        .await?;
    registry.set_limits(install.id, None, None, at(4)).await?;
    registry
        .edit_install(
            install.id,
            InstallEdit::AllowEnvelopeConfig(false),
            None,
            at(5),
        )
        .await?;
    let edit = InstallEdit::Concurrency(Some(1));
    registry.edit_install(install.id, edit, None, at(6)).await?;
    registry
        .set_state(install.id, InstallState::Uninstalled, None, at(7))
        .await?;
    assert_refused!(
        registry
            .set_state(install.id, InstallState::Enabled, None, at(8))
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
        AuditAction::InstallLimits,
        AuditAction::InstallEnvelopeConfig,
        AuditAction::InstallConcurrency,
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
        "configKeys": ["mode", "url"], "allowEnvelopeConfig": true, "limits": { "keysPerNamespace": 10 },
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

/// An export in pages has every record once and in its order, while others are added behind it and
/// removed before it, also one that says of itself that it happened earlier.
pub async fn an_export_goes_on_where_it_stopped(registry: &dyn Registry) -> Outcome {
    switched_at(registry, &[10, 20, 30]).await?;
    let filter = AuditFilter {
        since: Some(at(10).now),
        until: Some(at(40).now),
        ..AuditFilter::default()
    };
    let first = registry.audit(&filter, PageRequest::first(2)).await?;
    assert_eq!(times(&first.items), [10, 20]);
    let next = first.next.expect("three records are more than two");

    switched_at(registry, &[39, 25, 40]).await?;
    assert_eq!(registry.remove_audit(at(20).now, 10).await?, 1);
    let second = registry.audit(&filter, PageRequest::after(next, 2)).await?;
    assert_eq!(times(&second.items), [30, 39]);
    let next = second.next.expect("one more record is in between");
    assert_eq!(registry.remove_audit(at(25).now, 10).await?, 1);
    let rest = registry.audit(&filter, PageRequest::after(next, 2)).await?;
    assert_eq!((times(&rest.items), rest.next), (vec![25], None));
    Ok(())
}

/// What happened before the instant is gone, what happened at it or later stays, and nothing but
/// the audit is touched. A number that was given is not given again.
pub async fn the_audit_is_removed_up_to_an_instant(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let tenant = registry
        .edit_tenant(install.tenant, TenantEdit::Storage(false), None, at(2))
        .await?;
    switched_at(registry, &[3, 4, 5]).await?;
    let switches = registry.switches().await?;

    assert_eq!(registry.remove_audit(at(0).now, 10).await?, 0);
    assert_eq!(registry.remove_audit(at(4).now, 10).await?, 4);
    let left = records(registry, &AuditFilter::default()).await?;
    assert_eq!(times(&left), [4, 5]);
    assert_eq!(registry.remove_audit(at(4).now, 10).await?, 0);
    assert_eq!(registry.remove_audit(at(6).now, 10).await?, 2);
    assert_eq!(records(registry, &AuditFilter::default()).await?, []);

    assert_eq!(registry.tenant_settings(tenant.tenant).await?, tenant);
    assert_eq!(registry.install(install.id).await?, Some(install));
    assert_eq!(registry.switches().await?, switches);

    let last = left.last().map(|record| record.seq);
    switched_at(registry, &[6]).await?;
    let added = records(registry, &AuditFilter::default()).await?;
    assert!(added.iter().all(|record| Some(record.seq) > last));
    assert_eq!(added.len(), 1);
    Ok(())
}

/// A removal takes what happened first, in whatever order it was committed, and stops at its
/// limit; the next one goes on.
pub async fn the_oldest_records_are_removed_first_and_never_too_many(
    registry: &dyn Registry,
) -> Outcome {
    switched_at(registry, &[5, 1, 3, 3, 2, 4]).await?;
    for (limit, removed, expected) in [
        (1, 1, &[5, 3, 3, 2, 4][..]),
        (2, 2, &[5, 3, 4]),
        (2, 2, &[5]),
        (2, 0, &[5]),
    ] {
        assert_eq!(registry.remove_audit(at(5).now, limit).await?, removed);
        let left = records(registry, &AuditFilter::default()).await?;
        assert_eq!(times(&left), expected);
    }
    Ok(())
}

/// A removal of nothing, and one that would keep everybody waiting, is refused.
pub async fn a_removal_has_bounds(registry: &dyn Registry) -> Outcome {
    switched_at(registry, &[1, 2]).await?;
    for limit in [0, MAX_AUDIT_REMOVAL + 1, u32::MAX] {
        assert_refused!(
            registry.remove_audit(at(9).now, limit).await,
            RegistryError::Invalid { field: "limit", .. }
        );
    }
    assert_eq!(records(registry, &AuditFilter::default()).await?.len(), 2);
    assert_eq!(registry.remove_audit(at(9).now, 1).await?, 1);
    assert_eq!(
        registry.remove_audit(at(9).now, MAX_AUDIT_REMOVAL).await?,
        1
    );
    Ok(())
}

/// Leaves one record for each of these times, in this order.
async fn switched_at(registry: &dyn Registry, times_ms: &[i64]) -> Outcome {
    let mut storage = registry.switches().await?.storage;
    for ms in times_ms {
        storage = !storage;
        registry
            .edit_switches(SwitchesEdit::Storage(storage), None, at(*ms))
            .await?;
    }
    Ok(())
}

/// When the records happened, in milliseconds after the start.
fn times(records: &[AuditRecord]) -> Vec<i64> {
    let start_ms = at(0).now.as_millis();
    records
        .iter()
        .map(|record| record.at.as_millis() - start_ms)
        .collect()
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
    assert_refused!(
        registry
            .edit_switches(SwitchesEdit::Storage(false), None, nobody)
            .await,
        RegistryError::Invalid { field: "actor", .. }
    );
    assert_refused!(
        registry
            .edit_tenant(install.tenant, TenantEdit::Storage(false), None, nobody)
            .await,
        RegistryError::Invalid { field: "actor", .. }
    );
    Ok(())
}
