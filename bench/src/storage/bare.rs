//! The statements that the contract is measured against: the same driver, pragmas, schema and
//! durability, and nothing around them.

use alga_model::{InstallId, TenantId};
use alga_sqlite::Database;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Sqlite, SqliteConnection};
use uuid::Uuid;

/// Any moment will do.
const NOW: i64 = 1_800_000_000_000;

/// Bare statements about one install.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare<'d> {
    database: &'d Database,
    tenant: TenantId,
    install: InstallId,
}

/// A record in the types of its columns: key, revision, value, metadata, and its three times.
pub(crate) type RecordRow = (String, i64, String, String, Option<i64>, i64, i64);

/// The same without metadata.
pub(crate) type ListedRow = (String, i64, String, Option<i64>, i64, i64);

/// As many records as are there, all of one tenant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) installs: u32,
    pub(crate) namespaces: u32,
    pub(crate) keys: u32,
}

impl<'d> Bare<'d> {
    pub(crate) const fn new(database: &'d Database, tenant: TenantId, install: InstallId) -> Self {
        Self {
            database,
            tenant,
            install,
        }
    }

    /// The connection that writes, for as long as it is held.
    pub(crate) async fn writer(&self) -> anyhow::Result<BareWriter> {
        Ok(BareWriter {
            connection: self.database.writer().acquire().await?,
            tenant: self.tenant,
            install: self.install,
        })
    }

    /// Reads a record by its primary key.
    pub(crate) async fn get(&self, namespace: &str, key: &str) -> anyhow::Result<RecordRow> {
        const RECORD: &str = "
            SELECT key, revision, value, metadata, expires_at, created_at, updated_at
            FROM ext_storage_records
            WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
        Ok(sqlx::query_as(RECORD)
            .bind(self.tenant.as_bytes().as_slice())
            .bind(self.install.as_bytes().as_slice())
            .bind(namespace)
            .bind(key)
            .fetch_one(self.database.reader())
            .await?)
    }

    /// Reads the records after a key.
    pub(crate) async fn list(
        &self,
        namespace: &str,
        after: &str,
        limit: u32,
    ) -> anyhow::Result<Vec<ListedRow>> {
        const RECORDS: &str = "
            SELECT key, revision, value, expires_at, created_at, updated_at
            FROM ext_storage_records
            WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key > ?
            ORDER BY key LIMIT ?";
        Ok(sqlx::query_as(RECORDS)
            .bind(self.tenant.as_bytes().as_slice())
            .bind(self.install.as_bytes().as_slice())
            .bind(namespace)
            .bind(after)
            .bind(limit)
            .fetch_all(self.database.reader())
            .await?)
    }
}

/// The one connection that writes.
#[derive(Debug)]
pub(crate) struct BareWriter {
    connection: PoolConnection<Sqlite>,
    tenant: TenantId,
    install: InstallId,
}

impl BareWriter {
    /// Writes one record and makes it durable.
    pub(crate) async fn put(
        &mut self,
        namespace: &str,
        key: &str,
        value: &str,
    ) -> anyhow::Result<()> {
        let (tenant, install) = (self.tenant, self.install);
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        put(&mut transaction, (tenant, install, namespace), key, value).await?;
        Ok(transaction.commit().await?)
    }

