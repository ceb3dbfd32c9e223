//! Registering versions and finding them.

use alga_model::ContentHash;
use uuid::Uuid;

use super::{Outcome, all_pages, assert_refused, at, name, version};
use crate::audit::AuditFilter;
use crate::error::RegistryError;
use crate::extension::ExtensionKey;
use crate::page::{MAX_PAGE_ITEMS, PageRequest};
use crate::registry::Registry;
use crate::version::{NewVersion, VersionKey};

/// A version is what it was registered as, whatever it is looked up by.
pub async fn a_registered_version_is_found_by_every_key(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0-rc.1+build.5");
    let registered = registry.register_version(&new, at(5)).await?;
    assert!(registered.created);
    assert_eq!(registered.extension.name, new.name);
    assert_eq!(registered.extension.publisher, new.publisher);
    assert_eq!(registered.extension.created_at, at(5).now);

    let found = registered.version.clone();
    assert_eq!(found.extension_id, registered.extension.id);
    assert_eq!(found.version, new.version);
    assert_eq!(found.content_hash, new.content_hash);
    assert_eq!(found.manifest, new.manifest);
    assert_eq!(found.size, new.size);
    assert_eq!(found.created_at, at(5).now);

    let named = VersionKey::Named {
        name: new.name.clone(),
        version: new.version.clone(),
    };
    for key in [
        VersionKey::Id(found.id),
        VersionKey::Content(new.content_hash),
        named,
    ] {
        assert_eq!(
            registry.version(&key).await?.as_ref(),
            Some(&found),
            "{key:?}"
        );
    }
    for key in [
        ExtensionKey::Id(found.extension_id),
        ExtensionKey::Name(new.name),
    ] {
        assert_eq!(
            registry.extension(&key).await?.as_ref(),
            Some(&registered.extension),
            "{key:?}"
        );
    }
    Ok(())
}

/// The same registration twice is one.
pub async fn registering_a_version_again_changes_nothing(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0");
    let first = registry.register_version(&new, at(0)).await?;
    let second = registry.register_version(&new, at(9)).await?;
    assert!(first.created && !second.created);
    assert_eq!(
        (first.extension, first.version),
        (second.extension, second.version)
    );
    let records = registry
        .audit(&AuditFilter::default(), PageRequest::first(MAX_PAGE_ITEMS))
        .await?;
    assert_eq!(records.items.len(), 1);
    Ok(())
}

/// Nobody publishes under somebody else's name, not even what is there already.
pub async fn an_extension_belongs_to_its_first_publisher(registry: &dyn Registry) -> Outcome {
    let first = version("notes", "1.0.0");
    registry.register_version(&first, at(0)).await?;
    for taken in [first, version("notes", "1.0.1")] {
        let foreign = NewVersion {
            publisher: "Mallory".to_owned(),
            ..taken
        };
        assert_refused!(
            registry.register_version(&foreign, at(1)).await,
            RegistryError::PublisherMismatch { owner } if owner == "Example Inc."
        );
    }
    let elsewhere = NewVersion {
        publisher: "Mallory".to_owned(),
        ..version("other", "1.0.0")
    };
    assert!(registry.register_version(&elsewhere, at(2)).await?.created);
    Ok(())
}

/// A version's content is decided once.
pub async fn a_version_is_not_registered_again_with_other_content(
    registry: &dyn Registry,
) -> Outcome {
    let new = version("notes", "1.0.0");
    registry.register_version(&new, at(0)).await?;
    let other = NewVersion {
        content_hash: ContentHash::of(b"other"),
        ..new.clone()
    };
    assert_refused!(
        registry.register_version(&other, at(1)).await,
        RegistryError::DuplicateVersion { registered } if registered == new.content_hash
    );
    assert_eq!(
        registry
            .version(&VersionKey::Content(other.content_hash))
            .await?,
        None
    );
    Ok(())
}

