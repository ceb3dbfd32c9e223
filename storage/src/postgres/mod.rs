//! The contract over PostgreSQL and Citus.
//!
//! What must be decided under a lock is decided in the database, by functions that a write calls once:
//! they are in the migrations. Reads are statements that wait for nobody.

mod error;
mod maintenance;
mod read;
mod rows;
mod shards;
mod write;

use std::sync::Arc;

use alga_model::Clock;
use alga_postgres::{Database, DriverError, Options, Schema, Statements, Time};
use async_trait::async_trait;
use sqlx::PgConnection;

use crate::backend::{Backend, ListQuery, ListedPage, StorageDatabase};
use crate::contract::{DeleteRequest, Key, Namespace, Record, Usage, Written};
use crate::distribution::Distribution;
use crate::error::{BulkError, Error};
use crate::service::{Put, Scope};

use self::error::PostgresError;
use self::write::Called;

/// Records, counters and audit in a PostgreSQL database, distributed where it has Citus.
///
/// Any number of processes may use one database. What is expired is decided by its clock.
#[derive(Debug)]
pub struct PostgresBackend {
    database: Database,
    /// Goes before that of the database; for tests.
    clock: Option<Arc<dyn Clock>>,
}

impl PostgresBackend {
    /// Opens the database.
    ///
    /// # Errors
    /// See [`Database::open`].
    pub async fn open(options: &Options) -> Result<Self, alga_postgres::PostgresError> {
        Self::at(options, None).await
    }

    /// Opens the database for a test, which goes by `clock`.
    #[cfg(feature = "suite")]
    pub async fn open_with_clock(
        options: &Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, alga_postgres::PostgresError> {
        Self::at(options, Some(clock)).await
    }

    async fn at(
        options: &Options,
        clock: Option<Arc<dyn Clock>>,
    ) -> Result<Self, alga_postgres::PostgresError> {
        const DISTRIBUTE: &str = include_str!("../../../migrations/storage/citus.sql");
        let database = Database::open(Self::schema(), DISTRIBUTE, options).await?;
        Ok(Self { database, clock })
    }

    /// The database itself, to migrate or to close it.
    pub const fn database(&self) -> &Database {
        &self.database
    }

    fn now(&self) -> Option<Time> {
        self.clock.as_ref().map(|clock| Time(clock.now()))
    }

    /// Runs one statement that changes nothing.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection, Statements) -> Result<T, PostgresError> + Clone,
    ) -> Result<T, PostgresError> {
        let statements = self.database.statements();
        let work = async move |connection: &mut PgConnection| work(connection, statements).await;
        self.database.read(work).await
    }

    /// Runs one statement that may change something.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection, Statements) -> Result<T, PostgresError> + Clone,
    ) -> Result<T, PostgresError> {
        let statements = self.database.statements();
        let work = async move |connection: &mut PgConnection| work(connection, statements).await;
        self.database.write(work).await
    }

    fn schema() -> Schema {
        Schema::new(
            "storage",
            "_storage_migrations",
            sqlx::migrate!("../migrations/storage/postgres"),
        )
    }
}

#[async_trait]
impl StorageDatabase for PostgresBackend {
    fn database(&self) -> &dyn alga_schema::Database {
        self.database()
    }

    async fn distribution(&self) -> Result<Distribution, Error> {
        Ok(shards::distribution(self).await?)
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    async fn get(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Record>, Error> {
        let (of, now) = ((scope, namespace, key), self.now());
        let reading =
            self.read(async |connection, sent| read::get(connection, sent, of, now).await);
        Ok(reading.await?)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        keys: &[Key],
    ) -> Result<Vec<Option<Record>>, Error> {
        let (of, now) = ((scope, namespace, keys), self.now());
        let reading =
            self.read(async |connection, sent| read::get_many(connection, sent, of, now).await);
        Ok(reading.await?)
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        let mut ordered = false;
        // Ends, as what is expired does; whoever calls gives up in time.
        loop {
            let (what, now) = ((scope, &put), self.now());
            let writing = self.write(async |connection, sent| {
                write::put(connection, sent, what, ordered, now).await
            });
            match writing.await? {
                Called::Decided(decided) => return decided,
                Called::Again => ordered = true,
            }
        }
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        let (what, now) = ((scope, &request), self.now());
        let writing =
            self.write(async |connection, sent| write::delete(connection, sent, what, now).await);
        writing.await?
    }

    async fn list(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        query: ListQuery,
    ) -> Result<ListedPage, Error> {
        let (of, now) = ((scope, namespace, &query), self.now());
        let reading =
            self.read(async |connection, sent| read::list(connection, sent, of, now).await);
        Ok(reading.await?)
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        let now = self.now();
        let reading =
            self.read(async |connection, sent| read::usage(connection, sent, scope, now).await);
        Ok(reading.await?)
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        PostgresError::from(error).into()
    }
}