    /// Writes new records, the counters and one audit row a record, and makes them durable.
    pub(crate) async fn bulk_put(
        &mut self,
        namespace: &str,
        records: &[(String, String)],
    ) -> anyhow::Result<()> {
        let place = (self.tenant, self.install, namespace);
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for (key, value) in records {
            put(&mut transaction, place, key, value).await?;
        }
        let keys = i64::try_from(records.len())?;
        let lengths = records.iter().map(|(_, value)| value.len() + 2);
        let bytes = i64::try_from(lengths.sum::<usize>())?;
        let (tenant, install) = (self.tenant.as_bytes(), self.install.as_bytes());
        let counters: [(&[u8], &str); 3] = [(install, namespace), (install, ""), (&[], "")];
        for (install, namespace) in counters {
            count(&mut transaction, (tenant, install, namespace), keys, bytes).await?;
        }
        for (key, value) in records {
            audit(&mut transaction, place, key, value).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Fills the tenant: in `crowd.installs` installs, of which this is the first, `crowd.namespaces`
    /// namespaces each, with `crowd.keys` records each. Keys are `item-` and the even numbers.
    pub(crate) async fn crowd(&mut self, crowd: Crowd, value: &str) -> anyhow::Result<()> {
        for install in 0..crowd.installs {
            let install = match install {
                0 => self.install,
                _ => InstallId::generate(),
            };
            for namespace in 0..crowd.namespaces {
                let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
                let namespace = namespace_name(namespace);
                let place = (self.tenant, install, namespace.as_str());
                fill(&mut transaction, place, crowd.keys, value).await?;
                transaction.commit().await?;
            }
        }
        self.count_all().await?;
        // Otherwise the first one measured would pay for what was written here.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Makes the counters those of the records.
    async fn count_all(&mut self) -> anyhow::Result<()> {
        const NAMESPACES: &str = "
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes)
            SELECT tenant_id, install_id, namespace, count(*), sum(bytes)
            FROM ext_storage_records GROUP BY tenant_id, install_id, namespace";
        const INSTALLS: &str = "
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, namespaces)
            SELECT tenant_id, install_id, '', sum(keys), sum(bytes), count(*)
            FROM ext_storage_usage GROUP BY tenant_id, install_id";
        const TENANTS: &str = "
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes)
            SELECT tenant_id, x'', '', sum(keys), sum(bytes)
            FROM ext_storage_usage WHERE namespace = '' GROUP BY tenant_id";
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for statement in [NAMESPACES, INSTALLS, TENANTS] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// What a namespace of a crowd is called.
pub(crate) fn namespace_name(number: u32) -> String {
    format!("space-{number:03}")
}

type Place<'a> = (TenantId, InstallId, &'a str);

async fn fill(
    connection: &mut SqliteConnection,
    (tenant, install, namespace): Place<'_>,
    keys: u32,
    value: &str,
) -> anyhow::Result<()> {
    const FILL: &str = "
        WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < ?1)
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, created_at, updated_at, metadata, value)
        SELECT ?2, ?3, ?4, printf('item-%08d', 2 * number), 1, length(?5) + 2, ?6, ?6, '{}', ?5 FROM numbers";
    sqlx::query(FILL)
        .bind(keys)
        .bind(tenant.as_bytes().as_slice())
        .bind(install.as_bytes().as_slice())
        .bind(namespace)
        .bind(value)
        .bind(NOW)
        .execute(connection)
        .await?;
    Ok(())
}

async fn put(
    connection: &mut SqliteConnection,
    (tenant, install, namespace): Place<'_>,
    key: &str,
    value: &str,
) -> anyhow::Result<()> {
    const PUT: &str = "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
        VALUES (?, ?, ?, ?, 1, ?, NULL, ?, ?, '{}', ?)
        ON CONFLICT DO UPDATE SET
            revision = revision + 1, bytes = excluded.bytes, expires_at = excluded.expires_at,
            updated_at = excluded.updated_at, metadata = excluded.metadata, value = excluded.value";
    sqlx::query(PUT)
        .bind(tenant.as_bytes().as_slice())
        .bind(install.as_bytes().as_slice())
        .bind(namespace)
        .bind(key)
        .bind(i64::try_from(value.len() + 2)?)
        .bind(NOW)
        .bind(NOW)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

async fn count(
    connection: &mut SqliteConnection,
    (tenant, install, namespace): (&[u8; 16], &[u8], &str),
    keys: i64,
    bytes: i64,
) -> anyhow::Result<()> {
    const COUNT: &str = "
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, change_seq)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            keys = keys + excluded.keys, bytes = bytes + excluded.bytes, change_seq = change_seq + excluded.change_seq";
    sqlx::query(COUNT)
        .bind(tenant.as_slice())
        .bind(install)
        .bind(namespace)
        .bind(keys)
        .bind(bytes)
        .bind(keys)
        .execute(connection)
        .await?;
    Ok(())
}

async fn audit(
    connection: &mut SqliteConnection,
    (tenant, install, namespace): Place<'_>,
    key: &str,
    value: &str,
) -> anyhow::Result<()> {
    const AUDIT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id,
             records, bytes, changes)
        VALUES (?, ?, ?, ?, 'com.example.bench', ?, 'put', ?, ?, 1, ?, ?)";
    let bytes = i64::try_from(value.len() + 2)?;
    sqlx::query(AUDIT)
        .bind(tenant.as_bytes().as_slice())
        .bind(Uuid::now_v7().as_bytes().as_slice())
        .bind(NOW)
        .bind(install.as_bytes().as_slice())
        .bind(namespace)
        .bind("invocation:019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e5f")
        .bind("019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e60")
        .bind(bytes)
        .bind(format!("[[\"{key}\",null,1,{bytes},null]]"))
        .execute(connection)
        .await?;
    Ok(())
}