/// A content's manifest, which holds capabilities, is decided once.
pub async fn a_manifest_is_not_swapped_under_its_content(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0");
    registry.register_version(&new, at(0)).await?;
    let swapped = NewVersion {
        manifest: r#"{"capabilities":["http.fetch"]}"#.to_owned(),
        ..new.clone()
    };
    let renumbered = NewVersion {
        version: "1.0.1".to_owned(),
        ..new.clone()
    };
    let renamed = NewVersion {
        name: name("other"),
        ..new
    };
    for conflicting in [swapped, renumbered, renamed] {
        assert_refused!(
            registry.register_version(&conflicting, at(1)).await,
            RegistryError::ManifestConflict
        );
    }
    Ok(())
}

/// Two registrations of one version with different content at once: one is registered, the other
/// is told what was.
pub async fn of_two_racing_registrations_one_wins(registry: &dyn Registry) -> Outcome {
    for round in 0..20 {
        let ours = version("notes", &format!("1.0.{round}"));
        let theirs = NewVersion {
            content_hash: ContentHash::of(&[round]),
            ..ours.clone()
        };
        let outcomes = tokio::join!(
            registry.register_version(&ours, at(0)),
            registry.register_version(&theirs, at(0))
        );
        let winner = match outcomes {
            (Ok(won), Err(RegistryError::DuplicateVersion { registered }))
            | (Err(RegistryError::DuplicateVersion { registered }), Ok(won)) => {
                assert!(won.created);
                assert_eq!(registered, won.version.content_hash);
                won.version
            }
            other => panic!("expected one winner, got {other:?}"),
        };
        let key = VersionKey::Named {
            name: ours.name,
            version: ours.version,
        };
        assert_eq!(registry.version(&key).await?, Some(winner));
    }
    Ok(())
}

/// Of publishers who register their first versions of one name at once, one owns the name from then
/// on, and the others are told who.
pub async fn of_publishers_who_race_for_a_name_one_gets_it(registry: &dyn Registry) -> Outcome {
    for round in 0..20_u8 {
        let by = |publisher: &str, number: u8| NewVersion {
            publisher: publisher.to_owned(),
            content_hash: ContentHash::of(&[round, number]),
            ..version(&format!("notes{round}"), &format!("1.0.{number}"))
        };
        let versions = [by("Alice", 0), by("Bob", 1), by("Carol", 2)];
        let [alice, bob, carol] = &versions;
        let (alice, bob, carol) = tokio::join!(
            registry.register_version(alice, at(0)),
            registry.register_version(bob, at(0)),
            registry.register_version(carol, at(0))
        );
        let mut owners = Vec::new();
        let mut told = Vec::new();
        for outcome in [alice, bob, carol] {
            match outcome {
                Ok(won) => owners.push(won.extension.publisher),
                Err(RegistryError::PublisherMismatch { owner }) => told.push(owner),
                Err(other) => panic!("expected a winner and two who are told, got {other:?}"),
            }
        }
        let [owner] = owners.as_slice() else {
            panic!("expected one owner, got {owners:?}");
        };
        assert_eq!(told, [owner.clone(), owner.clone()]);
        let extension = registry
            .extension(&ExtensionKey::Name(name(&format!("notes{round}"))))
            .await?;
        assert_eq!(extension.map(|it| it.publisher).as_ref(), Some(owner));
    }
    Ok(())
}

/// A refusal leaves no extension, no version and no record.
pub async fn a_refused_registration_leaves_nothing(registry: &dyn Registry) -> Outcome {
    let new = version("notes", "1.0.0");
    registry.register_version(&new, at(0)).await?;
    let renamed = NewVersion {
        name: name("other"),
        ..new
    };
    assert_refused!(
        registry.register_version(&renamed, at(1)).await,
        RegistryError::ManifestConflict
    );
    assert_eq!(
        registry
            .extension(&ExtensionKey::Name(name("other")))
            .await?,
        None
    );
    let records = registry
        .audit(&AuditFilter::default(), PageRequest::first(MAX_PAGE_ITEMS))
        .await?;
    assert_eq!(records.items.len(), 1);
    Ok(())
}

