//! Installs that know everything about another one's data and get nowhere with it.
//!
//! What they are answered is compared with what an install is answered that is the first of its
//! tenant, when nobody has stored anything it could reach.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use alga_model::TenantId;

use super::stage::{everything, item, key_of, namespace, revision_of};
use super::{Install, Stage};
use crate::{
    BulkItem, BulkPutRequest, DeleteRequest, Error, GetManyRequest, GetRequest, Guard, KeyRange,
    Limits, ListRequest, PutRequest, QuotaName, Quotas, RateLimit, Rates,
};

const NAMESPACES: [&str; 2] = ["cache", "notes"];
const KEYS: [&str; 3] = ["a", "b", "secret"];

pub async fn nothing_they_try_shows_or_changes_another_installs_records(stage: &Stage) {
    let scene = Scene::set(stage).await;
    let before = everything_about(&scene.owner).await;
    let cursors = cursors(&scene.owner).await;
    for other in [&scene.sibling, &scene.stranger] {
        assert_eq!(
            attempts(other, &cursors).await,
            attempts(&scene.nobody, &cursors).await
        );
        assert_eq!(
            everything_about(other).await,
            everything_about(&scene.nobody).await
        );
        assert_eq!(everything_about(&scene.owner).await, before);
    }
}

pub async fn records_of_the_same_name_live_and_die_apart(stage: &Stage) {
    let scene = Scene::set(stage).await;
    let before = everything_about(&scene.owner).await;
    for other in [&scene.sibling, &scene.stranger] {
        for key in KEYS {
            let written = other
                .put_if(key, "\"theirs\"", Guard::Absent)
                .await
                .unwrap();
            assert_eq!((written.revision.get(), written.previous), (1, None));
        }
        assert_eq!(everything_about(&scene.owner).await, before);
        assert!(other.delete("a").await.unwrap());
        let written = other
            .put_if("b", "\"again\"", Guard::Exactly(revision_of(1)))
            .await
            .unwrap();
        assert_eq!(written.previous.unwrap().value.as_str(), "\"theirs\"");
        assert_eq!(everything_about(&scene.owner).await, before);
    }
    let theirs = everything_about(&scene.sibling).await;
    for key in KEYS {
        assert!(scene.owner.delete(key).await.unwrap());
    }
    assert_eq!(everything_about(&scene.sibling).await, theirs);
}

pub async fn floors_are_not_shared(stage: &Stage) {
    let scene = Scene::set(stage).await;
    for key in KEYS {
        assert!(scene.owner.delete(key).await.unwrap());
    }
    for other in [&scene.sibling, &scene.stranger] {
        assert_eq!(other.put("a", "1").await.unwrap().revision.get(), 1);
    }
    assert!(scene.owner.put("a", "1").await.unwrap().revision.get() > 3);
}

pub async fn a_full_install_leaves_its_siblings_their_room(stage: &Stage) {
    let quotas = Quotas {
        namespaces: 1,
        keys_per_namespace: 2,
        bytes_per_install: 20,
        ..Quotas::default()
    };
    let limits = Limits {
        quotas,
        ..Stage::roomy()
    };
    let tenant = TenantId::generate();
    let installs = [
        stage.install_with(tenant, limits),
        stage.install_with(tenant, limits),
        stage.install_with(TenantId::generate(), limits),
    ];
    for install in &installs {
        // Ten bytes each, so that every quota of the install is just used up.
        for key in ["a", "b"] {
            install.put(key, "12345678").await.unwrap();
        }
        for (key, value) in [("c", "1"), ("a", "123456789")] {
            let refused = install.put(key, value).await;
            assert!(matches!(refused, Err(Error::QuotaExceeded(_))), "{key}");
        }
        let usage = install.usage().await.unwrap();
        assert_eq!((usage.keys, usage.bytes, usage.quotas), (2, 20, quotas));
    }
}

