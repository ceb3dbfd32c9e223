//! The contract over SQLite.
//!
//! Reads go to a small pool and, thanks to the write-ahead log, never wait. Writes go to one task
//! that has the write lock for itself and commits what is waiting in groups.

mod audit;
mod error;
mod expiry;
mod group;
mod load;
mod read;
mod rows;
mod script;
mod state;
mod store;
mod verify;
mod writer;

use std::sync::Arc;

use alga_model::{Clock, TenantId, Timestamp};
use alga_sqlite::{Database, Options, Schema};
use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use crate::backend::{Backend, ListQuery, ListedPage};
use crate::contract::{DeleteRequest, Key, Namespace, Record, Usage, Written};
use crate::error::{BulkError, Error};
use crate::maintenance::{AuditFilter, AuditRecord, Drift, Holding, Maintenance, Removed};
use crate::service::{Put, Scope};

use self::audit::AuditIds;
use self::expiry::Batch;
use self::group::Groups;
use self::state::Counted;
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
        let database = Arc::new(Database::open(Self::schema(), options).await?);
        let audit_ids = Arc::new(AuditIds::new());
        let writer = Writer::start(Groups {
            database: Arc::clone(&database),
            clock: Arc::clone(&clock),
            audit_ids: Arc::clone(&audit_ids),
        });
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

    /// Fails unless the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database
            .ping()
            .await
            .map_err(error::SqliteError::from)?;
        Ok(())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, error::SqliteError> {
        Ok(self.database.begin().await?)
    }

    async fn remove_expired_of(
        &self,
        tenant: TenantId,
        limit: u32,
    ) -> Result<Removed, error::SqliteError> {
        const ALL_NAMESPACES: u32 = 1_024;
        let batch = Batch {
            records: limit,
            namespaces: ALL_NAMESPACES,
        };
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let ids = &self.audit_ids;
        let tenant = Counted::Tenant(tenant);
        let mut removed = expiry::remove(&mut transaction, ids, &tenant, now, batch).await?;
        let others = expiry::due_tenants(&mut transaction, now, 1).await?;
        removed.more |= !others.is_empty();
        commit(transaction).await?;
        removed.count("sweep");
        Ok(removed)
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

#[async_trait]
impl Maintenance for SqliteBackend {
    async fn remove_expired(&self, limit: u32) -> Result<Removed, Error> {
        // A tenant whose rows are damaged must not keep the others from being swept.
        const TENANTS_TRIED: u32 = 64;
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let due = expiry::due_tenants(&mut transaction, now, TENANTS_TRIED).await?;
        transaction
            .rollback()
            .await
            .map_err(error::SqliteError::from)?;
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

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let removed = audit::remove(&mut transaction, before, limit).await?;
        commit(transaction).await?;
        Ok(removed)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, Error> {
        Ok(audit::list(self.database.reader(), filter, after, limit).await?)
    }

    async fn tenants(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<TenantId>, Error> {
        Ok(read::tenants(self.database.reader(), after, limit).await?)
    }

    async fn holdings(&self, tenant: TenantId) -> Result<Vec<Holding>, Error> {
        Ok(read::holdings(self.database.reader(), tenant).await?)
    }

    async fn verify_usage(&self, tenant: TenantId, repair: bool) -> Result<Vec<Drift>, Error> {
        if repair {
            let mut transaction = self.begin().await?;
            let drifts = verify::verify(&mut transaction, tenant, repair).await?;
            commit(transaction).await?;
            return Ok(drifts);
        }
        // A transaction that only reads sees one moment, and nobody waits for it.
        let reading = self.database.reader().begin().await;
        let mut transaction = reading.map_err(error::SqliteError::from)?;
        Ok(verify::verify(&mut transaction, tenant, repair).await?)
    }
}

async fn commit(transaction: Transaction<'static, Sqlite>) -> Result<(), error::SqliteError> {
    transaction
        .commit()
        .await
        .map_err(error::SqliteError::Commit)
}
