//! The statements that the backend sends, sent by hand.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use super::{Operation, Place};
use crate::storage::sample::{key, value};

const GET: &str = "
    SELECT key, revision, value::text AS value, metadata::text AS metadata, expires_at, created_at, updated_at
    FROM ext_storage_records
    WHERE tenant_id = $1 AND install_id = $2 AND namespace = $3 AND key = $4
      AND (expires_at IS NULL OR expires_at > coalesce($5::timestamptz, statement_timestamp()))";
const PUT: &str = "
    SELECT code, item, revision, expires_at, created_at, updated_at, created_at < updated_at AS replaced,
           detail::text AS detail
    FROM ext_storage_put_one_1($1, $2, $3, $4, $5, $6, $7, NULL, NULL, NULL, $8, $9, $10, $11, false, false,
                               'com.example.bench', 'invocation:019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e5f',
                               '019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e60')";
/// Those of the installs.
const MAX_NAMESPACES: i64 = 1_000;
const MAX_KEYS: i64 = 10_000_000;
const MAX_BYTES: i64 = 1 << 40;

/// Connections, one for each client.
#[derive(Debug, Clone)]
pub(super) struct Bare(Vec<Arc<Mutex<PgConnection>>>);

impl Bare {
    pub(super) async fn connect(url: &str, clients: u32) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            let connection = PgConnection::connect(url).await?;
            connections.push(Arc::new(Mutex::new(connection)));
        }
        Ok(Self(connections))
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = Arc<Mutex<PgConnection>>> {
        self.0.iter().map(Arc::clone)
    }
}

pub(super) async fn do_once(
    connection: &mut PgConnection,
    place: &Place,
    operation: Operation,
    number: u32,
) -> anyhow::Result<()> {
    let (tenant, install) = (place.install.tenant(), place.install.id());
    let key = key(number);
    let statement = match operation {
        Operation::Get => sqlx::query(GET),
        Operation::Put => sqlx::query(PUT),
    };
    let statement = statement
        .bind(tenant.as_uuid())
        .bind(install.as_uuid())
        .bind(place.namespace.as_str())
        .bind(&key);
    match operation {
        Operation::Get => {
            let found = statement.bind(None::<alga_postgres::Time>);
            let found = found.fetch_optional(connection).await?;
            let found = found.context("there is no such record")?;
            let value: &str = found.try_get("value")?;
            ensure!(!value.is_empty(), "a record without a value");
        }
        Operation::Put => {
            let value = value(number);
            let metadata = "{}";
            let bytes = i64::try_from(value.len() + metadata.len())?;
            let written = statement
                .bind(&value)
                .bind(metadata)
                .bind(bytes)
                .bind(MAX_NAMESPACES)
                .bind(MAX_KEYS)
                .bind(MAX_BYTES)
                .bind(MAX_BYTES)
                .fetch_all(connection)
                .await?;
            let written = written.first().context("no answer")?;
            let code: &str = written.try_get("code")?;
            ensure!(code == "written", "a write was answered {code}");
        }
    }
    Ok(())
}
