//! Installing, finding and editing installs.

use alga_model::{InstallId, TenantId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Outcome, all_pages, assert_refused, at, config, full_install, grants, installed, name, nested,
    version,
};
use crate::audit::AuditFilter;
use crate::config::Config;
use crate::error::{RegistryError, Resource};
use crate::extension::ExtensionKey;
use crate::grant::Grants;
use crate::install::{
    Install, InstallEdit, InstallFilter, InstallState, MAX_CONCURRENCY, NewInstall,
};
use crate::page::{MAX_PAGE_ITEMS, PageRequest};
use crate::registry::Registry;
use crate::switches::SwitchesEdit;

/// An install is what was asked for, enabled, at generation 1.
pub async fn a_new_install_is_enabled_and_complete(registry: &dyn Registry) -> Outcome {
    let registered = registry
        .register_version(&version("notes", "1.0.0"), at(0))
        .await?;
    let new = full_install(TenantId::generate(), &registered);
    let install = registry.create_install(&new, at(5)).await?;
    let expected = Install {
        id: install.id,
        tenant: new.tenant,
        extension_id: registered.extension.id,
        extension_name: registered.extension.name,
        version_id: registered.version.id,
        version: registered.version.version,
        content_hash: registered.version.content_hash,
        state: InstallState::Enabled,
        allow_envelope_config: true,
        config: new.config,
        grants: new.grants,
        limits: new.limits,
        concurrency: None,
        former: None,
        generation: 1,
        created_at: at(5).now,
        updated_at: at(5).now,
    };
    assert_eq!(install, expected);
    assert_eq!(registry.install(install.id).await?, Some(expected));

    let bare = registry
        .create_install(&NewInstall::new(new.tenant, registered.version.id), at(6))
        .await?;
    assert!(!bare.allow_envelope_config && bare.grants.is_empty() && bare.limits.is_none());
    assert_eq!(registry.install(bare.id).await?, Some(bare));
    Ok(())
}

/// There is no install without a version.
pub async fn an_install_of_an_unknown_version_is_refused(registry: &dyn Registry) -> Outcome {
    let new = NewInstall::new(TenantId::generate(), Uuid::nil());
    assert_refused!(
        registry.create_install(&new, at(0)).await,
        RegistryError::NotFound {
            what: Resource::Version
        }
    );
    Ok(())
}

/// Where the switches have a list of extensions, it says what can be installed; what is installed stays.
pub async fn an_extension_that_is_not_allowed_is_not_installed(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let again = NewInstall::new(install.tenant, install.version_id);
    let allow = async |names: &[&str]| {
        let names = Some(names.iter().copied().map(name).collect());
        let edit = SwitchesEdit::AllowedExtensions(names);
        registry.edit_switches(edit, None, at(2)).await
    };
    for names in [&[][..], &["other"]] {
        allow(names).await?;
        assert_refused!(
            registry.create_install(&again, at(3)).await,
            RegistryError::ExtensionNotAllowed
        );
        assert_eq!(registry.install(install.id).await?.as_ref(), Some(&install));
    }
    allow(&["other", "notes"]).await?;
    registry.create_install(&again, at(4)).await?;
    Ok(())
}

/// Two installs of one extension are apart.
pub async fn a_tenant_may_install_an_extension_twice(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let first = installed(registry, "notes", tenant).await?;
    let second = installed(registry, "notes", tenant).await?;
    assert_ne!(first.id, second.id);
    registry
        .set_grants(first.id, Grants::new(), None, at(5))
        .await?;
    assert_eq!(registry.install(second.id).await?, Some(second));
    Ok(())
}