pub async fn a_tenants_bytes_are_shared_by_its_installs_alone(stage: &Stage) {
    let quotas = Quotas {
        bytes_per_tenant: 20,
        ..Quotas::default()
    };
    let limits = Limits {
        quotas,
        ..Stage::roomy()
    };
    let tenant = TenantId::generate();
    let (one, two) = (
        stage.install_with(tenant, limits),
        stage.install_with(tenant, limits),
    );
    one.put("a", "12345678").await.unwrap();
    two.put("a", "12345678").await.unwrap();
    for install in [&one, &two] {
        let Err(Error::QuotaExceeded(quota)) = install.put("b", "1").await else {
            panic!("a tenant stored more than its quota");
        };
        // All that an install may learn of its siblings is how much they hold together.
        assert_eq!(
            (quota.name, quota.used, quota.attempted),
            (QuotaName::BytesPerTenant, 20, 23)
        );
        assert_eq!(install.usage().await.unwrap().bytes, 10);
    }
    let elsewhere = stage.install_with(TenantId::generate(), limits);
    elsewhere.put("a", "123456789012345678").await.unwrap();
    assert!(one.delete("a").await.unwrap());
    two.put("b", "12345678").await.unwrap();
}

pub async fn a_busy_install_leaves_its_siblings_their_rate(stage: &Stage) {
    let rate = RateLimit {
        per_second: 1,
        burst: 4,
    };
    let rates = Rates::new(rate, rate, 2);
    let limits = Limits {
        rates,
        ..Limits::default()
    };
    let tenant = TenantId::generate();
    let installs = [tenant, tenant, TenantId::generate()].map(|of| stage.install_with(of, limits));
    for install in &installs {
        // One request takes all that there is.
        install.get_many(&["a", "b", "c", "d"]).await.unwrap();
        let four = ["a", "b", "c", "d"].map(|key| item(key, "1", Guard::Any));
        install.bulk_put(four.to_vec()).await.unwrap();
        assert!(matches!(
            install.get("a").await,
            Err(Error::RateLimited { .. })
        ));
        assert!(matches!(
            install.put("a", "1").await,
            Err(Error::RateLimited { .. })
        ));
    }
    // The tenant as a whole has used up twice that; another one has not.
    let [third, other] = [tenant, TenantId::generate()].map(|of| stage.install_with(of, limits));
    assert!(matches!(
        third.get("a").await,
        Err(Error::RateLimited { .. })
    ));
    assert!(matches!(
        third.put("a", "1").await,
        Err(Error::RateLimited { .. })
    ));
    assert!(matches!(other.get("a").await, Err(Error::NotFound)));
    assert!(other.put("a", "1").await.is_ok());
}

pub async fn a_cursor_is_good_for_its_own_listing_alone(stage: &Stage) {
    let scene = Scene::set(stage).await;
    for other in [&scene.sibling, &scene.stranger] {
        for key in KEYS {
            other.put(key, "1").await.unwrap();
        }
    }
    let request = |cursor: &str| ListRequest {
        cursor: Some(cursor.to_owned()),
        limit: Some(1),
        ..everything()
    };
    for cursor in cursors(&scene.owner).await {
        for other in [&scene.sibling, &scene.stranger] {
            assert!(matches!(
                other.list(request(&cursor)).await,
                Err(Error::ValidationFailed(_))
            ));
        }
        for (index, character) in cursor.char_indices() {
            let swapped = if character == 'A' { "B" } else { "A" };
            let mut changed = cursor.clone();
            changed.replace_range(index..=index, swapped);
            let outcome = scene.owner.list(request(&changed)).await;
            assert!(
                matches!(outcome, Err(Error::ValidationFailed(_))),
                "{index}"
            );
        }
        for changed in [
            &cursor[1..],
            &cursor[..cursor.len() - 1],
            &format!("{cursor}A"),
            &format!("{cursor}="),
        ] {
            let outcome = scene.owner.list(request(changed)).await;
            assert!(
                matches!(outcome, Err(Error::ValidationFailed(_))),
                "{changed}"
            );
        }
    }
}

/// An install with records, and others that want them.
struct Scene<'a> {
    owner: Install<'a>,
    /// Of the same tenant.
    sibling: Install<'a>,
    /// Of another tenant.
    stranger: Install<'a>,
    /// Of a tenant that nobody else is of.
    nobody: Install<'a>,
}

impl<'a> Scene<'a> {
    async fn set(stage: &'a Stage) -> Self {
        let owner = stage.install();
        for name in NAMESPACES {
            for _ in 0..3 {
                for key in KEYS {
                    let item = BulkItem {
                        metadata: Some("{\"owner\":true}".to_owned()),
                        ttl_seconds: (key == "b").then_some(3_600),
                        ..item(key, "\"mine\"", Guard::Any)
                    };
                    let request = PutRequest {
                        namespace: namespace(name),
                        item,
                        return_previous: false,
                        return_current: false,
                    };
                    owner.gate().put(&owner.caller, request).await.unwrap();
                }
            }
        }
        Self {
            sibling: stage.install_with(owner.tenant, Stage::roomy()),
            stranger: stage.install(),
            nobody: stage.install(),
            owner,
        }
    }
}

