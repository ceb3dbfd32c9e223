//! How a database is opened, and what reading and writing it promise.

use std::num::NonZeroU32;

use alga_sqlite::{Database, Options, SqliteError, is_passing};
use tempfile::TempDir;

use crate::notes::{add_note, count_notes, impatient, open, path_in, schema};

#[tokio::test]
async fn a_database_in_memory_is_written_and_read() {
    let database = open(Options::memory()).await;
    add_note(&database).await.unwrap();
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    add_note(&database).await.unwrap();
    database.close().await;
    assert_eq!(
        count_notes(&open(Options::file(path_in(&folder))).await).await,
        1
    );
}

#[tokio::test]
async fn a_file_is_durable_and_its_references_are_checked() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    for pool in [database.reader(), database.writer()] {
        let pragmas: (String, i64, i64) = sqlx::query_as(
            "SELECT journal_mode, synchronous, foreign_keys
             FROM pragma_journal_mode, pragma_synchronous, pragma_foreign_keys",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        let synchronous_full = 2;
        assert_eq!(pragmas, ("wal".to_owned(), synchronous_full, 1));
    }
}

#[tokio::test]
async fn a_reading_connection_does_not_write() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    let written = sqlx::query("DELETE FROM notes")
        .execute(database.reader())
        .await;
    assert!(written.is_err(), "{written:?}");
}

#[tokio::test]
async fn what_is_not_committed_is_seen_by_nobody_and_undone() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    for (commit, notes) in [(false, 0), (true, 1)] {
        let mut tx = database.begin().await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ('a note')")
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(count_notes(&database).await, 0);
        if commit {
            tx.commit().await.unwrap();
        } else {
            drop(tx);
        }
        assert_eq!(count_notes(&database).await, notes);
    }
}

#[tokio::test]
async fn a_writer_that_waits_too_long_may_try_again() {
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (
        open(impatient(&folder)).await,
        open(impatient(&folder)).await,
    );
    let writing = theirs.begin().await.unwrap();
    for waiting in [&ours, &theirs] {
        let refused = add_note(waiting).await.unwrap_err();
        assert!(is_passing(&refused), "{refused:?}");
    }
    drop(writing);
    add_note(&ours).await.unwrap();
}

#[tokio::test]
async fn no_more_reads_run_at_once_than_allowed() {
    let folder = TempDir::new().unwrap();
    let two = NonZeroU32::MIN.saturating_add(1);
    let database = open(Options {
        read_connections: two,
        ..impatient(&folder)
    })
    .await;
    let first = database.reader().acquire().await.unwrap();
    database.ping().await.unwrap();
    let second = database.reader().acquire().await.unwrap();
    let refused = database.ping().await.unwrap_err();
    assert!(is_passing(&refused), "{refused:?}");
    drop((first, second));
    database.ping().await.unwrap();
}

#[tokio::test]
async fn a_closed_database_does_not_answer() {
    let database = open(Options::memory()).await;
    database.ping().await.unwrap();
    database.close().await;
    let refused = database.ping().await.unwrap_err();
    assert!(is_passing(&refused), "{refused:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    add_note(&database).await.unwrap();
    let entries: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    // The database, its log, the index of the log and the lock.
    assert_eq!(entries.len(), 4, "{entries:?}");
    for entry in entries {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn a_path_is_never_read_as_a_uri() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file:a?mode=memory&b=%20#c");
    let database = open(Options::file(&path)).await;
    add_note(&database).await.unwrap();
    database.close().await;
    assert!(path.metadata().unwrap().len() > 0);
}

#[tokio::test]
async fn a_missing_folder_is_not_made() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let options = Options::file(missing.join("notes.db"));
    let refused = Database::open(schema(), options).await.unwrap_err();
    assert!(
        matches!(
            refused,
            SqliteError::File {
                schema: "notes",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    let content = "not a database, but long enough to have the header of one ".repeat(40);
    std::fs::write(&path, &content).unwrap();
    let refused = Database::open(schema(), Options::file(&path))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            SqliteError::Statement {
                schema: "notes",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(!refused.is_passing(), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
}

#[tokio::test]
async fn writes_go_on_after_the_disk_was_full() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    // Holds for the connection it is said on, as a full disk holds until somebody makes room.
    sqlx::query("PRAGMA max_page_count = 16")
        .execute(database.writer())
        .await
        .unwrap();
    let mut transaction = database.begin().await.unwrap();
    let fill = "INSERT INTO notes (text) VALUES (hex(randomblob(200000)))";
    let full = sqlx::query(fill).execute(&mut *transaction).await;
    assert!(is_passing(&full.unwrap_err()));
    drop(transaction);

    for _ in 0..3 {
        let transaction = database.begin().await.unwrap();
        transaction.commit().await.unwrap();
    }
    add_note(&database).await.unwrap();
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn opening_a_database_again_takes_no_lock_from_who_has_it_open() {
    let folder = TempDir::new().unwrap();
    let first = open(Options::file(path_in(&folder))).await;
    add_note(&first).await.unwrap();
    let second = open(Options::file(path_in(&folder))).await;
    assert_eq!(count_notes(&second).await, 1);
    // The last one to close a database removes its log; whoever has it open says so by a lock, which
    // closing any other handle on the file would drop.
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path_in(&folder)).unwrap());
    assert!(
        locks
            .lines()
            .any(|line| line.contains(&format!(":{inode} "))),
        "nothing holds a lock on the database: {locks}"
    );
}
