//! Bundles on their way into the store.

use alga_model::{ContentHash, Timestamp};
use uuid::Uuid;

use super::{Outcome, START_MS, assert_refused};
use crate::error::RegistryError;
use crate::registry::Registry;
use crate::upload::{
    BundleUpload, MAX_UPLOADS_REMOVAL, NewBundleUpload, UploadEnd, UploadProgress, UploadState,
};

const SIZE: u64 = 10;

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(START_MS + ms)
}

/// An upload that has something in every field.
fn new() -> NewBundleUpload {
    NewBundleUpload {
        id: Uuid::now_v7(),
        actor: "admin:ann".to_owned(),
        filename: "notes-1.0.0.tar.zst".to_owned(),
        content_type: "application/zstd".to_owned(),
        size: SIZE,
        declared_hash: Some(ContentHash::of(b"notes")),
        store_upload: Some("2~Zm9v/bar+1".to_owned()),
    }
}

/// What there is of an upload that has just begun.
fn begun(new: &NewBundleUpload, ms: i64) -> BundleUpload {
    let new = new.clone();
    BundleUpload {
        id: new.id,
        actor: new.actor,
        filename: new.filename,
        content_type: new.content_type,
        size: new.size,
        declared_hash: new.declared_hash,
        received: 0,
        state: UploadState::Receiving,
        code: None,
        hash: None,
        etag: None,
        store_upload: new.store_upload,
        parts: Vec::new(),
        created_at: time(ms),
        updated_at: time(ms),
    }
}

/// An upload that begins at 0.
async fn an_upload(registry: &dyn Registry) -> Result<NewBundleUpload, RegistryError> {
    let new = new();
    assert!(registry.begin_upload(&new, time(0)).await?);
    Ok(new)
}

async fn found(registry: &dyn Registry, id: Uuid) -> Result<BundleUpload, RegistryError> {
    let found = registry.upload(id).await?;
    Ok(found.expect("the upload is noted"))
}

const fn progress(from: u64, to: u64) -> UploadProgress {
    UploadProgress {
        from,
        to,
        parts: None,
    }
}

fn staged() -> UploadEnd {
    UploadEnd::Staged {
        hash: Some(ContentHash::of(b"bytes")),
        etag: "e-1".to_owned(),
    }
}

fn failed() -> UploadEnd {
    UploadEnd::Failed {
        code: "CANCELLED".to_owned(),
    }
}

/// What is said of an upload is found again, and what may be absent may.
pub async fn an_upload_is_noted_and_found(registry: &dyn Registry) -> Outcome {
    let full = an_upload(registry).await?;
    assert_eq!(found(registry, full.id).await?, begun(&full, 0));
    let bare = NewBundleUpload {
        content_type: String::new(),
        size: 0,
        declared_hash: None,
        store_upload: None,
        ..new()
    };
    assert!(registry.begin_upload(&bare, time(1)).await?);
    assert_eq!(found(registry, bare.id).await?, begun(&bare, 1));
    assert_eq!(registry.upload(Uuid::now_v7()).await?, None);
    Ok(())
}

/// An id that was used is taken, whatever became of its upload, which stays as it is.
pub async fn an_id_is_good_for_one_upload(registry: &dyn Registry) -> Outcome {
    let first = an_upload(registry).await?;
    let second = NewBundleUpload {
        actor: "admin:bob".to_owned(),
        ..first.clone()
    };
    assert!(!registry.begin_upload(&second, time(1)).await?);
    assert_eq!(found(registry, first.id).await?, begun(&first, 0));
    registry.end_upload(first.id, &failed(), time(2)).await?;
    assert!(!registry.begin_upload(&second, time(3)).await?);
    Ok(())
}

