//! A tiny schema.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use alga_sqlite::{Database, DriverError, Options, Schema};
use rusqlite::{Connection, Transaction};
use sqlx::SqlSafeStr;
use sqlx::migrate::MigrationType::{ReversibleDown, ReversibleUp};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const HISTORY: &str = "_notes_migrations";

pub(crate) const TABLE: Step = Step {
    version: 1,
    up: "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",
    down: "DROP TABLE notes",
};
pub(crate) const INDEX: Step = Step {
    version: 2,
    up: "CREATE INDEX notes_by_text ON notes (text)",
    down: "DROP INDEX notes_by_text",
};

/// A migration in both directions.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) version: i64,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl Step {
    fn migration(self, direction: MigrationType) -> Migration {
        let sql = match direction {
            ReversibleDown => self.down,
            _ => self.up,
        };
        let name = format!("step {}", self.version);
        Migration::new(
            self.version,
            name.into(),
            direction,
            sql.into_sql_str(),
            false,
        )
    }
}

/// The schema of a release that has these steps.
pub(crate) fn release(steps: &[Step]) -> Schema {
    let both = |step: &Step| [step.migration(ReversibleUp), step.migration(ReversibleDown)];
    let migrations = steps.iter().flat_map(both).collect();
    Schema::new("notes", HISTORY, Migrator::with_migrations(migrations))
}

/// The schema of this release.
pub(crate) fn schema() -> Schema {
    release(&[TABLE, INDEX])
}

pub(crate) async fn open(options: Options) -> Database {
    Database::open(schema(), options).await.unwrap()
}

pub(crate) fn path_in(folder: &TempDir) -> PathBuf {
    folder.path().join("notes.db")
}

/// A database in `folder` where nobody waits long.
pub(crate) fn impatient(folder: &TempDir) -> Options {
    Options {
        busy_timeout: Duration::from_millis(200),
        ..Options::file(path_in(folder))
    }
}

/// The same, opened as it is.
pub(crate) fn unmigrated(options: Options) -> Options {
    Options {
        migrate_on_open: false,
        ..options
    }
}

pub(crate) async fn add_note(database: &Database) -> Result<(), DriverError> {
    database.write(|tx| insert_note(tx)).await
}

pub(crate) fn insert_note(connection: &Connection) -> Result<(), DriverError> {
    connection.execute("INSERT INTO notes (text) VALUES ('a note')", ())?;
    Ok(())
}

pub(crate) async fn count_notes(database: &Database) -> i64 {
    let count = |connection: &Connection| {
        let count = connection.query_row("SELECT count(*) FROM notes", (), |row| row.get(0));
        count.map_err(DriverError::from)
    };
    database.read(count).await.unwrap()
}

/// Whether `work` is still waiting when others would long be done.
pub(crate) async fn is_waiting(work: impl Future) -> bool {
    timeout(Duration::from_millis(100), pin!(work))
        .await
        .is_err()
}

/// Work that has a connection, in the middle of what it does.
pub(crate) struct UnderWay {
    go_on: mpsc::Sender<()>,
    work: JoinHandle<Result<(), DriverError>>,
}

impl UnderWay {
    /// Begins to read.
    pub(crate) async fn reading(database: &Arc<Database>) -> Self {
        let database = Arc::clone(database);
        let read = async move |pause: Pause| {
            let work = |_: &Connection| {
                pause.wait();
                Ok(())
            };
            database.read(work).await
        };
        Self::begin(read).await
    }

    /// Begins to add a note.
    pub(crate) async fn writing(database: &Arc<Database>) -> Self {
        let database = Arc::clone(database);
        let write = async move |pause: Pause| {
            let work = |tx: &Transaction<'_>| {
                insert_note(tx)?;
                pause.wait();
                Ok(())
            };
            database.write(work).await
        };
        Self::begin(write).await
    }

    async fn begin<F>(work: impl FnOnce(Pause) -> F) -> Self
    where
        F: Future<Output = Result<(), DriverError>> + Send + 'static,
    {
        let (reached, is_reached) = oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let work = tokio::spawn(work(Pause { reached, may_go_on }));
        is_reached.await.unwrap();
        Self { go_on, work }
    }

    /// Lets it go on to its end.
    pub(crate) async fn finish(self) {
        drop(self.go_on);
        self.work.await.unwrap().unwrap();
    }

    /// Lets it go on with nobody waiting for it.
    pub(crate) async fn abandon(self) {
        self.work.abort();
        assert!(self.work.await.unwrap_err().is_cancelled());
        drop(self.go_on);
    }
}

/// The middle of a piece of work, where it is held.
struct Pause {
    reached: oneshot::Sender<()>,
    may_go_on: mpsc::Receiver<()>,
}

impl Pause {
    fn wait(self) {
        self.reached.send(()).unwrap();
        // Nothing is ever sent: it ends when the other side is dropped.
        self.may_go_on.recv().unwrap_err();
    }
}
