//! How a database is opened, and what reading and writing it promise.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use alga_sqlite::{Database, DriverError, Options, SqliteError};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::notes::{
    UnderWay, add_note, count_notes, impatient, insert_note, is_waiting, open, path_in, schema,
};

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
    let pragmas = |connection: &Connection| {
        let sql = "SELECT journal_mode, synchronous, foreign_keys
             FROM pragma_journal_mode, pragma_synchronous, pragma_foreign_keys";
        let pragmas =
            connection.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        pragmas.map_err(DriverError::from)
    };
    let synchronous_full = 2;
    let expected = ("wal".to_owned(), synchronous_full, true);
    assert_eq!(database.read(pragmas).await.unwrap(), expected);
    let of_writer = database.with_writer(move |connection| pragmas(connection));
    assert_eq!(of_writer.await.unwrap(), expected);
}

#[tokio::test]
async fn a_reading_connection_does_not_write() {
    let folder = TempDir::new().unwrap();
    let database = open(Options::file(path_in(&folder))).await;
    let written = database.read(insert_note).await;
    assert!(written.is_err(), "{written:?}");
}

#[tokio::test]
async fn what_is_not_committed_is_seen_by_nobody() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(Options::file(path_in(&folder))).await);
    let writing = UnderWay::writing(&database).await;
    assert_eq!(count_notes(&database).await, 0);
    writing.finish().await;
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn what_fails_is_undone() {
    let database = open(Options::memory()).await;
    let failing = database.write(|tx| {
        insert_note(tx)?;
        tx.execute("INSERT INTO notes (text) VALUES (NULL)", ())?;
        Ok::<_, DriverError>(())
    });
    let failed = failing.await.unwrap_err();
    assert!(!failed.is_passing(), "{failed:?}");
    assert_eq!(count_notes(&database).await, 0);
    add_note(&database).await.unwrap();
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn what_panics_is_undone_and_the_next_use_works() {
    let folder = TempDir::new().unwrap();
    for options in [Options::memory(), Options::file(path_in(&folder))] {
        let database = open(options).await;
        add_note(&database).await.unwrap();
        let panicked = [
            database.read(|_| panic!("while it reads")).await,
            database.with_writer(|_| panic!("with the writer")).await,
            database
                .write(|tx| {
                    insert_note(tx)?;
                    panic!("while it writes")
                })
                .await,
        ];
        for panicked in panicked {
            let panicked: Result<(), DriverError> = panicked;
            assert!(
                matches!(panicked, Err(DriverError::Panicked)),
                "{panicked:?}"
            );
        }
        assert_eq!(count_notes(&database).await, 1);
        add_note(&database).await.unwrap();
        assert_eq!(count_notes(&database).await, 2);
    }
}

#[tokio::test]
async fn a_transaction_that_is_left_open_is_undone() {
    let folder = TempDir::new().unwrap();
    for options in [Options::memory(), Options::file(path_in(&folder))] {
        let database = open(options).await;
        add_note(&database).await.unwrap();
        let leaving = database.with_writer(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            insert_note(connection)
        });
        leaving.await.unwrap();
        assert_eq!(count_notes(&database).await, 1);
        add_note(&database).await.unwrap();
        assert_eq!(count_notes(&database).await, 2);
    }
}

#[tokio::test]
async fn work_that_nobody_waits_for_any_more_goes_on_to_its_end() {
    let folder = TempDir::new().unwrap();
    for options in [Options::memory(), Options::file(path_in(&folder))] {
        let database = Arc::new(open(options).await);
        UnderWay::writing(&database).await.abandon().await;
        // There is one connection to write with, so that this comes after it.
        add_note(&database).await.unwrap();
        assert_eq!(count_notes(&database).await, 2);
    }
}

#[tokio::test]
async fn work_that_nobody_waits_for_before_it_begins_is_not_done() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(Options::file(path_in(&folder))).await);
    let writing = UnderWay::writing(&database).await;
    assert!(is_waiting(add_note(&database)).await);
    writing.finish().await;
    add_note(&database).await.unwrap();
    assert_eq!(count_notes(&database).await, 2);
}

#[tokio::test]
async fn a_writer_that_waits_too_long_may_try_again() {
    let folder = TempDir::new().unwrap();
    let ours = open(impatient(&folder)).await;
    let theirs = Arc::new(open(impatient(&folder)).await);
    let writing = UnderWay::writing(&theirs).await;
    for waiting in [&ours, &*theirs] {
        let refused = add_note(waiting).await.unwrap_err();
        assert!(refused.is_passing(), "{refused:?}");
    }
    writing.finish().await;
    add_note(&ours).await.unwrap();
}

#[tokio::test]
async fn no_more_reads_run_at_once_than_allowed() {
    let folder = TempDir::new().unwrap();
    let two = NonZeroU32::MIN.saturating_add(1);
    let options = Options {
        read_connections: two,
        ..impatient(&folder)
    };
    let database = Arc::new(open(options).await);
    let first = UnderWay::reading(&database).await;
    database.ping().await.unwrap();
    let second = UnderWay::reading(&database).await;
    let refused = database.ping().await.unwrap_err();
    assert!(
        matches!(refused, DriverError::NoConnection(_)),
        "{refused:?}"
    );
    assert!(refused.is_passing());
    first.finish().await;
    database.ping().await.unwrap();
    second.finish().await;
}

#[tokio::test]
async fn who_waits_without_being_polled_keeps_no_connection_from_others() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        read_connections: NonZeroU32::MIN,
        ..impatient(&folder)
    };
    let database = Arc::new(open(options).await);
    let first = UnderWay::reading(&database).await;
    let mut waiting = pin!(database.ping());
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    let next = tokio::spawn({
        let database = Arc::clone(&database);
        async move { database.ping().await }
    });
    tokio::task::yield_now().await;
    first.finish().await;
    next.await.unwrap().unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_what_is_under_way() {
    let folder = TempDir::new().unwrap();
    for options in [Options::memory(), Options::file(path_in(&folder))] {
        let database = Arc::new(open(options.clone()).await);
        let writing = UnderWay::writing(&database).await;
        let mut closing = pin!(database.close());
        assert!(is_waiting(&mut closing).await);
        writing.finish().await;
        closing.await;
        assert!(database.ping().await.is_err());
    }
    let options = Options::file(path_in(&folder));
    let database = Arc::new(open(options).await);
    assert_eq!(count_notes(&database).await, 1);
    let reading = UnderWay::reading(&database).await;
    let mut closing = pin!(database.close());
    assert!(is_waiting(&mut closing).await);
    reading.finish().await;
    closing.await;
    // The last one to close a database removes its log.
    assert!(!folder.path().join("notes.db-wal").exists());
}

#[tokio::test]
async fn a_closed_database_does_not_answer() {
    let database = open(Options::memory()).await;
    database.ping().await.unwrap();
    for _ in 0..2 {
        database.close().await;
        let refused = database.ping().await.unwrap_err();
        assert!(matches!(refused, DriverError::Closed), "{refused:?}");
        assert!(refused.is_passing());
    }
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
    let limit = database.with_writer(|connection| {
        let limited = connection.pragma_update(None, "max_page_count", 16);
        limited.map_err(DriverError::from)
    });
    limit.await.unwrap();
    let fill = "INSERT INTO notes (text) VALUES (hex(randomblob(200000)))";
    let full = database.write(|tx| tx.execute(fill, ()).map_err(DriverError::from));
    let full = full.await.unwrap_err();
    assert!(full.is_passing(), "{full:?}");

    for _ in 0..3 {
        database.write(|_| Ok::<_, DriverError>(())).await.unwrap();
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
