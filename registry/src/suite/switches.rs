//! What is switched for the whole deployment.

use std::collections::BTreeSet;

use alga_model::{ExtensionName, TenantId};
use serde_json::json;

use super::{Outcome, assert_refused, at, installed, name, records};
use crate::audit::{AuditAction, AuditFilter};
use crate::error::RegistryError;
use crate::registry::Registry;
use crate::switches::{Switches, SwitchesEdit};
use crate::tenant::TenantSettings;

/// A new deployment has its storage on and allows every extension.
pub async fn switches_never_changed_are_the_default(registry: &dyn Registry) -> Outcome {
    let expected = Switches {
        storage: true,
        allowed_extensions: None,
        generation: 0,
        updated_at: None,
    };
    assert_eq!(registry.switches().await?, expected);
    Ok(())
}

/// An edit changes what it names, the generation and the time, on what is stored too, and a list
/// that allows nothing stays another one than none.
pub async fn each_edit_of_the_switches_replaces_what_it_names(registry: &dyn Registry) -> Outcome {
    let install = installed(registry, "notes", TenantId::generate()).await?;
    let mut expected = Switches::default();
    let edits = [
        SwitchesEdit::Storage(false),
        allowing(&["notes", "not-registered"]),
        allowing(&["other"]),
        allowing(&[]),
        SwitchesEdit::Storage(true),
        SwitchesEdit::AllowedExtensions(None),
        SwitchesEdit::All {
            storage: false,
            allowed_extensions: Some([name("notes")].into()),
        },
    ];
    for (generation, edit) in (1_u32..).zip(edits) {
        match edit.clone() {
            SwitchesEdit::Storage(storage) => expected.storage = storage,
            SwitchesEdit::AllowedExtensions(allowed) => expected.allowed_extensions = allowed,
            SwitchesEdit::All {
                storage,
                allowed_extensions,
            } => (expected.storage, expected.allowed_extensions) = (storage, allowed_extensions),
        }
        let change = at(generation.into());
        expected.updated_at = Some(change.now);
        expected.generation = generation.into();
        let edited = registry
            .edit_switches(edit, Some(u64::from(generation) - 1), change)
            .await?;
        assert_eq!(edited, expected);
        assert_eq!(registry.switches().await?, expected);
    }
    let unchanged = TenantSettings::unchanged(install.tenant);
    assert_eq!(registry.tenant_settings(install.tenant).await?, unchanged);
    assert_eq!(registry.install(install.id).await?, Some(install));
    Ok(())
}

/// Switching to what is set already is no change, neither at first nor later.
pub async fn switching_to_what_is_set_leaves_no_trace(registry: &dyn Registry) -> Outcome {
    for edit in [
        SwitchesEdit::Storage(true),
        SwitchesEdit::AllowedExtensions(None),
    ] {
        let switches = registry.edit_switches(edit, Some(0), at(1)).await?;
        assert_eq!(switches, Switches::default());
    }
    assert_eq!(records(registry, &AuditFilter::default()).await?, []);

    let edited = registry
        .edit_switches(allowing(&["notes"]), None, at(2))
        .await?;
    for edit in [SwitchesEdit::Storage(true), allowing(&["notes"])] {
        assert_eq!(
            registry.edit_switches(edit, Some(1), at(3)).await?,
            edited.clone()
        );
    }
    assert_eq!(registry.switches().await?, edited);
    assert_eq!(records(registry, &AuditFilter::default()).await?.len(), 1);
    Ok(())
}

/// Who saw other switches changes nothing, not even to what is set already.
pub async fn a_stale_generation_of_the_switches_is_a_conflict(registry: &dyn Registry) -> Outcome {
    assert_refused!(
        registry
            .edit_switches(SwitchesEdit::Storage(false), Some(1), at(1))
            .await,
        RegistryError::Conflict {
            expected: 1,
            actual: 0
        }
    );
    assert_eq!(registry.switches().await?, Switches::default());

    let edited = registry
        .edit_switches(SwitchesEdit::Storage(false), Some(0), at(2))
        .await?;
    for stale in [0, 2, u64::MAX] {
        for storage in [true, false] {
            assert_refused!(
                registry.edit_switches(SwitchesEdit::Storage(storage), Some(stale), at(3)).await,
                RegistryError::Conflict { expected, actual: 1 } if expected == stale
            );
        }
    }
    assert_eq!(registry.switches().await?, edited);
    assert_eq!(records(registry, &AuditFilter::default()).await?.len(), 1);
    Ok(())
}