/// Cursors of an install, for each of its namespaces.
async fn cursors(install: &Install<'_>) -> Vec<String> {
    let mut cursors = Vec::new();
    for name in NAMESPACES {
        let request = ListRequest {
            namespace: namespace(name),
            limit: Some(1),
            ..everything()
        };
        cursors.extend(install.list(request).await.unwrap().next_cursor);
    }
    assert_eq!(cursors.len(), NAMESPACES.len());
    cursors
}

/// All that an install can find out.
async fn everything_about(install: &Install<'_>) -> Vec<String> {
    let mut found = vec![format!("{:?}", install.usage().await)];
    for name in NAMESPACES {
        let request = GetManyRequest {
            namespace: namespace(name),
            keys: KEYS.map(key_of).to_vec(),
        };
        let records = install
            .gate()
            .get_many(&install.caller, request)
            .await
            .unwrap();
        for record in records.into_iter().flatten() {
            found.push(format!(
                "{} {} {record:?}",
                record.value.as_str(),
                record.metadata.as_str()
            ));
        }
        let request = ListRequest {
            namespace: namespace(name),
            include_values: true,
            include_metadata: true,
            ..everything()
        };
        found.push(format!("{:?}", install.list(request).await));
    }
    found
}

/// What every operation is answered to an install that has no records, for keys, revisions and
/// cursors of another one. None of them writes anything.
async fn attempts(install: &Install<'_>, cursors: &[String]) -> Vec<String> {
    let mut answers = Vec::new();
    for name in NAMESPACES {
        for key in KEYS {
            answers.extend(attempts_on_a_key(install, name, key).await);
        }
        answers.extend(attempts_on_a_namespace(install, name, cursors).await);
    }
    answers
}

async fn attempts_on_a_key(install: &Install<'_>, name: &str, key: &str) -> Vec<String> {
    let (gate, caller) = (install.gate(), &install.caller);
    let revisions = (1..=4).map(revision_of);
    let guards = [Guard::Exists]
        .into_iter()
        .chain(revisions.clone().map(Guard::Exactly));
    let mut answers = Vec::new();
    for if_revision in [None].into_iter().chain(revisions.map(Some)) {
        let request = GetRequest {
            namespace: namespace(name),
            key: key_of(key),
            if_revision,
        };
        answers.push(format!("{:?}", gate.get(caller, request).await));
    }
    for guard in guards {
        let request = PutRequest {
            namespace: namespace(name),
            item: item(key, "\"theirs\"", guard),
            return_previous: true,
            return_current: true,
        };
        answers.push(format!("{:?}", gate.put(caller, request).await));
        let request = BulkPutRequest {
            namespace: namespace(name),
            items: vec![item("new", "1", Guard::Any), item(key, "1", guard)],
        };
        answers.push(format!("{:?}", gate.bulk_put(caller, request).await));
        let request = DeleteRequest {
            namespace: namespace(name),
            key: key_of(key),
            guard,
        };
        answers.push(format!("{:?}", gate.delete(caller, request).await));
    }
    let request = DeleteRequest {
        namespace: namespace(name),
        key: key_of(key),
        guard: Guard::Any,
    };
    answers.push(format!("{:?}", gate.delete(caller, request).await));
    answers
}

async fn attempts_on_a_namespace(
    install: &Install<'_>,
    name: &str,
    cursors: &[String],
) -> Vec<String> {
    let (gate, caller) = (install.gate(), &install.caller);
    let request = GetManyRequest {
        namespace: namespace(name),
        keys: KEYS.map(key_of).to_vec(),
    };
    let mut answers = vec![format!("{:?}", gate.get_many(caller, request).await)];
    let cursors = cursors.iter().cloned().map(Some).chain([None]);
    for (cursor, reverse) in cursors.flat_map(|cursor| [(cursor.clone(), false), (cursor, true)]) {
        for key in [None, Some("a"), Some("secret")] {
            let request = ListRequest {
                namespace: namespace(name),
                range: KeyRange::parse(key, key, None).unwrap(),
                reverse,
                cursor: cursor.clone(),
                include_values: true,
                include_metadata: true,
                ..everything()
            };
            answers.push(format!("{:?}", install.list(request).await));
        }
    }
    answers
}
