//! Expiry.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::time::Duration;

use super::Stage;
use super::stage::{everything, item, revision_of};
use crate::{BulkItem, Error, Guard};

fn short_lived(key: &str, ttl_seconds: u64) -> BulkItem {
    BulkItem {
        ttl_seconds: Some(ttl_seconds),
        ..item(key, "1", Guard::Any)
    }
}

pub async fn a_record_vanishes_at_the_instant_of_its_expiry(stage: &Stage) {
    let install = stage.install();
    let written = install.put_item(short_lived("k", 60)).await.unwrap();
    let expires_at = written.expires_at.unwrap();
    assert_eq!(expires_at, written.updated_at.plus(Duration::from_secs(60)));

    stage.clock.advance(Duration::from_millis(59_999));
    assert_eq!(install.get("k").await.unwrap().expires_at, Some(expires_at));
    assert_eq!(
        install.list(everything()).await.unwrap().items[0].expires_at,
        Some(expires_at)
    );

    stage.clock.advance(Duration::from_millis(1));
    assert!(matches!(install.get("k").await, Err(Error::NotFound)));
    assert_eq!(install.get_many(&["k"]).await.unwrap(), [None]);
    assert!(install.list(everything()).await.unwrap().items.is_empty());
    assert!(!install.delete("k").await.unwrap());
    assert!(matches!(
        install.put_if("k", "1", Guard::Exists).await,
        Err(Error::RevisionMismatch(_))
    ));
}

pub async fn an_expired_record_is_absent_to_guards_and_raises_the_floor(stage: &Stage) {
    let install = stage.install();
    install.put_item(short_lived("k", 60)).await.unwrap();
    let old = install.put_item(short_lived("k", 60)).await.unwrap();
    stage.clock.advance(Duration::from_secs(60));
    let Err(Error::RevisionMismatch(found)) =
        install.put_if("k", "2", Guard::Exactly(old.revision)).await
    else {
        panic!("a guard matched an expired record");
    };
    assert_eq!((found.current_revision, found.current), (None, None));
    let new = install.put_if("k", "2", Guard::Absent).await.unwrap();
    assert_eq!(new.revision, revision_of(3));
    assert_eq!((new.created_at, new.previous), (new.updated_at, None));
}

pub async fn an_overwrite_clears_expiry_and_metadata(stage: &Stage) {
    let install = stage.install();
    let metadata = Some("{\"m\":1}".to_owned());
    install
        .put_item(BulkItem {
            metadata,
            ..short_lived("k", 60)
        })
        .await
        .unwrap();
    assert_eq!(install.put("k", "2").await.unwrap().expires_at, None);
    stage.clock.advance(Duration::from_secs(61));
    let record = install.get("k").await.unwrap();
    assert_eq!((record.expires_at, record.metadata.as_str()), (None, "{}"));
}

pub async fn times_to_live_are_allowed_to_the_limits(stage: &Stage) {
    let install = stage.install();
    for ttl in [60, 61, 2_591_999, 2_592_000] {
        assert!(
            install
                .put_item(short_lived("k", ttl))
                .await
                .unwrap()
                .expires_at
                .is_some(),
            "{ttl}"
        );
    }
    for (ttl, limit) in [
        (0, 60),
        (59, 60),
        (2_592_001, 2_592_000),
        (u64::MAX, 2_592_000),
    ] {
        let Err(Error::LimitExceeded(exceeded)) = install.put_item(short_lived("k", ttl)).await
        else {
            panic!("a life of {ttl} s was accepted");
        };
        assert_eq!(
            (exceeded.name, exceeded.limit, exceeded.actual),
            ("ttl-seconds", limit, ttl)
        );
    }
}
