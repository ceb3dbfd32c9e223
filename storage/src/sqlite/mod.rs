//! The contract over SQLite.
//!
//! Reads go to a small pool and, thanks to the write-ahead log, never wait. Writes go to one task
//! that has the write lock for itself and commits what is waiting in groups.

mod answers;
mod audit;
mod counters;
mod error;
mod expiry;
mod group;
mod load;
mod read;
mod rows;
mod state;
mod store;
mod verify;
mod writer;

use std::sync::Arc;

use alga_model::{Clock, TenantId, Timestamp};
use alga_sqlite::{Database, DriverError, Options, Schema};
use async_trait::async_trait;
use rusqlite::Connection;
use uuid::Uuid;

use crate::backend::{Backend, ListQuery, ListedPage, StorageDatabase};
use crate::contract::{DeleteRequest, Key, Namespace, Record, Usage, Written};
use crate::distribution::Distribution;
use crate::error::{BulkError, Error};
use crate::maintenance::{AuditFilter, AuditRecord, Drift, Holding, Maintenance, Removed};
use crate::service::{Put, Scope};

use self::audit::AuditIds;
use self::counters::Counted;
use self::error::SqliteError;
use self::expiry::Batch;
use self::group::Groups;
use self::state::Place;
use self::writer::Writer;

/// Records, counters and audit in a SQLite database.
///
/// Several processes may use one file, a command beside a running server for instance: each sees
/// what the others committed, and their writes wait for one another, up to the busy timeout. Each goes
/// by its own clock.
#[derive(Debug)]
pub struct SqliteBackend {
    database: Arc<Database>,
    writer: Writer,
    clock: Arc<dyn Clock>,
    audit_ids: Arc<AuditIds>,
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
        let options = Options {
            enforce_checks: false,
            ..options
        };
        let database = Arc::new(Database::open(Self::schema(), options).await?);
        let audit_ids = Arc::new(AuditIds::new());
        let groups = Groups {
            clock: Arc::clone(&clock),
            audit_ids: Arc::clone(&audit_ids),
        };
        let writer = Writer::start(Arc::clone(&database), groups);
        Ok(Self {
            database,
            writer,
            clock,
            audit_ids,
        })
    }

    /// The database itself, to migrate or to close it.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads one moment of the database, with the time at which it begins: what has expired since the
    /// request came is not seen any more.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, Timestamp) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, Error> {
        let clock = Arc::clone(&self.clock);
        let reading = self.database.read(move |moment| work(moment, clock.now()));
        Ok(reading.await?)
    }

    async fn remove_expired_of(
        &self,
        tenant: TenantId,
        limit: u32,
    ) -> Result<Removed, SqliteError> {
        const ALL_NAMESPACES: u32 = 1_024;
        let batch = Batch {
            records: limit.into(),
            namespaces: ALL_NAMESPACES,
        };
        let (clock, ids) = (Arc::clone(&self.clock), Arc::clone(&self.audit_ids));
        let removing = self.database.with_writer(move |connection| {
            let transaction = alga_sqlite::begin(connection)?;
            let now = clock.now();
            let tenant = Counted::Tenant(tenant);
            let mut removals = expiry::remove(&transaction, &ids, &tenant, now, batch)?;
            let others = expiry::due_tenants(&transaction, now, 1)?;
            removals.total.more |= !others.is_empty();
            transaction.commit().map_err(DriverError::Commit)?;
            // Here, where it is told also if nobody waits any more.
            removals.tell("sweep", now);
            Ok::<_, SqliteError>(removals.total)
        });
        removing.await
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
impl StorageDatabase for SqliteBackend {
    fn database(&self) -> &dyn alga_schema::Database {
        self.database()
    }

    async fn distribution(&self) -> Result<Distribution, Error> {
        self.read(|connection, _| read::distribution(connection))
            .await
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
        let (place, key) = (Place::of(scope, namespace), key.clone());
        self.read(move |connection, now| read::get(connection, &place, &key, now))
            .await
    }

    async fn get_many(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        keys: &[Key],
    ) -> Result<Vec<Option<Record>>, Error> {
        let (place, keys) = (Place::of(scope, namespace), keys.to_vec());
        self.read(move |connection, now| read::get_many(connection, &place, &keys, now))
            .await
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
        let place = Place::of(scope, namespace);
        self.read(move |connection, now| read::list(connection, &place, &query, now))
            .await
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        let install = (scope.tenant, scope.install);
        let quotas = scope.limits.quotas;
        self.read(move |connection, now| read::usage(connection, install, quotas, now))
            .await
    }
}

#[async_trait]
impl Maintenance for SqliteBackend {
    async fn remove_expired(&self, limit: u32) -> Result<Removed, Error> {
        // A tenant whose rows are damaged must not keep the others from being swept.
        const TENANTS_TRIED: u32 = 64;
        let due = self
            .read(|connection, now| expiry::due_tenants(connection, now, TENANTS_TRIED))
            .await?;
        let mut failure = None;
        for tenant in due {
            match self.remove_expired_of(tenant, limit).await {
                Ok(removed) => return Ok(removed),
                Err(error) if error.is_passing() => return Err(error.into()),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(Removed::default()), |error| Err(error.into()))
    }

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<Removed, Error> {
        let removing = self
            .database
            .write(move |transaction| audit::remove(transaction, before, limit));
        Ok(removing.await?)
    }

    async fn remove_answers(&self, limit: u32) -> Result<Removed, Error> {
        let clock = Arc::clone(&self.clock);
        let removing = self
            .database
            .write(move |transaction| answers::remove(transaction, clock.now(), limit));
        Ok(removing.await?)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, Error> {
        let filter = filter.clone();
        self.read(move |connection, _| audit::list(connection, &filter, after, limit))
            .await
    }

    async fn tenants(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<TenantId>, Error> {
        self.read(move |connection, _| read::tenants(connection, after, limit))
            .await
    }

    async fn holdings(&self, tenant: TenantId) -> Result<Vec<Holding>, Error> {
        self.read(move |connection, _| read::holdings(connection, tenant))
            .await
    }

    async fn verify_usage(&self, tenant: TenantId, repair: bool) -> Result<Vec<Drift>, Error> {
        if repair {
            let mending = self
                .database
                .write(move |transaction| verify::verify(transaction, tenant, true));
            return Ok(mending.await?);
        }
        // A transaction that only reads sees one moment, and nobody waits for it.
        self.read(move |connection, _| verify::verify(connection, tenant, false))
            .await
    }
}
