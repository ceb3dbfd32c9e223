//! What a database in a file promises beyond the suite.

use std::path::Path;
use std::process::{Command, Stdio};

use alga_model::{ContentHash, ExtensionName, Timestamp};
use alga_registry::{
    Change, ExtensionKey, NewVersion, Registry, RegistryError, SqliteOptions, SqliteRegistry,
    VersionKey,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Tells this test program that it is one of several processes, and which file they open.
const SHARED_FILE: &str = "ALGA_REGISTRY_SHARED_FILE";

fn change() -> Change<'static> {
    Change {
        actor: "admin",
        request_id: None,
        now: Timestamp::from_millis(1_795_286_981_000),
    }
}

fn name() -> ExtensionName {
    "com.example.notes".parse().expect("it is a reverse domain")
}

fn notes(version: &str, content: &[u8]) -> NewVersion {
    NewVersion {
        name: name(),
        publisher: "Example Inc.".to_owned(),
        version: version.to_owned(),
        content_hash: ContentHash::of(content),
        manifest: "{}".to_owned(),
        size: 5,
    }
}

async fn open(path: &Path) -> SqliteRegistry {
    let opened = SqliteRegistry::open(SqliteOptions::file(path)).await;
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
        .unwrap();
    registry.close().await;
    let refused = registry
        .version(&VersionKey::Id(registered.version.id))
        .await;
    assert!(
        matches!(refused, Err(RegistryError::Unavailable { .. })),
        "{refused:?}"
    );

    let found = open(&path)
        .await
        .version(&VersionKey::Id(registered.version.id))
        .await
        .unwrap();
    assert_eq!(found, Some(registered.version));
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new().unwrap();
    let registry = open(&folder.path().join("registry.db")).await;
    registry
        .register_version(&notes("1.0.0", b"notes"), change())
        .await
        .unwrap();
    let entries: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(entries.len() >= 3, "{entries:?}");
    for entry in entries {
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn a_path_is_never_read_as_a_uri() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file:a?mode=memory&b=%20#c");
    let registry = open(&path).await;
    registry
        .register_version(&notes("1.0.0", b"notes"), change())
        .await
        .unwrap();
    registry.close().await;
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
}

#[tokio::test]
async fn a_missing_folder_is_not_made() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("missing/registry.db");
    let refused = SqliteRegistry::open(SqliteOptions::file(&path)).await;
    assert!(
        matches!(refused, Err(RegistryError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(!path.parent().unwrap().exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let content = "not a database, but long enough to have the header of one ".repeat(40);
    std::fs::write(&path, &content).unwrap();
    let refused = SqliteRegistry::open(SqliteOptions::file(&path)).await;
    assert!(
        matches!(refused, Err(RegistryError::Internal { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_may_open_the_same_new_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let opening: JoinSet<_> = (0..16)
        .map(|_| SqliteRegistry::open(SqliteOptions::file(&path)))
        .collect();
    for opened in opening.join_all().await {
        let status = opened.unwrap().migration_status().await.unwrap();
        assert!(status.iter().all(|migration| migration.applied));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_may_migrate_up_and_down_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let mut migrating = JoinSet::new();
    for task in 0..8 {
        let registry = open(&path).await;
        migrating.spawn(async move {
            if task % 2 == 0 {
                registry.migrate_up().await
            } else {
                registry.migrate_down_to(0).await
            }
        });
    }
    for outcome in migrating.join_all().await {
        outcome.unwrap();
    }
    let registry = open(&path).await;
    assert!(
        registry
            .register_version(&notes("1.0.0", b"notes"), change())
            .await
            .unwrap()
            .created
    );
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

/// Every process opens the file and registers a version of its own; this one is also the program
/// the others run.
#[tokio::test]
async fn several_processes_may_open_the_same_new_file() {
    if let Some(path) = std::env::var_os(SHARED_FILE) {
        let version = format!("1.0.{}", std::process::id());
        let new = notes(&version, version.as_bytes());
        assert!(
            open(Path::new(&path))
                .await
                .register_version(&new, change())
                .await
                .unwrap()
                .created
        );
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("registry.db");
    let start = |_| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "several_processes_may_open_the_same_new_file"])
            .env(SHARED_FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..6).map(start).collect();
    let ids: Vec<_> = processes.iter().map(std::process::Child::id).collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let registry = open(&path).await;
    assert!(
        registry
            .extension(&ExtensionKey::Name(name()))
            .await
            .unwrap()
            .is_some()
    );
    for id in ids {
        let key = VersionKey::Named {
            name: name(),
            version: format!("1.0.{id}"),
        };
        assert!(
            registry.version(&key).await.unwrap().is_some(),
            "process {id} left nothing"
        );
    }
}
