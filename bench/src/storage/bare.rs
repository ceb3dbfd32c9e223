//! The statements that the contract is measured against: the same driver, pragmas, schema and
//! durability, and nothing around them.

use alga_model::{InstallId, TenantId};
use alga_sqlite::{Database, DriverError};
use rusqlite::{Connection, Transaction, params};
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

    /// Reads a record by its primary key.
    pub(crate) async fn get(&self, namespace: &str, key: &str) -> anyhow::Result<RecordRow> {
        const RECORD: &str = "
            SELECT key, revision, value, metadata, expires_at, created_at, updated_at
            FROM ext_storage_records
            WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
        let (tenant, install) = (self.tenant, self.install);
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let read = move |connection: &Connection| {
            let key = params![tenant.as_bytes(), install.as_bytes(), namespace, key];
            let mut statement = connection.prepare_cached(RECORD)?;
            Ok::<_, DriverError>(statement.query_row(key, |row| RecordRow::try_from(row))?)
        };
        Ok(self.database.read(read).await?)
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
        let (tenant, install) = (self.tenant, self.install);
        let (namespace, after) = (namespace.to_owned(), after.to_owned());
        let read = move |connection: &Connection| {
            let range = params![
                tenant.as_bytes(),
                install.as_bytes(),
                namespace,
                after,
                limit
            ];
            let mut statement = connection.prepare_cached(RECORDS)?;
            let rows = statement.query_map(range, |row| ListedRow::try_from(row))?;
            Ok::<_, DriverError>(rows.collect::<Result<_, _>>()?)
        };
        Ok(self.database.read(read).await?)
    }

    /// Writes one record and makes it durable.
    pub(crate) async fn put(&self, namespace: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let namespace = namespace.to_owned();
        let (key, value) = (key.to_owned(), value.to_owned());
        let (tenant, install) = (self.tenant, self.install);
        self.write(move |transaction| put(transaction, (tenant, install, &namespace), &key, &value))
            .await
    }

    /// Writes new records, the counters and one audit row a record, and makes them durable.
    pub(crate) async fn bulk_put(
        &self,
        namespace: &str,
        records: Vec<(String, String)>,
    ) -> anyhow::Result<()> {
        let namespace = namespace.to_owned();
        let (tenant, install) = (self.tenant, self.install);
        self.write(move |transaction| {
            let place = (tenant, install, namespace.as_str());
            for (key, value) in &records {
                put(transaction, place, key, value)?;
            }
            let bytes: usize = records.iter().map(|(_, value)| value.len() + 2).sum();
            let totals = [(install.as_bytes(), place.2), (install.as_bytes(), "")];
            let totals = totals.map(|(install, namespace)| (install.as_slice(), namespace));
            for (install, namespace) in totals.into_iter().chain([(&[][..], "")]) {
                let row = (tenant.as_bytes().as_slice(), install, namespace);
                count(transaction, row, records.len(), bytes)?;
            }
            for (key, value) in &records {
                audit(transaction, place, key, value)?;
            }
            Ok(())
        })
        .await
    }

    /// Fills the tenant: in `crowd.installs` installs, of which this is the first, `crowd.namespaces`
    /// namespaces each, with `crowd.keys` records each. Keys are `item-` and the even numbers.
    pub(crate) async fn crowd(&self, crowd: Crowd, value: &str) -> anyhow::Result<()> {
        for install in 0..crowd.installs {
            let install = match install {
                0 => self.install,
                _ => InstallId::generate(),
            };
            for namespace in 0..crowd.namespaces {
                let (tenant, value) = (self.tenant, value.to_owned());
                self.write(move |transaction| {
                    let namespace = namespace_name(namespace);
                    fill(
                        transaction,
                        (tenant, install, &namespace),
                        crowd.keys,
                        &value,
                    )
                })
                .await?;
            }
        }
        self.write(count_all).await?;
        // Otherwise the first one measured would pay for what was written here.
        let checkpoint = |connection: &mut Connection| {
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            Ok::<_, DriverError>(connection.query_row(checkpoint, (), |_| Ok(()))?)
        };
        Ok(self.database.with_writer(checkpoint).await?)
    }

    async fn write(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(), DriverError> + Send + 'static,
    ) -> anyhow::Result<()> {
        Ok(self.database.write(work).await?)
    }
}

/// What a namespace of a crowd is called.
pub(crate) fn namespace_name(number: u32) -> String {
    format!("space-{number:03}")
}

type Place<'a> = (TenantId, InstallId, &'a str);

/// Makes the counters those of the records.
fn count_all(connection: &Transaction<'_>) -> Result<(), DriverError> {
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
    for statement in [NAMESPACES, INSTALLS, TENANTS] {
        connection.execute(statement, ())?;
    }
    Ok(())
}

fn fill(
    connection: &Connection,
    (tenant, install, namespace): Place<'_>,
    keys: u32,
    value: &str,
) -> Result<(), DriverError> {
    const FILL: &str = "
        WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < ?1)
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, created_at, updated_at, metadata, value)
        SELECT ?2, ?3, ?4, printf('item-%08d', 2 * number), 1, length(?5) + 2, ?6, ?6, '{}', ?5 FROM numbers";
    let (tenant, install) = (tenant.as_bytes(), install.as_bytes());
    connection.execute(FILL, params![keys, tenant, install, namespace, value, NOW])?;
    Ok(())
}

fn put(
    connection: &Connection,
    (tenant, install, namespace): Place<'_>,
    key: &str,
    value: &str,
) -> Result<(), DriverError> {
    const PUT: &str = "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
        VALUES (?, ?, ?, ?, 1, ?, NULL, ?, ?, '{}', ?)
        ON CONFLICT DO UPDATE SET
            revision = revision + 1, bytes = excluded.bytes, expires_at = excluded.expires_at,
            updated_at = excluded.updated_at, metadata = excluded.metadata, value = excluded.value";
    connection.prepare_cached(PUT)?.execute(params![
        tenant.as_bytes(),
        install.as_bytes(),
        namespace,
        key,
        value.len() + 2,
        NOW,
        NOW,
        value,
    ])?;
    Ok(())
}

fn count(
    connection: &Connection,
    (tenant, install, namespace): (&[u8], &[u8], &str),
    keys: usize,
    bytes: usize,
) -> Result<(), DriverError> {
    const COUNT: &str = "
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, change_seq)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            keys = keys + excluded.keys, bytes = bytes + excluded.bytes, change_seq = change_seq + excluded.change_seq";
    let row = params![tenant, install, namespace, keys, bytes, keys];
    connection.prepare_cached(COUNT)?.execute(row)?;
    Ok(())
}

fn audit(
    connection: &Connection,
    (tenant, install, namespace): Place<'_>,
    key: &str,
    value: &str,
) -> Result<(), DriverError> {
    const AUDIT: &str = "
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id,
             records, bytes, changes)
        VALUES (?, ?, ?, ?, 'com.example.bench', ?, 'put', ?, ?, 1, ?, ?)";
    let bytes = value.len() + 2;
    connection.prepare_cached(AUDIT)?.execute(params![
        tenant.as_bytes(),
        Uuid::now_v7().as_bytes(),
        NOW,
        install.as_bytes(),
        namespace,
        "invocation:019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e5f",
        "019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e60",
        bytes,
        format!("[[\"{key}\",null,1,{bytes},null]]"),
    ])?;
    Ok(())
}
