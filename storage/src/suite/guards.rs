//! Revisions and guards.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use super::Stage;
use super::stage::revision_of;
use crate::{Error, Guard};

fn conflict(error: Error) -> crate::Conflict {
    match error {
        Error::RevisionMismatch(conflict) => *conflict,
        other => panic!("expected a conflict, not {other}"),
    }
}

fn exactly(revision: u64) -> Guard {
    Guard::Exactly(revision_of(revision))
}

pub async fn a_first_put_has_revision_one_and_the_next_one_more(stage: &Stage) {
    let install = stage.install();
    let first = install.put("k", "1").await.unwrap();
    assert_eq!(first.revision.get(), 1);
    assert_eq!(first.created_at, first.updated_at);
    stage.clock.advance(std::time::Duration::from_millis(7));
    let second = install.put("k", "2").await.unwrap();
    assert_eq!(second.revision.get(), 2);
    assert_eq!(second.created_at, first.created_at);
    assert_eq!(
        second.updated_at.as_millis(),
        first.updated_at.as_millis() + 7
    );
    let record = install.get("k").await.unwrap();
    assert_eq!(
        (record.value.as_str(), record.revision),
        ("2", second.revision)
    );
    assert_eq!(
        (record.created_at, record.updated_at),
        (second.created_at, second.updated_at)
    );
}

pub async fn each_guard_allows_what_it_says(stage: &Stage) {
    let install = stage.install();
    assert_eq!(
        conflict(install.put_if("k", "1", Guard::Exists).await.unwrap_err()).current_revision,
        None
    );
    assert_eq!(
        conflict(install.put_if("k", "1", exactly(1)).await.unwrap_err()).current_revision,
        None
    );
    assert_eq!(
        install
            .put_if("k", "1", Guard::Absent)
            .await
            .unwrap()
            .revision
            .get(),
        1
    );
    conflict(install.put_if("k", "2", Guard::Absent).await.unwrap_err());
    assert_eq!(
        install
            .put_if("k", "2", Guard::Exists)
            .await
            .unwrap()
            .revision
            .get(),
        2
    );
    conflict(install.put_if("k", "3", exactly(1)).await.unwrap_err());
    conflict(install.put_if("k", "3", exactly(3)).await.unwrap_err());
    assert_eq!(
        install
            .put_if("k", "3", exactly(2))
            .await
            .unwrap()
            .revision
            .get(),
        3
    );
}

pub async fn a_failed_guard_tells_what_is_there(stage: &Stage) {
    let install = stage.install();
    install.put("k", "\"first\"").await.unwrap();
    let found = conflict(install.put_if("k", "2", Guard::Absent).await.unwrap_err());
    assert_eq!(found.current_revision, Some(revision_of(1)));
    assert_eq!(found.current.unwrap().value.as_str(), "\"first\"");
    assert_eq!(install.get("k").await.unwrap().value.as_str(), "\"first\"");
}

pub async fn a_guard_taken_before_a_delete_never_matches_again(stage: &Stage) {
    let install = stage.install();
    for round in 0..5 {
        let taken = install.put("k", "1").await.unwrap().revision;
        assert!(install.delete("k").await.unwrap());
        let again = install.put("k", "2").await.unwrap().revision;
        assert!(again > taken, "round {round}: {again} is not above {taken}");
        conflict(
            install
                .put_if("k", "3", Guard::Exactly(taken))
                .await
                .unwrap_err(),
        );
        conflict(
            install
                .delete_if("k", Guard::Exactly(taken))
                .await
                .unwrap_err(),
        );
    }
}

pub async fn the_floor_holds_for_the_whole_namespace(stage: &Stage) {
    let install = stage.install();
    for _ in 0..4 {
        install.put("often", "1").await.unwrap();
    }
    assert!(install.delete("often").await.unwrap());
    assert_eq!(install.put("other", "1").await.unwrap().revision.get(), 5);
    assert_eq!(install.put("other", "1").await.unwrap().revision.get(), 6);
    assert_eq!(install.put("third", "1").await.unwrap().revision.get(), 5);
}

pub async fn deletes_obey_their_guards(stage: &Stage) {
    let install = stage.install();
    assert!(!install.delete("k").await.unwrap());
    assert_eq!(
        conflict(install.delete_if("k", Guard::Exists).await.unwrap_err()).current_revision,
        None
    );
    assert_eq!(
        conflict(install.delete_if("k", exactly(1)).await.unwrap_err()).current_revision,
        None
    );
    install.put("k", "1").await.unwrap();
    let stale = conflict(install.delete_if("k", exactly(2)).await.unwrap_err());
    assert_eq!(stale.current_revision, Some(revision_of(1)));
    assert!(matches!(
        install.delete_if("k", Guard::Absent).await,
        Err(Error::ValidationFailed(_))
    ));
    assert!(install.delete_if("k", exactly(1)).await.unwrap());
    assert!(matches!(install.get("k").await, Err(Error::NotFound)));
    install.put("k", "1").await.unwrap();
    assert!(install.delete_if("k", Guard::Exists).await.unwrap());
}

pub async fn a_get_with_another_revision_is_a_conflict(stage: &Stage) {
    let install = stage.install();
    assert_eq!(
        conflict(install.get_if("k", 1).await.unwrap_err()).current_revision,
        None
    );
    install.put("k", "1").await.unwrap();
    assert_eq!(install.get_if("k", 1).await.unwrap().value.as_str(), "1");
    let found = conflict(install.get_if("k", 2).await.unwrap_err());
    assert_eq!(found.current_revision, Some(revision_of(1)));
}

pub async fn a_put_returns_what_it_replaced_where_asked(stage: &Stage) {
    let install = stage.install();
    assert_eq!(install.put("k", "1").await.unwrap().previous, None);
    let previous = install.put("k", "2").await.unwrap().previous.unwrap();
    assert_eq!((previous.value.as_str(), previous.revision.get()), ("1", 1));
}

pub async fn one_of_many_racing_creators_wins(stage: &Stage) {
    let install = stage.install();
    let writers = (0..32).map(|i| {
        let (install, value) = (install.clone(), i.to_string());
        async move { install.put_if("k", &value, Guard::Absent).await }
    });
    let outcomes = futures_util::future::join_all(writers).await;
    let winners: Vec<_> = outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| outcome.is_ok())
        .collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(
        install.get("k").await.unwrap().value.as_str(),
        winners[0].0.to_string()
    );
}

pub async fn racing_increments_lose_nothing(stage: &Stage) {
    let install = stage.install();
    install.put("n", "0").await.unwrap();
    let writers = (0..16).map(|_| {
        let install = install.clone();
        async move {
            let mut record = install.get("n").await.unwrap();
            loop {
                let n: u64 = record.value.as_str().parse().unwrap();
                let guard = Guard::Exactly(record.revision);
                match install.put_if("n", &(n + 1).to_string(), guard).await {
                    Ok(_) => break,
                    Err(error) => record = conflict(error).current.unwrap(),
                }
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let record = install.get("n").await.unwrap();
    assert_eq!((record.value.as_str(), record.revision.get()), ("16", 17));
}
