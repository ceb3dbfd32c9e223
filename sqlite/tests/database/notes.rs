//! A tiny schema.

use std::path::PathBuf;
use std::time::Duration;

use alga_sqlite::{Database, Options, Schema};
use sqlx::SqlSafeStr;
use sqlx::migrate::MigrationType::{ReversibleDown, ReversibleUp};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use tempfile::TempDir;

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

pub(crate) async fn add_note(database: &Database) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO notes (text) VALUES ('a note')")
        .execute(database.writer())
        .await
        .map(drop)
}

pub(crate) async fn count_notes(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(database.reader())
        .await
        .unwrap()
}
