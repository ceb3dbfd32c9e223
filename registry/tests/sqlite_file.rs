//! What a database in a file promises beyond the suite.

use std::path::Path;
use std::time::Duration;

use alga_model::{ContentHash, TenantId, Timestamp};
use alga_registry::{
    AnswerQuota, AnswerQuotas, Change, Claimed, KeptAnswer, KeyedRequest, Known, NewInstall,
    NewVersion, Registry, RegistryError, SqliteRegistry, SwitchesEdit, VersionKey,
};
use alga_sqlite::Options;
use rusqlite::Connection;
use tempfile::TempDir;

fn change() -> Change<'static> {
    Change {
        actor: "admin",
        request_id: None,
        now: Timestamp::from_millis(1_795_286_981_000),
    }
}

fn notes(version: &str, content: &[u8]) -> NewVersion {
    NewVersion {
        name: "com.example.notes".parse().expect("it is a reverse domain"),
        publisher: "Example Inc.".to_owned(),
        version: version.to_owned(),
        content_hash: ContentHash::of(content),
        manifest: "{}".to_owned(),
        size: 5,
    }
}

async fn open(path: &Path) -> SqliteRegistry {
    let opened = SqliteRegistry::open(Options::file(path)).await;
    opened.expect("the file is new or was made by this release")
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let registry = open(&path).await;
    let registered = registry
        .register_version(&notes("1.0.0", b"notes"), change())
        .await
        .unwrap()
        .version;
    registry.database().close().await;

    let found = open(&path)
        .await
        .version(&VersionKey::Id(registered.id))
        .await;
    assert_eq!(found.unwrap(), Some(registered));
}

#[tokio::test]
async fn a_closed_registry_is_unavailable() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder.path().join("registry.db")).await;
    registry.database().ping().await.unwrap();
    registry.database().close().await;
    assert!(registry.database().ping().await.is_err());
    let refused = registry
        .register_version(&notes("1.0.0", b"notes"), change())
        .await;
    assert!(
        matches!(refused, Err(RegistryError::Unavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_writer_that_waits_too_long_is_told_so() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let impatient = Options {
        busy_timeout: Duration::from_millis(200),
        ..Options::file(&path)
    };
    let ours = SqliteRegistry::open(impatient).await.unwrap();
    let writing = Connection::open(&path).unwrap();
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = ours
        .register_version(&notes("1.0.0", b"notes"), change())
        .await;
    assert!(
        matches!(refused, Err(RegistryError::Unavailable { .. })),
        "{refused:?}"
    );
    drop(writing);
    let registered = ours
        .register_version(&notes("1.0.0", b"notes"), change())
        .await;
    assert!(registered.unwrap().created);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registries_racing_for_a_version_one_wins() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let (ours, theirs) = (open(&path).await, open(&path).await);
    for round in 0..20_u8 {
        let version = format!("1.0.{round}");
        let (our_notes, their_notes) = (notes(&version, &[round, 0]), notes(&version, &[round, 1]));
        let outcomes = tokio::join!(
            ours.register_version(&our_notes, change()),
            theirs.register_version(&their_notes, change()),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::DuplicateVersion { registered }))
            | (Err(RegistryError::DuplicateVersion { registered }), Ok(won)) => {
                assert_eq!(registered, won.version.content_hash);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registries_racing_for_the_switches_one_wins_and_both_see_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let (ours, theirs) = (open(&path).await, open(&path).await);
    let allowing =
        |name: &str| SwitchesEdit::AllowedExtensions(Some([name.parse().unwrap()].into()));
    for generation in 0..20_u64 {
        let outcomes = tokio::join!(
            ours.edit_switches(
                allowing(&format!("ours.v{generation}")),
                Some(generation),
                change()
            ),
            theirs.edit_switches(
                allowing(&format!("theirs.v{generation}")),
                Some(generation),
                change()
            ),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { expected, actual }))
            | (Err(RegistryError::Conflict { expected, actual }), Ok(won)) => {
                assert_eq!((expected, actual), (generation, won.generation));
                assert_eq!(ours.switches().await.unwrap(), won);
                assert_eq!(theirs.switches().await.unwrap(), won);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registries_racing_for_a_request_one_answers_and_both_have_the_answer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let (ours, theirs) = (open(&path).await, open(&path).await);
    let (now, until) = (Timestamp::from_millis(0), Timestamp::from_millis(1_000));
    let notes = notes("1.0.0", b"notes");
    let registered = ours.register_version(&notes, change()).await.unwrap();
    let new = NewInstall::new(TenantId::generate(), registered.version.id);
    let install = ours.create_install(&new, change()).await.unwrap().id;
    let many = AnswerQuota {
        answers: 1_000,
        bytes: 1_000,
    };
    let quotas = AnswerQuotas {
        install: many,
        tenant: many,
    };
    for round in 0..20_u8 {
        let request = KeyedRequest {
            install,
            key: format!("k{round}").parse().unwrap(),
            digest: ContentHash::of(&[round]),
        };
        let claims = tokio::join!(
            ours.claim_request(&request, now, until),
            theirs.claim_request(&request, now, until),
        );
        let (winner, claim) = match claims {
            (Ok(Claimed::Ours(claim)), Ok(Claimed::Known(Known::Theirs))) => (&ours, claim),
            (Ok(Claimed::Known(Known::Theirs)), Ok(Claimed::Ours(claim))) => (&theirs, claim),
            other => panic!("expected one winner, got {other:?}"),
        };
        let answer = KeptAnswer {
            status: 200,
            bytes: 1,
            content: Some(vec![round]),
        };
        let keep = winner.keep_answer(&claim, &answer, until, quotas);
        assert!(keep.await.unwrap());
        for registry in [&ours, &theirs] {
            let known = registry.known_request(&request, now).await.unwrap();
            assert_eq!(known, Some(Known::Answered(answer.clone())));
        }
    }
}