/// An edit changes what it names, the generation and the time, on what is stored too.
pub async fn every_edit_raises_the_generation_and_touches_nothing_else(
    registry: &dyn Registry,
) -> Outcome {
    let mut expected = installed(registry, "notes", TenantId::generate()).await?;
    let id = expected.id;

    expected.grants = grants("cache");
    let edited = registry
        .set_grants(id, grants("cache"), Some(1), at(2))
        .await?;
    assert_edited(registry, &mut expected, edited, 2).await?;

    expected.config = config(&[("mode", "slow")]);
    let edited = registry
        .set_config(id, config(&[("mode", "slow")]), Some(2), at(3))
        .await?;
    assert_edited(registry, &mut expected, edited, 3).await?;

    expected.limits = None;
    let edited = registry.set_limits(id, None, Some(3), at(4)).await?;
    assert_edited(registry, &mut expected, edited, 4).await?;

    // A JSON null is an override, if a strange one; it isn't the same as none.
    expected.limits = Some(Value::Null);
    let edited = registry
        .set_limits(id, Some(Value::Null), Some(4), at(5))
        .await?;
    assert_edited(registry, &mut expected, edited, 5).await?;

    expected.allow_envelope_config = false;
    let edited = registry
        .edit_install(id, InstallEdit::AllowEnvelopeConfig(false), Some(5), at(6))
        .await?;
    assert_edited(registry, &mut expected, edited, 6).await?;

    expected.state = InstallState::Disabled;
    let edited = registry
        .set_state(id, InstallState::Disabled, Some(6), at(7))
        .await?;
    assert_edited(registry, &mut expected, edited, 7).await?;

    for (generation, concurrency) in [(8, Some(3)), (9, None)] {
        expected.concurrency = concurrency;
        let edit = InstallEdit::Concurrency(concurrency);
        let edited = registry
            .edit_install(id, edit, None, at(generation.into()))
            .await?;
        assert_edited(registry, &mut expected, edited, generation).await?;
    }
    Ok(())
}

/// Asserts that the edit of `generation`, made that many milliseconds after the start, led to
/// `expected`.
async fn assert_edited(
    registry: &dyn Registry,
    expected: &mut Install,
    edited: Install,
    generation: u32,
) -> Outcome {
    expected.generation = generation.into();
    expected.updated_at = at(generation.into()).now;
    assert_eq!(edited, *expected);
    assert_eq!(
        registry.install(expected.id).await?.as_ref(),
        Some(&*expected)
    );
    Ok(())
}

/// Setting what is set already is no change.
pub async fn an_edit_that_changes_nothing_leaves_no_trace(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    for edit in [
        InstallEdit::State(install.state),
        InstallEdit::Grants(install.grants.clone()),
        InstallEdit::Config(install.config.clone()),
        InstallEdit::AllowEnvelopeConfig(install.allow_envelope_config),
        InstallEdit::Limits(install.limits.clone()),
        InstallEdit::Concurrency(install.concurrency),
    ] {
        assert_eq!(
            registry
                .edit_install(install.id, edit, Some(1), at(9))
                .await?,
            install
        );
    }
    assert_eq!(registry.install(install.id).await?.as_ref(), Some(&install));
    let filter = AuditFilter {
        install: Some(install.id),
        ..AuditFilter::default()
    };
    assert_eq!(
        registry
            .audit(&filter, PageRequest::first(MAX_PAGE_ITEMS))
            .await?
            .items
            .len(),
        1
    );
    Ok(())
}

/// Who saw another generation changes nothing, whichever side it is on.
pub async fn a_stale_generation_is_a_conflict(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let install = registry
        .set_grants(install.id, Grants::new(), None, at(2))
        .await?;
    for stale in [0, 1, 3, u64::MAX] {
        assert_refused!(
            registry.set_state(install.id, InstallState::Disabled, Some(stale), at(3)).await,
            RegistryError::Conflict { expected, actual: 2 } if expected == stale
        );
    }
    assert_eq!(registry.install(install.id).await?, Some(install));
    Ok(())
}

