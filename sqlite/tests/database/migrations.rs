//! How a schema is brought up to date, reverted, and kept from what does not fit.

use std::fs::{File, TryLockError};
use std::pin::pin;

use alga_sqlite::{Database, DriverError, Options, SchemaError, SqliteError};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::notes::{
    HISTORY, INDEX, Step, TABLE, add_note, count_notes, impatient, is_waiting, open, path_in,
    release, schema, unmigrated,
};

/// The versions of the release, each with whether the database has it.
async fn status(database: &Database) -> Vec<(i64, bool)> {
    let status = database.migration_status().await.unwrap();
    status.iter().map(|m| (m.version, m.applied)).collect()
}

/// The names of what the schema holds.
async fn objects(database: &Database) -> Vec<String> {
    let objects = |connection: &Connection| {
        let mut statement = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name")?;
        let names = statement.query_map((), |row| row.get(0))?;
        Ok::<_, DriverError>(names.collect::<Result<_, _>>()?)
    };
    database.read(objects).await.unwrap()
}

/// Another process that is writing, until this is dropped.
fn writing(folder: &TempDir) -> Connection {
    let connection = Connection::open(path_in(folder)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

/// What every use of a database is refused with by a release with the steps `ours`, after one with
/// the steps `theirs` has migrated it.
async fn refusals(ours: &[Step], theirs: &[Step]) -> Vec<SqliteError> {
    let folder = TempDir::new().unwrap();
    let options = Options::file(path_in(&folder));
    let lenient = unmigrated(options.clone());
    let opened_before = Database::open(release(ours), lenient.clone())
        .await
        .unwrap();
    let migrated = Database::open(release(theirs), options.clone())
        .await
        .unwrap();
    let before = objects(&migrated).await;

    let refused = [
        Database::open(release(ours), options).await.err(),
        Database::open(release(ours), lenient).await.err(),
        opened_before.migrate_up().await.err(),
        opened_before.migrate_down_to(0).await.err(),
        opened_before.migration_status().await.err(),
    ];
    assert_eq!(objects(&migrated).await, before);
    refused.into_iter().map(Option::unwrap).collect()
}

#[tokio::test]
async fn opening_applies_what_is_missing_and_keeps_what_is_there() {
    let folder = TempDir::new().unwrap();
    let options = Options::file(path_in(&folder));
    let earlier = Database::open(release(&[TABLE]), options.clone())
        .await
        .unwrap();
    add_note(&earlier).await.unwrap();
    let database = open(options).await;
    assert_eq!(status(&database).await, [(1, true), (2, true)]);
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn a_history_that_an_earlier_release_wrote_is_read_and_continued() {
    // What sqlx 0.9 wrote, which earlier releases migrated with; the checksum is the SHA-384 of the
    // first step.
    let history = format!(
        "CREATE TABLE IF NOT EXISTS {HISTORY} (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
        INSERT INTO {HISTORY} ( version, description, success, checksum, execution_time )
        VALUES ( 1, 'step 1', TRUE, x'1f2f4b268c8d2737ed9c386b9f4e74cf\
dcf9ec6f3b4cc9a0ed64e05a15d098713d36b30d17f474c0e7a9c33a464caecb', 1 )"
    );
    let folder = TempDir::new().unwrap();
    let earlier = Connection::open(path_in(&folder)).unwrap();
    earlier.execute_batch(TABLE.up).unwrap();
    earlier.execute_batch(&history).unwrap();
    drop(earlier);

    let options = Options::file(path_in(&folder));
    let database = open(unmigrated(options)).await;
    assert_eq!(status(&database).await, [(1, true), (2, false)]);
    database.migrate_up().await.unwrap();
    assert_eq!(status(&database).await, [(1, true), (2, true)]);
    add_note(&database).await.unwrap();
    database.migrate_down_to(0).await.unwrap();
    assert_eq!(status(&database).await, [(1, false), (2, false)]);
}

#[tokio::test]
async fn a_database_that_is_up_to_date_opens_beside_a_writer() {
    let folder = TempDir::new().unwrap();
    open(impatient(&folder)).await;
    let _writing = writing(&folder);
    Database::open(schema(), impatient(&folder)).await.unwrap();
}

#[tokio::test]
async fn going_down_and_up_again_leaves_the_same_schema() {
    let database = open(Options::memory()).await;
    let before = objects(&database).await;
    for down_to in [1, 0] {
        database.migrate_down_to(down_to).await.unwrap();
        assert_eq!(status(&database).await, [(1, down_to == 1), (2, false)]);
        database.migrate_up().await.unwrap();
        assert_eq!(objects(&database).await, before);
    }
}

#[tokio::test]
async fn going_all_the_way_down_leaves_only_the_history() {
    let database = open(Options::memory()).await;
    database.migrate_down_to(0).await.unwrap();
    let index_of_history = format!("sqlite_autoindex_{HISTORY}_1");
    assert_eq!(objects(&database).await, [HISTORY, &index_of_history]);
}

#[tokio::test]
async fn a_target_that_is_no_migration_is_refused() {
    let database = open(Options::memory()).await;
    for unknown in [-1, 3] {
        let refused = database.migrate_down_to(unknown).await;
        assert!(
            matches!(refused, Err(SqliteError::Schema(SchemaError::UnknownVersion { version, .. })) if version == unknown),
            "{refused:?}"
        );
    }
    assert_eq!(status(&database).await, [(1, true), (2, true)]);
}

#[tokio::test]
async fn the_status_of_a_new_database_writes_nothing() {
    let database = open(unmigrated(Options::memory())).await;
    assert_eq!(status(&database).await, [(1, false), (2, false)]);
    assert!(objects(&database).await.is_empty());
    database.migrate_up().await.unwrap();
    assert_eq!(status(&database).await, [(1, true), (2, true)]);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_what_was_before() {
    let folder = TempDir::new().unwrap();
    let broken = Step {
        version: 3,
        up: "CREATE TABLE tags (id INTEGER PRIMARY KEY); CREATE TABLE notes (id INTEGER)",
        down: "DROP TABLE tags",
    };
    let options = Options::file(path_in(&folder));
    let before = objects(&open(options.clone()).await).await;
    let later = release(&[TABLE, INDEX, broken]);
    let refused = Database::open(later, options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, SqliteError::Migration { version: 3, .. }),
        "{refused:?}"
    );
    assert!(!refused.is_passing(), "{refused:?}");
    assert_eq!(objects(&open(options).await).await, before);
}

#[tokio::test]
async fn a_migration_that_waits_too_long_for_a_writer_may_be_tried_again() {
    let folder = TempDir::new().unwrap();
    let database = open(unmigrated(impatient(&folder))).await;
    let writing = writing(&folder);
    let refused = database.migrate_up().await.unwrap_err();
    assert!(refused.is_passing(), "{refused:?}");
    drop(writing);
    database.migrate_up().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_whatever_is_asked() {
    for refused in refusals(&[TABLE], &[TABLE, INDEX]).await {
        let told = matches!(
            refused,
            SqliteError::Schema(SchemaError::TooNew {
                schema: "notes",
                applied: 2,
                known: 1
            })
        );
        assert!(told, "{refused:?}");
        assert!(!refused.is_passing());
    }
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused_whatever_is_asked() {
    let changed = Step {
        up: "CREATE UNIQUE INDEX notes_by_text ON notes (text)",
        ..INDEX
    };
    for refused in refusals(&[TABLE, changed], &[TABLE, INDEX]).await {
        let told = matches!(
            refused,
            SqliteError::Schema(SchemaError::Diverged {
                schema: "notes",
                version: 2
            })
        );
        assert!(told, "{refused:?}");
        assert!(!refused.is_passing());
    }
}

#[tokio::test]
async fn a_migration_that_was_taken_out_after_it_was_applied_is_refused_whatever_is_asked() {
    let third = Step {
        version: 3,
        ..INDEX
    };
    for refused in refusals(&[TABLE, third], &[TABLE, INDEX]).await {
        let told = matches!(
            refused,
            SqliteError::Schema(SchemaError::Diverged {
                schema: "notes",
                version: 2
            })
        );
        assert!(told, "{refused:?}");
    }
}

/// The file that is locked while the schema is changed, by other releases as well.
fn lock_file(folder: &TempDir) -> File {
    File::create(folder.path().join("notes.db.migrate-lock")).unwrap()
}

#[tokio::test]
async fn opening_waits_for_who_changes_the_schema() {
    let folder = TempDir::new().unwrap();
    let lock = lock_file(&folder);
    lock.lock().unwrap();
    let mut opening = pin!(open(Options::file(path_in(&folder))));
    assert!(is_waiting(&mut opening).await);
    assert!(!path_in(&folder).exists());
    lock.unlock().unwrap();
    assert_eq!(status(&opening.await).await, [(1, true), (2, true)]);
}

#[tokio::test]
async fn migrating_waits_for_who_changes_the_schema() {
    let folder = TempDir::new().unwrap();
    let database = open(unmigrated(Options::file(path_in(&folder)))).await;
    let lock = lock_file(&folder);
    for up in [true, false] {
        lock.lock().unwrap();
        let mut migrating = pin!(async {
            if up {
                database.migrate_up().await
            } else {
                database.migrate_down_to(0).await
            }
        });
        assert!(is_waiting(&mut migrating).await);
        assert_eq!(status(&database).await, [(1, !up), (2, !up)]);
        lock.unlock().unwrap();
        migrating.await.unwrap();
        assert_eq!(status(&database).await, [(1, up), (2, up)]);
    }
}

#[tokio::test]
async fn who_changes_the_schema_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let database = open(unmigrated(Options::file(path_in(&folder)))).await;
    let writing = writing(&folder);
    let mut migrating = pin!(database.migrate_up());
    let lock = lock_file(&folder);
    loop {
        assert!(is_waiting(&mut migrating).await, "it ended beside a writer");
        match lock.try_lock() {
            Ok(()) => lock.unlock().unwrap(),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => panic!("{error}"),
        }
    }
    drop(writing);
    migrating.await.unwrap();
    lock.try_lock().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_the_same_new_file() {
    let folder = TempDir::new().unwrap();
    let opening: JoinSet<_> = (0..16)
        .map(|_| Database::open(schema(), Options::file(path_in(&folder))))
        .collect();
    for opened in opening.join_all().await {
        assert_eq!(status(&opened.unwrap()).await, [(1, true), (2, true)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_migrate_up_and_down_at_once() {
    let folder = TempDir::new().unwrap();
    let options = Options::file(path_in(&folder));
    let mut migrating = JoinSet::new();
    for task in 0..8 {
        let database = open(options.clone()).await;
        migrating.spawn(async move {
            if task % 2 == 0 {
                database.migrate_up().await
            } else {
                database.migrate_down_to(0).await
            }
        });
    }
    for outcome in migrating.join_all().await {
        outcome.unwrap();
    }
    add_note(&open(options).await).await.unwrap();
}
