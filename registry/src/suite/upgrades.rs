//! Bringing installs to other versions and back, and removing versions that nobody needs.

use alga_model::{ContentHash, TenantId};
use serde_json::json;
use uuid::Uuid;

use super::{Outcome, assert_refused, at, grants, installed, name, records, version};
use crate::audit::{AuditAction, AuditFilter};
use crate::error::{RegistryError, Resource};
use crate::install::{FormerVersion, Install, InstallState};
use crate::registry::Registry;
use crate::version::{NewVersion, Version, VersionKey};

async fn another_version(registry: &dyn Registry) -> Result<Version, RegistryError> {
    let second = version("notes", "2.0.0");
    Ok(registry.register_version(&second, at(2)).await?.version)
}

/// An upgrade takes version, bundle and grants, and remembers what was before.
pub async fn an_upgrade_remembers_what_it_replaces(registry: &dyn Registry) -> Outcome {
    let before = installed(registry, "notes", TenantId::generate()).await?;
    let second = another_version(registry).await?;
    let upgraded = registry
        .upgrade_install(before.id, second.id, grants("cache"), Some(1), at(3))
        .await?;
    let expected = Install {
        version_id: second.id,
        version: second.version,
        content_hash: second.content_hash,
        grants: grants("cache"),
        former: Some(FormerVersion {
            version_id: before.version_id,
            version: before.version.clone(),
            content_hash: before.content_hash,
            grants: before.grants.clone(),
        }),
        generation: 2,
        updated_at: at(3).now,
        ..before.clone()
    };
    assert_eq!(upgraded, expected);
    assert_eq!(registry.install(before.id).await?, Some(expected));
    Ok(())
}

/// A rollback undoes an upgrade, once.
pub async fn a_rollback_brings_version_and_grants_back_once(registry: &dyn Registry) -> Outcome {
    let before = installed(registry, "notes", TenantId::generate()).await?;
    let second = another_version(registry).await?;
    assert_refused!(
        registry.roll_back_install(before.id, None, at(3)).await,
        RegistryError::NoFormerVersion
    );
    registry
        .upgrade_install(before.id, second.id, grants("cache"), None, at(3))
        .await?;
    let back = registry
        .roll_back_install(before.id, Some(2), at(4))
        .await?;
    let expected = Install {
        generation: 3,
        updated_at: at(4).now,
        ..before.clone()
    };
    assert_eq!(back, expected);
    assert_eq!(registry.install(before.id).await?, Some(expected));
    assert_refused!(
        registry.roll_back_install(before.id, None, at(5)).await,
        RegistryError::NoFormerVersion
    );
    Ok(())
}

/// Upgrading to what is there already changes nothing, and so forgets nothing.
pub async fn an_upgrade_to_the_same_version_leaves_no_trace(registry: &dyn Registry) -> Outcome {
    let before = installed(registry, "notes", TenantId::generate()).await?;
    let second = another_version(registry).await?;
    let upgrade = || registry.upgrade_install(before.id, second.id, grants("cache"), None, at(3));
    let once = upgrade().await?;
    assert_eq!(upgrade().await?, once);
    let of_install = AuditFilter {
        install: Some(before.id),
        ..AuditFilter::default()
    };
    assert_eq!(records(registry, &of_install).await?.len(), 2);
    Ok(())
}

/// A refused upgrade has changed nothing.
pub async fn an_upgrade_that_makes_no_sense_is_refused(registry: &dyn Registry) -> Outcome {
    let before = installed(registry, "notes", TenantId::generate()).await?;
    let foreign = installed(registry, "other", before.tenant).await?;
    let second = another_version(registry).await?;
    let upgrade = async |install, version, expected| {
        registry
            .upgrade_install(install, version, grants("cache"), expected, at(3))
            .await
    };
    assert_refused!(
        upgrade(before.id, Uuid::nil(), None).await,
        RegistryError::NotFound {
            what: Resource::Version
        }
    );
    assert_refused!(
        upgrade(before.id, foreign.version_id, None).await,
        RegistryError::Invalid {
            field: "version",
            ..
        }
    );
    assert_refused!(
        upgrade(before.id, second.id, Some(2)).await,
        RegistryError::Conflict {
            expected: 2,
            actual: 1
        }
    );
    assert_eq!(registry.install(before.id).await?, Some(before.clone()));
    registry
        .set_state(before.id, InstallState::Uninstalled, None, at(4))
        .await?;
    assert_refused!(
        upgrade(before.id, second.id, None).await,
        RegistryError::Uninstalled
    );
    Ok(())
}

