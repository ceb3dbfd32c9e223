//! How what is stored is spread, over the shards of Citus where there are any.

use alga_model::TenantId;
use alga_postgres::Statements;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PostgresBackend;
use super::error::PostgresError;
use super::rows::{Columns, USAGE};
use crate::distribution::{Distribution, Piece, Survey, TableSize, TenantShare};

/// Tenants that are looked at at once.
const PAGE: u32 = 10_000;
const RECORDS: &str = "ext_storage_records";
const SHARDS: Columns = Columns("citus_shards");
const CLASS: Columns = Columns("pg_class");

pub(super) async fn distribution(backend: &PostgresBackend) -> Result<Distribution, PostgresError> {
    let is_distributed = backend.read(is_distributed).await?;
    let mut survey = if is_distributed {
        Survey::of_pieces(RECORDS, backend.read(pieces).await?)
    } else {
        Survey::of_tables(backend.read(tables).await?)
    };
    let mut after = Uuid::nil();
    loop {
        let read = async |connection: &mut PgConnection, sent| {
            tenants(connection, sent, after, is_distributed).await
        };
        let page = backend.read(read).await?;
        let Some(last) = page.last() else {
            return Ok(survey.finish());
        };
        after = *last.tenant_id.as_uuid();
        for tenant in page {
            survey.add_tenant(tenant);
        }
    }
}

async fn is_distributed(
    connection: &mut PgConnection,
    statements: Statements,
) -> Result<bool, PostgresError> {
    const CITUS: &str = "SELECT FROM pg_extension WHERE extname = 'citus'";
    let citus = statements.of(CITUS).fetch_optional(connection).await?;
    Ok(citus.is_some())
}

async fn tables(
    connection: &mut PgConnection,
    statements: Statements,
) -> Result<Vec<TableSize>, PostgresError> {
    const TABLES: &str = "
        SELECT relname::text AS table_name, pg_total_relation_size(oid) AS disk_bytes FROM pg_class
        WHERE oid IN ('ext_storage_records'::regclass, 'ext_storage_usage'::regclass,
                      'ext_storage_audit'::regclass, 'ext_storage_idempotency'::regclass)";
    let found = statements.of(TABLES).fetch_all(connection).await?;
    let table = |row| {
        Ok(TableSize {
            table: CLASS.get(row, "table_name")?,
            disk_bytes: CLASS.count(row, "disk_bytes")?,
        })
    };
    found.iter().map(table).collect()
}

/// The shards of the tables. Those for the same tenants begin at the same hash.
async fn pieces(
    connection: &mut PgConnection,
    statements: Statements,
) -> Result<Vec<Piece>, PostgresError> {
    const PIECES: &str = "
        SELECT c.relname::text AS table_name, s.shardid AS shard, s.shardminvalue AS range,
               p.nodename || ':' || p.nodeport AS node, coalesce(p.shard_size, 0)::bigint AS disk_bytes
        FROM citus_shards AS p
        JOIN pg_dist_shard AS s ON s.shardid = p.shardid
        JOIN pg_class AS c ON c.oid = s.logicalrelid
        WHERE c.oid IN ('ext_storage_records'::regclass, 'ext_storage_usage'::regclass,
                        'ext_storage_audit'::regclass, 'ext_storage_idempotency'::regclass)";
    let found = statements.of(PIECES).fetch_all(connection).await?;
    let piece = |row| {
        Ok(Piece {
            table: SHARDS.get(row, "table_name")?,
            shard: SHARDS.count(row, "shard")?,
            range: SHARDS.get(row, "range")?,
            node: SHARDS.get(row, "node")?,
            disk_bytes: SHARDS.count(row, "disk_bytes")?,
        })
    };
    found.iter().map(piece).collect()
}

/// A page of tenants by what their counters say, and on Citus the shards of their records.
async fn tenants(
    connection: &mut PgConnection,
    statements: Statements,
    after: Uuid,
    is_distributed: bool,
) -> Result<Vec<TenantShare>, PostgresError> {
    const TENANTS: &str = "
        SELECT tenant_id, sum(keys)::bigint AS records, sum(bytes)::bigint AS bytes
        FROM ext_storage_usage WHERE tenant_id > $1
        GROUP BY tenant_id ORDER BY tenant_id LIMIT $2";
    // Without a table, so that it is answered where the shards are known.
    const PLACES: &str = "
        SELECT get_shard_id_for_distribution_column('ext_storage_records', t.id) AS shard
        FROM unnest($1::uuid[]) WITH ORDINALITY AS t (id, nth) ORDER BY t.nth";
    let reading = statements.of(TENANTS).bind(after).bind(i64::from(PAGE));
    let found = reading.fetch_all(&mut *connection).await?;
    let mut tenants: Vec<_> = found.iter().map(tenant).collect::<Result<_, _>>()?;
    if is_distributed {
        let ids: Vec<_> = tenants
            .iter()
            .map(|tenant| *tenant.tenant_id.as_uuid())
            .collect();
        let places = statements
            .of(PLACES)
            .bind(ids)
            .fetch_all(connection)
            .await?;
        for (tenant, place) in tenants.iter_mut().zip(&places) {
            tenant.shard = Some(SHARDS.count(place, "shard")?);
        }
    }
    Ok(tenants)
}

fn tenant(row: &PgRow) -> Result<TenantShare, PostgresError> {
    Ok(TenantShare {
        tenant_id: TenantId::new(USAGE.id(row, "tenant_id")?),
        records: USAGE.count(row, "records")?,
        bytes: USAGE.count(row, "bytes")?,
        shard: None,
    })
}