/// Two who saw the same generation: one changes it, the other learns of it.
pub async fn of_two_edits_of_one_generation_one_wins(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    for generation in 1..=20 {
        let [ours, theirs] = ["ours", "theirs"].map(|side| grants(&format!("{side}-{generation}")));
        let outcomes = tokio::join!(
            registry.set_grants(install.id, ours, Some(generation), at(2)),
            registry.set_grants(install.id, theirs, Some(generation), at(2)),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { expected, actual }))
            | (Err(RegistryError::Conflict { expected, actual }), Ok(won)) => {
                assert_eq!((expected, actual), (generation, won.generation));
                assert_eq!(registry.install(install.id).await?, Some(won));
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
    Ok(())
}

/// Enabled and disabled lead to one another, and both to uninstalled.
pub async fn an_install_goes_on_and_off_and_away(registry: &dyn Registry) -> Outcome {
    use InstallState::{Disabled, Enabled, Uninstalled};
    for path in [
        &[Disabled, Enabled, Uninstalled][..],
        &[Disabled, Uninstalled],
    ] {
        let install = installed(registry, "notes", TenantId::generate()).await?;
        for state in path {
            assert_eq!(
                registry
                    .set_state(install.id, *state, None, at(2))
                    .await?
                    .state,
                *state
            );
        }
        let stored = registry.install(install.id).await?;
        assert_eq!(stored.map(|install| install.state), Some(Uninstalled));
    }
    Ok(())
}

/// No edit leads out of uninstalled or changes what is kept of it.
pub async fn an_uninstalled_install_is_not_changed(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let gone = registry
        .set_state(install.id, InstallState::Uninstalled, None, at(2))
        .await?;
    for edit in [
        InstallEdit::State(InstallState::Enabled),
        InstallEdit::State(InstallState::Disabled),
        InstallEdit::Grants(Grants::new()),
        InstallEdit::Config(Config::default()),
        InstallEdit::AllowEnvelopeConfig(false),
        InstallEdit::Limits(None),
        InstallEdit::Concurrency(Some(1)),
    ] {
        assert_refused!(
            registry.edit_install(gone.id, edit, None, at(3)).await,
            RegistryError::Uninstalled
        );
    }
    assert_eq!(
        registry
            .set_state(gone.id, InstallState::Uninstalled, None, at(3))
            .await?,
        gone
    );
    assert_eq!(registry.install(gone.id).await?, Some(gone));
    Ok(())
}

/// There is nothing to edit where there is nothing.
pub async fn an_unknown_install_is_not_edited(registry: &dyn Registry) -> Outcome {
    let id = InstallId::generate();
    assert_eq!(registry.install(id).await?, None);
    assert_refused!(
        registry
            .set_state(id, InstallState::Disabled, None, at(0))
            .await,
        RegistryError::NotFound {
            what: Resource::Install
        }
    );
    Ok(())
}

/// At least one call runs at once, and no more than any process runs.
pub async fn a_concurrency_outside_its_bounds_is_refused(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let set = async |most| {
        let edit = InstallEdit::Concurrency(Some(most));
        registry.edit_install(install.id, edit, None, at(2)).await
    };
    for most in [0, MAX_CONCURRENCY + 1] {
        assert_refused!(set(most).await, RegistryError::Invalid { .. });
    }
    for most in [1, MAX_CONCURRENCY] {
        assert_eq!(set(most).await?.concurrency, Some(most));
    }
    Ok(())
}

/// Grants have their bounds, and reach them; create and edit agree on them.
pub async fn grants_outside_their_bounds_are_refused(registry: &dyn Registry) -> Outcome {
    const MAX_BYTES: usize = 64 * 1024;
    let sized = |bytes: usize| {
        let grant = "x".repeat(bytes - r#"{"a":""}"#.len());
        Grants::from([("a".to_owned(), json!(grant))])
    };
    let named = |bytes: usize| Grants::from([("c".repeat(bytes), json!({}))]);
    let nested = |levels: usize| Grants::from([("a".to_owned(), nested(levels))]);
    let (new, install) = bare_install(registry).await?;

    for grants in [sized(MAX_BYTES), named(128), nested(64)] {
        let edited = registry.set_grants(install.id, grants, None, at(1)).await?;
        assert_eq!(registry.install(install.id).await?, Some(edited));
    }
    for (grants, expected) in [
        (sized(MAX_BYTES + 1), "grants"),
        (named(129), "capability"),
        (named(0), "capability"),
        (nested(65), "grant"),
    ] {
        let edited = registry
            .set_grants(install.id, grants.clone(), None, at(2))
            .await;
        assert_refused!(edited, RegistryError::Invalid { field, .. } if field == expected);
        let created = registry
            .create_install(
                &NewInstall {
                    grants,
                    ..new.clone()
                },
                at(2),
            )
            .await;
        assert_refused!(created, RegistryError::Invalid { field, .. } if field == expected);
    }
    Ok(())
}

/// Settings have their bounds, and reach them; create and edit agree on them.
pub async fn settings_outside_their_bounds_are_refused(registry: &dyn Registry) -> Outcome {
    const MAX_BYTES: usize = 64 * 1024;
    let sized = |bytes: usize| config(&[("k", &"x".repeat(bytes - r#"{"k":""}"#.len()))]);
    let named = |bytes: usize| config(&[(&"k".repeat(bytes), "any value, even \0")]);
    let (new, install) = bare_install(registry).await?;

    for config in [sized(MAX_BYTES), named(256)] {
        let edited = registry.set_config(install.id, config, None, at(1)).await?;
        assert_eq!(registry.install(install.id).await?, Some(edited));
    }
    for (config, expected) in [
        (sized(MAX_BYTES + 1), "config"),
        (named(257), "config key"),
        (named(0), "config key"),
        (config(&[("a\nb", "v")]), "config key"),
    ] {
        let edited = registry
            .set_config(install.id, config.clone(), None, at(2))
            .await;
        assert_refused!(edited, RegistryError::Invalid { field, .. } if field == expected);
        let created = registry
            .create_install(
                &NewInstall {
                    config,
                    ..new.clone()
                },
                at(2),
            )
            .await;
        assert_refused!(created, RegistryError::Invalid { field, .. } if field == expected);
    }
    Ok(())
}

/// Limit overrides have their bounds, and reach them; create and edit agree on them.
pub async fn limits_outside_their_bounds_are_refused(registry: &dyn Registry) -> Outcome {
    const MAX_BYTES: usize = 16 * 1024;
    let sized = |bytes: usize| Some(json!("x".repeat(bytes - r#""""#.len())));
    let (new, install) = bare_install(registry).await?;

    for limits in [sized(MAX_BYTES), Some(nested(64))] {
        let edited = registry.set_limits(install.id, limits, None, at(1)).await?;
        assert_eq!(registry.install(install.id).await?, Some(edited));
    }
    for limits in [sized(MAX_BYTES + 1), Some(nested(65))] {
        let edited = registry
            .set_limits(install.id, limits.clone(), None, at(2))
            .await;
        assert_refused!(
            edited,
            RegistryError::Invalid {
                field: "limits",
                ..
            }
        );
        let created = registry
            .create_install(
                &NewInstall {
                    limits,
                    ..new.clone()
                },
                at(2),
            )
            .await;
        assert_refused!(
            created,
            RegistryError::Invalid {
                field: "limits",
                ..
            }
        );
    }
    Ok(())
}

/// An install with nothing set, and what it was asked for with.
async fn bare_install(registry: &dyn Registry) -> Result<(NewInstall, Install), RegistryError> {
    let registered = registry
        .register_version(&version("notes", "1.0.0"), at(0))
        .await?;
    let new = NewInstall::new(TenantId::generate(), registered.version.id);
    let install = registry.create_install(&new, at(0)).await?;
    Ok((new, install))
}

/// A filter by tenant shows that tenant's installs and no others, with every other filter too.
pub async fn installs_of_another_tenant_never_show(registry: &dyn Registry) -> Outcome {
    let [ours, theirs] = [TenantId::generate(), TenantId::generate()];
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(installed(registry, "notes", ours).await?.id);
        installed(registry, "notes", theirs).await?;
        installed(registry, "other", theirs).await?;
    }
    let everything = InstallFilter {
        tenant: Some(ours),
        include_uninstalled: true,
        ..InstallFilter::default()
    };
    let of_notes = InstallFilter {
        extension: Some(ExtensionKey::Name(name("notes"))),
        ..everything.clone()
    };
    let of_other = InstallFilter {
        extension: Some(ExtensionKey::Name(name("other"))),
        ..everything.clone()
    };
    assert_eq!(ids(registry, &everything, 1).await?, expected);
    assert_eq!(ids(registry, &of_notes, 2).await?, expected);
    assert_eq!(ids(registry, &of_other, 2).await?, []);
    let nobody = InstallFilter {
        tenant: Some(TenantId::generate()),
        ..InstallFilter::default()
    };
    assert_eq!(ids(registry, &nobody, 2).await?, []);
    Ok(())
}

/// A filter by several tenants or by installs shows those and no others, with every other filter too.
pub async fn installs_of_some_tenants_or_of_a_list_are_found(registry: &dyn Registry) -> Outcome {
    let tenants: [TenantId; 3] = std::array::from_fn(|_| TenantId::generate());
    let [one, two, foreign] = tenants;
    let made = async |tenant| installed(registry, "notes", tenant).await.map(|it| it.id);
    let (of_one, of_foreign) = (made(one).await?, made(foreign).await?);
    let (of_two, foreign_too) = (made(two).await?, made(foreign).await?);
    let (one_too, two_too) = (made(one).await?, made(two).await?);
    let of_tenants = |tenants: &[TenantId]| InstallFilter {
        tenants: Some(tenants.iter().copied().collect()),
        ..InstallFilter::default()
    };
    let listed = InstallFilter {
        installs: Some([one_too, of_foreign, InstallId::generate()].into()),
        ..InstallFilter::default()
    };
    let listed_of_one = InstallFilter {
        tenants: Some([one].into()),
        extension: Some(ExtensionKey::Name(name("notes"))),
        ..listed.clone()
    };
    for limit in [1, 2, 7] {
        for (filter, expected) in [
            (
                &of_tenants(&[one, two]),
                &[of_one, of_two, one_too, two_too][..],
            ),
            (&of_tenants(&[two]), &[of_two, two_too]),
            (&of_tenants(&[foreign]), &[of_foreign, foreign_too]),
            (&of_tenants(&[]), &[]),
            (&listed, &[of_foreign, one_too]),
            (&listed_of_one, &[one_too]),
        ] {
            assert_eq!(ids(registry, filter, limit).await?, expected, "{filter:?}");
        }
    }
    Ok(())
}

/// An extension is the same filter by id and by name.
pub async fn installs_are_found_by_extension(registry: &dyn Registry) -> Outcome {
    let notes = installed(registry, "notes", TenantId::generate()).await?;
    let other = installed(registry, "other", TenantId::generate()).await?;
    for (key, expected) in [
        (ExtensionKey::Id(notes.extension_id), vec![notes.id]),
        (ExtensionKey::Name(notes.extension_name), vec![notes.id]),
        (ExtensionKey::Name(other.extension_name), vec![other.id]),
        (ExtensionKey::Id(Uuid::nil()), vec![]),
        (ExtensionKey::Name(name("missing")), vec![]),
    ] {
        let filter = InstallFilter {
            extension: Some(key),
            ..InstallFilter::default()
        };
        assert_eq!(ids(registry, &filter, 2).await?, expected, "{filter:?}");
    }
    Ok(())
}

/// A listing leaves the uninstalled out unless it is asked for them.
pub async fn uninstalled_installs_show_only_when_asked_for(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let [enabled, disabled, gone] = [
        installed(registry, "notes", tenant).await?.id,
        installed(registry, "notes", tenant).await?.id,
        installed(registry, "notes", tenant).await?.id,
    ];
    registry
        .set_state(disabled, InstallState::Disabled, None, at(2))
        .await?;
    registry
        .set_state(gone, InstallState::Uninstalled, None, at(2))
        .await?;
    for tenant in [None, Some(tenant)] {
        let filter = InstallFilter {
            tenant,
            ..InstallFilter::default()
        };
        assert_eq!(ids(registry, &filter, 3).await?, [enabled, disabled]);
        let filter = InstallFilter {
            include_uninstalled: true,
            ..filter
        };
        assert_eq!(ids(registry, &filter, 3).await?, [enabled, disabled, gone]);
    }
    Ok(())
}

/// Pages of any size add up to the same listing, also while it grows and shrinks.
pub async fn installs_are_paged_in_the_order_they_were_made(registry: &dyn Registry) -> Outcome {
    let tenant = TenantId::generate();
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.push(installed(registry, "notes", tenant).await?.id);
    }
    for limit in [1, 2, 6, 7, 8] {
        assert_eq!(
            ids(registry, &InstallFilter::default(), limit).await?,
            expected,
            "in pages of {limit}"
        );
    }

    let filter = InstallFilter {
        tenant: Some(tenant),
        ..InstallFilter::default()
    };
    let first = registry.installs(&filter, PageRequest::first(3)).await?;
    let removed = first
        .next
        .expect("seven installs are more than one page of three");
    registry
        .set_state(removed, InstallState::Uninstalled, None, at(2))
        .await?;
    let rest = registry
        .installs(&filter, PageRequest::after(removed, 4))
        .await?;
    let seen: Vec<_> = first
        .items
        .into_iter()
        .chain(rest.items)
        .map(|install| install.id)
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(rest.next, None);
    Ok(())
}

/// The ids of a listing, read in pages of `limit`.
async fn ids(
    registry: &dyn Registry,
    filter: &InstallFilter,
    limit: u32,
) -> Result<Vec<InstallId>, RegistryError> {
    let pages = all_pages!(limit, |page| registry.installs(filter, page));
    assert!(pages.iter().all(|page| page.len() <= limit as usize));
    Ok(pages
        .concat()
        .into_iter()
        .map(|install| install.id)
        .collect())
}