/// Two who saw the same switches: one changes them, the other learns of it; from the very first
/// change on.
pub async fn of_two_edits_of_the_same_switches_one_wins(registry: &dyn Registry) -> Outcome {
    for generation in 0..20_u64 {
        let [ours, theirs] = ["ours", "theirs"].map(|side| format!("{side}-{generation}"));
        let outcomes = tokio::join!(
            registry.edit_switches(allowing(&[&ours]), Some(generation), at(1)),
            registry.edit_switches(allowing(&[&theirs]), Some(generation), at(1)),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { expected, actual }))
            | (Err(RegistryError::Conflict { expected, actual }), Ok(won)) => {
                assert_eq!((expected, actual), (generation, generation + 1));
                assert_eq!(registry.switches().await?, won);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
    assert_eq!(records(registry, &AuditFilter::default()).await?.len(), 20);
    Ok(())
}

/// Who changes one switch takes back nothing that somebody else does to another one meanwhile.
pub async fn racing_edits_of_different_switches_both_last(registry: &dyn Registry) -> Outcome {
    for round in 0..20_u64 {
        let storage = SwitchesEdit::Storage(round % 2 == 1);
        let allowed = allowing(&[&format!("round-{round}")]);
        let (switched, listed) = tokio::join!(
            registry.edit_switches(storage.clone(), None, at(1)),
            registry.edit_switches(allowed.clone(), None, at(1)),
        );
        let mut generations = [switched?.generation, listed?.generation];
        generations.sort_unstable();
        assert_eq!(generations, [2 * round + 1, 2 * round + 2]);
        let switches = registry.switches().await?;
        assert_eq!(SwitchesEdit::Storage(switches.storage), storage);
        assert_eq!(
            SwitchesEdit::AllowedExtensions(switches.allowed_extensions),
            allowed
        );
    }
    Ok(())
}

/// The list of allowed extensions has its bound, and reaches it.
pub async fn a_list_of_extensions_outside_its_bound_is_refused(registry: &dyn Registry) -> Outcome {
    const MAX_BYTES: usize = 64 * 1024;
    let largest = list_of(MAX_BYTES);
    let edit = SwitchesEdit::AllowedExtensions(Some(largest.clone()));
    let edited = registry.edit_switches(edit, None, at(1)).await?;
    assert_eq!(edited.allowed_extensions, Some(largest));
    assert_eq!(registry.switches().await?, edited);

    let edit = SwitchesEdit::AllowedExtensions(Some(list_of(MAX_BYTES + 1)));
    assert_refused!(
        registry.edit_switches(edit, None, at(2)).await,
        RegistryError::Invalid {
            field: "allowed extensions",
            ..
        }
    );
    assert_eq!(registry.switches().await?, edited);
    Ok(())
}

/// One record for each change, of nobody's install, with what was and what is.
pub async fn a_record_tells_what_was_switched(registry: &dyn Registry) -> Outcome {
    registry
        .edit_switches(SwitchesEdit::Storage(false), None, at(1))
        .await?;
    for edit in [
        allowing(&["b", "a"]),
        allowing(&[]),
        SwitchesEdit::AllowedExtensions(None),
        // What is different counts, not how it was asked for.
        SwitchesEdit::All {
            storage: true,
            allowed_extensions: None,
        },
        SwitchesEdit::All {
            storage: false,
            allowed_extensions: Some(BTreeSet::new()),
        },
    ] {
        registry.edit_switches(edit, None, at(1)).await?;
    }
    let (storage, extensions) = (
        AuditAction::SwitchesStorage,
        AuditAction::SwitchesExtensions,
    );
    let both = ["com.example.a", "com.example.b"];
    let expected = [
        (
            storage,
            json!({ "before": true, "after": false, "generation": 1 }),
        ),
        (
            extensions,
            json!({ "before": null, "after": both, "generation": 2 }),
        ),
        (
            extensions,
            json!({ "before": both, "after": [], "generation": 3 }),
        ),
        (
            extensions,
            json!({ "before": [], "after": null, "generation": 4 }),
        ),
        (
            storage,
            json!({ "before": false, "after": true, "generation": 5 }),
        ),
        (
            AuditAction::SwitchesAll,
            json!({
                "before": { "storage": true, "allowedExtensions": null },
                "after": { "storage": false, "allowedExtensions": [] },
                "generation": 6,
            }),
        ),
    ];
    let records = records(registry, &AuditFilter::default()).await?;
    assert_eq!(records.len(), expected.len());
    for (record, (action, details)) in records.into_iter().zip(expected) {
        assert_eq!(
            (record.action.as_str(), &record.details),
            (action.as_str(), &details)
        );
        assert_eq!((record.at, record.actor.as_str()), (at(1).now, "admin"));
        assert_eq!(
            (record.tenant, record.install, record.extension),
            (None, None, None)
        );
    }
    Ok(())
}

/// An edit that allows these extensions of `com.example`.
fn allowing(extensions: &[&str]) -> SwitchesEdit {
    let names = extensions.iter().map(|extension| name(extension));
    SwitchesEdit::AllowedExtensions(Some(names.collect()))
}

/// A list whose JSON text is `bytes` long.
fn list_of(bytes: usize) -> BTreeSet<ExtensionName> {
    const NAME_BYTES: usize = 20;
    // A name with its quotes, and a bracket or comma before it; one bracket ends the list.
    const ITEM_BYTES: usize = NAME_BYTES + 3;
    let count = (bytes - 1) / ITEM_BYTES;
    let last = NAME_BYTES + (bytes - 1) % ITEM_BYTES;
    let names = (1..=count).map(|index| {
        let length = if index == count { last } else { NAME_BYTES };
        format!("a.{index:0width$}", width = length - 2)
    });
    let names: BTreeSet<ExtensionName> = names
        .map(|name| name.parse().expect("digits are a label"))
        .collect();
    let text = serde_json::to_string(&names).expect("names are JSON");
    assert_eq!(text.len(), bytes);
    names
}