/// Progress counts only from where the upload is, and no further than its end.
pub async fn an_upload_goes_on_from_where_it_is(registry: &dyn Registry) -> Outcome {
    let new = an_upload(registry).await?;
    let with_parts = UploadProgress {
        parts: Some(vec!["a\"1".to_owned(), "b".to_owned()]),
        ..progress(0, 4)
    };
    for (step, is_noted) in [
        (progress(1, 4), false),
        (progress(0, SIZE + 1), false),
        (with_parts.clone(), true),
        (progress(0, 5), false),
        (progress(4, 4), true),
        (progress(4, SIZE), true),
    ] {
        let noted = registry.progress_upload(new.id, &step, time(5)).await?;
        assert_eq!(noted, is_noted, "{step:?}");
    }
    let expected = BundleUpload {
        received: SIZE,
        parts: with_parts.parts.unwrap_or_default(),
        updated_at: time(5),
        ..begun(&new, 0)
    };
    assert_eq!(found(registry, new.id).await?, expected);
    let step = progress(0, 1);
    let unknown = registry.progress_upload(Uuid::now_v7(), &step, time(5));
    assert!(!unknown.await?);
    Ok(())
}

/// Several who go on from the same place don't all do.
pub async fn of_those_who_go_on_at_once_one_does(registry: &dyn Registry) -> Outcome {
    let new = an_upload(registry).await?;
    let [one, two, three] = [1, 2, 3].map(|to| progress(0, to));
    let (first, second, third) = tokio::join!(
        registry.progress_upload(new.id, &one, time(1)),
        registry.progress_upload(new.id, &two, time(1)),
        registry.progress_upload(new.id, &three, time(1)),
    );
    let noted = [(&one, first?), (&two, second?), (&three, third?)];
    let noted: Vec<_> = noted.into_iter().filter(|(_, noted)| *noted).collect();
    let [(winner, _)] = noted.as_slice() else {
        panic!("expected one to go on, not {noted:?}");
    };
    assert_eq!(found(registry, new.id).await?.received, winner.to);
    Ok(())
}

/// The first end counts, unless a staged upload is given up.
pub async fn an_upload_ends_once(registry: &dyn Registry) -> Outcome {
    let end = async |id, end: &UploadEnd, ms| registry.end_upload(id, end, time(ms)).await;
    let good = an_upload(registry).await?;
    assert!(end(good.id, &staged(), 1).await?);
    assert!(!end(good.id, &failed(), 2).await?);
    assert!(!end(good.id, &staged(), 2).await?);
    let expected = BundleUpload {
        received: SIZE,
        state: UploadState::Staged,
        hash: Some(ContentHash::of(b"bytes")),
        etag: Some("e-1".to_owned()),
        updated_at: time(1),
        ..begun(&good, 0)
    };
    assert_eq!(found(registry, good.id).await?, expected);
    assert!(end(good.id, &UploadEnd::Aborted, 3).await?);
    let expected = BundleUpload {
        state: UploadState::Aborted,
        updated_at: time(3),
        ..expected
    };
    assert_eq!(found(registry, good.id).await?, expected);

    let bad = an_upload(registry).await?;
    assert!(end(bad.id, &failed(), 1).await?);
    assert!(!end(bad.id, &staged(), 2).await?);
    assert!(!end(bad.id, &UploadEnd::Aborted, 2).await?);
    let expected = BundleUpload {
        state: UploadState::Failed,
        code: Some("CANCELLED".to_owned()),
        updated_at: time(1),
        ..begun(&bad, 0)
    };
    assert_eq!(found(registry, bad.id).await?, expected);
    assert!(!end(Uuid::now_v7(), &UploadEnd::Aborted, 1).await?);
    Ok(())
}

/// Whatever was noted before, a version is there.
pub async fn what_is_published_is_published(registry: &dyn Registry) -> Outcome {
    for before in [
        None,
        Some(staged()),
        Some(failed()),
        Some(UploadEnd::Aborted),
    ] {
        let new = an_upload(registry).await?;
        if let Some(before) = &before {
            assert!(registry.end_upload(new.id, before, time(1)).await?);
        }
        let published = UploadEnd::Published;
        assert!(registry.end_upload(new.id, &published, time(2)).await?);
        for late in [staged(), failed(), UploadEnd::Aborted, published] {
            assert!(!registry.end_upload(new.id, &late, time(3)).await?);
        }
        let found = found(registry, new.id).await?;
        let is_staged = before == Some(staged());
        assert_eq!(found.state, UploadState::Published, "{before:?}");
        assert_eq!(found.code, None, "{before:?}");
        assert_eq!(found.etag.is_some(), is_staged, "{before:?}");
    }
    Ok(())
}

