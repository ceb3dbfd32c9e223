//! Who may see and do what.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use alga_model::TenantId;

use super::Stage;
use super::stage::{everything, item, namespace};
use crate::{Error, Guard, Limits, ListRequest, PutRequest, StorageGrant};

pub async fn another_install_and_another_tenant_see_nothing(stage: &Stage) {
    let owner = stage.install();
    let sibling = stage.install_with(owner.tenant, Stage::roomy());
    let stranger = stage.install_with(TenantId::generate(), Stage::roomy());
    owner.put("k", "\"mine\"").await.unwrap();
    for other in [&sibling, &stranger] {
        assert!(matches!(other.get("k").await, Err(Error::NotFound)));
        assert_eq!(other.get_many(&["k"]).await.unwrap(), [None]);
        assert!(other.list(everything()).await.unwrap().items.is_empty());
        assert!(!other.delete("k").await.unwrap());
        let Err(Error::RevisionMismatch(found)) = other.put_if("k", "1", Guard::Exists).await
        else {
            panic!("the record of another install is not absent");
        };
        assert_eq!((found.current_revision, found.current), (None, None));
        assert_eq!(other.usage().await.unwrap().keys, 0);
        assert_eq!(
            other
                .put_if("k", "\"theirs\"", Guard::Absent)
                .await
                .unwrap()
                .revision
                .get(),
            1
        );
    }
    assert_eq!(owner.get("k").await.unwrap().value.as_str(), "\"mine\"");
}

pub async fn a_foreign_cursor_is_refused(stage: &Stage) {
    let owner = stage.install();
    let sibling = stage.install_with(owner.tenant, Stage::roomy());
    for key in ["a", "b", "c"] {
        owner.put(key, "1").await.unwrap();
        sibling.put(key, "1").await.unwrap();
    }
    let one = ListRequest {
        limit: Some(1),
        ..everything()
    };
    let cursor = owner.list(one.clone()).await.unwrap().next_cursor;
    assert!(cursor.is_some());
    let next = ListRequest { cursor, ..one };
    assert_eq!(
        owner.list(next.clone()).await.unwrap().items[0]
            .key
            .as_str(),
        "b"
    );
    assert!(matches!(
        sibling.list(next.clone()).await,
        Err(Error::ValidationFailed(_))
    ));
    let elsewhere = ListRequest {
        namespace: namespace("cache"),
        ..next.clone()
    };
    assert!(matches!(
        owner.list(elsewhere).await,
        Err(Error::ValidationFailed(_))
    ));
    let backwards = ListRequest {
        reverse: true,
        ..next
    };
    assert!(matches!(
        owner.list(backwards).await,
        Err(Error::ValidationFailed(_))
    ));
}

pub async fn what_is_not_granted_is_refused_in_order(stage: &Stage) {
    let install = stage.install();
    let put_to = |name: &str| PutRequest {
        namespace: namespace(name),
        // Not JSON: whoever may not write at all is not told so.
        item: item("k", "not json", Guard::Any),
        return_previous: false,
        return_current: false,
    };
    let put = async |name: &str| {
        install
            .gate()
            .put(&install.caller, put_to(name))
            .await
            .unwrap_err()
    };

    assert!(matches!(put("notes").await, Error::ValidationFailed(_)));
    assert!(matches!(put("other").await, Error::NamespaceDenied(_)));
    let read_only = StorageGrant::parse(
        &serde_json::json!({"namespaces": [{"name": "notes", "access": ["read"]}]}),
    );
    install.grant(Some(read_only.unwrap()), Limits::default(), true);
    assert!(matches!(put("notes").await, Error::CapabilityDenied));
    assert!(matches!(install.get("k").await, Err(Error::NotFound)));
    install.grant(None, Limits::default(), true);
    assert!(matches!(put("notes").await, Error::CapabilityDenied));
    install.grant(
        Some(StorageGrant::all_of([namespace("notes")])),
        Limits::default(),
        false,
    );
    assert!(matches!(put("notes").await, Error::CapabilityDenied));
    assert!(matches!(
        install.usage().await,
        Err(Error::CapabilityDenied)
    ));

    let mut narrowed = stage.install();
    narrowed.caller.may_use_storage = false;
    assert!(matches!(
        narrowed.get("k").await,
        Err(Error::CapabilityDenied)
    ));
    let mut unknown = stage.install();
    unknown.caller.install = alga_model::InstallId::generate();
    assert!(matches!(
        unknown.get("k").await,
        Err(Error::CapabilityDenied)
    ));
}

pub async fn a_revoked_grant_bites_on_the_next_call(stage: &Stage) {
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    install.grant(None, Limits::default(), true);
    assert!(matches!(
        install.get("k").await,
        Err(Error::CapabilityDenied)
    ));
    install.grant(
        Some(StorageGrant::all_of([namespace("notes")])),
        Limits::default(),
        true,
    );
    assert_eq!(install.get("k").await.unwrap().value.as_str(), "1");
}
