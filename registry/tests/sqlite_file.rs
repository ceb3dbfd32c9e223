//! What a database in a file promises beyond the suite.

use std::path::Path;
use std::time::Duration;

use alga_model::{ContentHash, Timestamp};
use alga_registry::{Change, NewVersion, Registry, RegistryError, SqliteRegistry, VersionKey};
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