/// Nothing is added to what has ended.
pub async fn an_upload_that_has_ended_does_not_go_on(registry: &dyn Registry) -> Outcome {
    for end in [failed(), UploadEnd::Aborted, UploadEnd::Published] {
        let new = an_upload(registry).await?;
        registry.end_upload(new.id, &end, time(1)).await?;
        let step = progress(0, 1);
        let noted = registry.progress_upload(new.id, &step, time(2));
        assert!(!noted.await?, "{end:?}");
    }
    Ok(())
}

/// What is too long, or no plain text, is refused before the database sees it.
pub async fn uploads_outside_their_bounds_are_refused(registry: &dyn Registry) -> Outcome {
    let long = |bytes: usize| "a".repeat(bytes);
    for fine in [
        NewBundleUpload {
            actor: long(256),
            ..new()
        },
        NewBundleUpload {
            filename: long(255),
            ..new()
        },
        NewBundleUpload {
            content_type: long(255),
            ..new()
        },
        NewBundleUpload {
            store_upload: Some(long(1_024)),
            ..new()
        },
    ] {
        assert!(registry.begin_upload(&fine, time(0)).await?);
    }
    for refused in [
        NewBundleUpload {
            actor: long(257),
            ..new()
        },
        NewBundleUpload {
            filename: long(256),
            ..new()
        },
        NewBundleUpload {
            filename: String::new(),
            ..new()
        },
        NewBundleUpload {
            filename: "a\0b".to_owned(),
            ..new()
        },
        NewBundleUpload {
            content_type: long(256),
            ..new()
        },
        NewBundleUpload {
            store_upload: Some(long(1_025)),
            ..new()
        },
        NewBundleUpload {
            store_upload: Some(String::new()),
            ..new()
        },
        NewBundleUpload {
            size: 1 << 63,
            ..new()
        },
    ] {
        let begun = registry.begin_upload(&refused, time(0)).await;
        assert_refused!(begun, RegistryError::Invalid { .. });
    }
    let id = an_upload(registry).await?.id;
    let of_parts = |parts: Vec<String>| UploadProgress {
        parts: Some(parts),
        ..progress(0, 1)
    };
    for refused in [
        progress(2, 1),
        progress(0, 1 << 63),
        of_parts(vec![long(256)]),
        of_parts(vec![String::new()]),
        of_parts(vec!["a".to_owned(); 10_001]),
    ] {
        let noted = registry.progress_upload(id, &refused, time(0)).await;
        assert_refused!(noted, RegistryError::Invalid { .. });
    }
    let code = |bytes| UploadEnd::Failed { code: long(bytes) };
    let etag = |bytes| UploadEnd::Staged {
        hash: None,
        etag: long(bytes),
    };
    for refused in [code(0), code(65), etag(0), etag(256)] {
        let ended = registry.end_upload(id, &refused, time(0)).await;
        assert_refused!(ended, RegistryError::Invalid { .. });
    }
    assert!(registry.end_upload(id, &code(64), time(0)).await?);
    Ok(())
}

/// The oldest go first, by when they were last noted, and no more than asked for.
pub async fn old_uploads_are_removed_in_batches(registry: &dyn Registry) -> Outcome {
    let mut ids = Vec::new();
    for ms in 0..5 {
        let new = new();
        registry.begin_upload(&new, time(ms)).await?;
        ids.push(new.id);
    }
    if let Some(first) = ids.first() {
        let step = progress(0, 1);
        let goes_on = registry.progress_upload(*first, &step, time(9));
        assert!(goes_on.await?);
    }
    let remove = async |ms, limit| registry.remove_uploads(time(ms), limit).await;
    assert_eq!(remove(1, 10).await?, 0);
    assert_eq!(remove(4, 2).await?, 2);
    assert_eq!(remove(4, 2).await?, 1);
    for (id, is_there) in ids.iter().zip([true, false, false, false, true]) {
        assert_eq!(registry.upload(*id).await?.is_some(), is_there);
    }
    assert_eq!(remove(9, MAX_UPLOADS_REMOVAL).await?, 1);
    assert_eq!(remove(10, MAX_UPLOADS_REMOVAL).await?, 1);
    for limit in [0, MAX_UPLOADS_REMOVAL + 1] {
        assert_refused!(remove(10, limit).await, RegistryError::Invalid { .. });
    }
    Ok(())
}