/// Each field of a registration has its bounds, and reaches them.
pub async fn a_version_outside_its_bounds_is_refused(registry: &dyn Registry) -> Outcome {
    const MANIFEST_BYTES: usize = 256 * 1024;
    let new = |extension: &str| version(extension, "1.0.0");
    let publisher = |bytes: usize| NewVersion {
        publisher: "p".repeat(bytes),
        ..new("publisher")
    };
    let version = |bytes: usize| NewVersion {
        version: ["1.0.0-", &"a".repeat(bytes - "1.0.0-".len())].concat(),
        ..new("version")
    };
    let manifest = |bytes: usize| NewVersion {
        manifest: [
            r#"{"a":""#,
            &"a".repeat(bytes - r#"{"a":""}"#.len()),
            r#""}"#,
        ]
        .concat(),
        ..new("manifest")
    };
    let size = |size: u64| NewVersion {
        size,
        ..new("size")
    };

    for largest in [
        publisher(512),
        version(128),
        manifest(MANIFEST_BYTES),
        size(i64::MAX.unsigned_abs()),
    ] {
        let registered = registry.register_version(&largest, at(0)).await?;
        assert_eq!(
            registry
                .version(&VersionKey::Id(registered.version.id))
                .await?,
            Some(registered.version)
        );
    }
    let malformed_publisher = NewVersion {
        publisher: "a\nb".to_owned(),
        ..new("other")
    };
    let malformed_version = NewVersion {
        version: "1.0".to_owned(),
        ..new("other")
    };
    let malformed_manifest = NewVersion {
        manifest: "[]".to_owned(),
        ..new("other")
    };
    for (refused, expected) in [
        (publisher(0), "publisher"),
        (publisher(513), "publisher"),
        (malformed_publisher, "publisher"),
        (version(129), "version"),
        (malformed_version, "version"),
        (manifest(MANIFEST_BYTES + 1), "manifest"),
        (malformed_manifest, "manifest"),
        (size(i64::MAX.unsigned_abs() + 1), "size"),
    ] {
        assert_refused!(
            registry.register_version(&refused, at(1)).await,
            RegistryError::Invalid { field, .. } if field == expected
        );
    }
    Ok(())
}

/// Versions come newest first, each once, and only those of the extension.
pub async fn versions_are_paged_from_the_last_one_back(registry: &dyn Registry) -> Outcome {
    registry
        .register_version(&version("other", "1.0.0"), at(0))
        .await?;
    let mut expected = Vec::new();
    for minor in 0..7 {
        let new = version("notes", &format!("1.{minor}.0"));
        let registered = registry.register_version(&new, at(0)).await?;
        expected.insert(0, registered.version.summary());
    }
    let extension = expected
        .first()
        .map_or_else(Uuid::nil, |version| version.extension_id);
    for limit in [1, 3, 7, 8] {
        let pages = all_pages!(limit, |page| registry.versions(extension, page));
        assert!(pages.iter().all(|page| page.len() <= limit as usize));
        assert_eq!(pages.concat(), expected, "in pages of {limit}");
    }
    Ok(())
}

/// What isn't there is no error.
pub async fn an_unknown_extension_or_version_is_not_found(registry: &dyn Registry) -> Outcome {
    registry
        .register_version(&version("notes", "1.0.0"), at(0))
        .await?;
    for key in [
        ExtensionKey::Id(Uuid::nil()),
        ExtensionKey::Name(name("other")),
    ] {
        assert_eq!(registry.extension(&key).await?, None);
    }
    for key in [
        VersionKey::Id(Uuid::nil()),
        VersionKey::Content(ContentHash::of(b"other")),
        VersionKey::Named {
            name: name("notes"),
            version: "1.0.1".to_owned(),
        },
        VersionKey::Named {
            name: name("notes"),
            version: "1.0.0\0".to_owned(),
        },
        VersionKey::Named {
            name: name("other"),
            version: "1.0.0".to_owned(),
        },
    ] {
        assert_eq!(registry.version(&key).await?, None);
    }
    let versions = registry
        .versions(Uuid::nil(), PageRequest::first(1))
        .await?;
    assert_eq!((versions.items.len(), versions.next), (0, None));
    Ok(())
}