/// A version goes when no install has it nor would go back to it.
pub async fn a_version_is_removed_once_nobody_needs_it(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let (first, second) = (install.version_id, another_version(registry).await?.id);
    let needed = |error: &RegistryError| matches!(error, RegistryError::VersionInUse { installs } if *installs == [install.id]);
    assert_refused!(registry.remove_version(first, at(3)).await, error if needed(&error));
    registry
        .upgrade_install(install.id, second, grants("cache"), None, at(3))
        .await?;
    for version in [first, second] {
        assert_refused!(registry.remove_version(version, at(4)).await, error if needed(&error));
    }
    registry.roll_back_install(install.id, None, at(5)).await?;
    registry.remove_version(second, at(6)).await?;
    assert_eq!(registry.version(&VersionKey::Id(second)).await?, None);
    assert_refused!(
        registry.remove_version(second, at(7)).await,
        RegistryError::NotFound {
            what: Resource::Version
        }
    );
    registry
        .set_state(install.id, InstallState::Uninstalled, None, at(8))
        .await?;
    assert_refused!(registry.remove_version(first, at(9)).await, error if needed(&error));
    Ok(())
}

/// The name and number of a version stand for one content, also when it was removed meanwhile.
pub async fn a_removed_version_comes_back_only_as_it_was(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0");
    let other = NewVersion {
        content_hash: ContentHash::of(b"other"),
        ..new.clone()
    };
    let mut last = None;
    for round in 0..2 {
        let registered = registry.register_version(&new, at(round)).await?;
        assert!(registered.created && last != Some(registered.version.id));
        last = Some(registered.version.id);
        registry
            .remove_version(registered.version.id, at(round))
            .await?;
        assert_refused!(
            registry.register_version(&other, at(round)).await,
            RegistryError::DuplicateVersion { registered } if registered == new.content_hash
        );
    }
    // Another number is free.
    let next = NewVersion {
        version: "1.0.1".to_owned(),
        ..other
    };
    assert!(registry.register_version(&next, at(3)).await?.created);
    Ok(())
}

/// A manifest is decided for a version, not for its content for ever: one that was wrong is mended by
/// removing the version and registering it again.
pub async fn a_removed_versions_content_comes_back_with_another_manifest(
    registry: &dyn Registry,
) -> Outcome {
    let wrong = version("notes", "1.0.0");
    let registered = registry.register_version(&wrong, at(0)).await?;
    registry
        .remove_version(registered.version.id, at(1))
        .await?;
    let corrected = NewVersion {
        manifest: r#"{"entry":"dist/other.wasm"}"#.to_owned(),
        ..wrong
    };
    let again = registry.register_version(&corrected, at(2)).await?;
    assert!(again.created && again.version.id != registered.version.id);
    let key = VersionKey::Content(corrected.content_hash);
    let found = registry.version(&key).await?;
    assert_eq!(found.map(|found| found.manifest), Some(corrected.manifest));
    Ok(())
}

/// The audit tells both sides of an upgrade, of a rollback, and what a removed version was.
pub async fn a_record_tells_what_was_upgraded_and_removed(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let second = another_version(registry).await?;
    registry
        .upgrade_install(install.id, second.id, grants("cache"), None, at(3))
        .await?;
    registry.roll_back_install(install.id, None, at(4)).await?;
    registry.remove_version(second.id, at(5)).await?;
    let old = json!({
        "version": "1.0.0", "contentHash": install.content_hash, "grants": install.grants,
    });
    let new = json!({
        "version": "2.0.0", "contentHash": second.content_hash, "grants": grants("cache"),
    });
    for (action, details) in [
        (
            AuditAction::InstallUpgrade,
            json!({ "before": old, "after": new, "generation": 2 }),
        ),
        (
            AuditAction::InstallRollback,
            json!({ "before": new, "after": old, "generation": 3 }),
        ),
        (
            AuditAction::VersionRemove,
            json!({ "version": "2.0.0", "contentHash": second.content_hash, "size": 1_000 }),
        ),
    ] {
        let of_action = AuditFilter {
            action: Some(action),
            extension: Some(name("notes")),
            ..AuditFilter::default()
        };
        let found = records(registry, &of_action).await?;
        let told: Vec<_> = found.iter().map(|record| &record.details).collect();
        assert_eq!(told, [&details], "{action}");
    }
    Ok(())
}
