//! The contract over SQLite.
//!
//! Reads go to a small pool and, thanks to the write-ahead log, never wait. Writes go to one task
//! that has the write lock for itself and commits what is waiting in groups.

mod error;
mod read;
mod rows;
mod state;
mod writer;

use std::sync::Arc;

use alga_model::Clock;
use alga_sqlite::{Database, Options, Schema};
use async_trait::async_trait;

use crate::backend::{Backend, ListQuery, ListedPage};
use crate::contract::{DeleteRequest, Key, Namespace, Record, Usage, Written};
use crate::error::{BulkError, Error};
use crate::service::{Put, Scope};

use self::writer::Writer;

/// Records, counters and audit in a SQLite database.
///
/// Several processes may use one file, a command beside a running server for instance: each sees
/// what the others committed, and their writes wait for one another.
#[derive(Debug)]
pub struct SqliteBackend {
    database: Arc<Database>,
    writer: Writer,
    clock: Arc<dyn Clock>,
}

impl SqliteBackend {
    /// Opens the database; `clock` decides what is expired.
    ///
    /// # Errors
    /// See [`Database::open`].
    pub async fn open(
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, alga_sqlite::SqliteError> {
        let database = Arc::new(Database::open(Self::schema(), options).await?);
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&clock));
        Ok(Self {
            database,
            writer,
            clock,
        })
    }

    /// The database itself, to migrate or to close it.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database
            .ping()
            .await
            .map_err(error::SqliteError::from)?;
        Ok(())
    }

    fn schema() -> Schema {
        Schema::new(
            "storage",
            "_storage_migrations",
            sqlx::migrate!("../migrations/storage/sqlite"),
        )
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn get(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Record>, Error> {
        Ok(read::get(
            self.database.reader(),
            scope,
            namespace,
            key,
            self.clock.now(),
        )
        .await?)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        keys: &[Key],
    ) -> Result<Vec<Option<Record>>, Error> {
        Ok(read::get_many(
            self.database.reader(),
            scope,
            namespace,
            keys,
            self.clock.now(),
        )
        .await?)
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        self.writer.put(scope.clone(), put).await
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        self.writer.delete(scope.clone(), request).await
    }

    async fn list(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        query: ListQuery,
    ) -> Result<ListedPage, Error> {
        Ok(read::list(
            self.database.reader(),
            scope,
            namespace,
            &query,
            self.clock.now(),
        )
        .await?)
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        Ok(read::usage(self.database.reader(), scope, self.clock.now()).await?)
    }
}
