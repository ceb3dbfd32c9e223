//! The statements that read. None of them writes or waits, and each sees one moment.
//!
//! What is expired at that moment is decided by the clock of the database, unless a time is given.

use std::collections::HashMap;

use alga_model::{InstallId, TenantId};
use alga_postgres::{Statements, Time};
use sqlx::PgConnection;

use super::error::PostgresError;
use super::rows::{self, USAGE};
use crate::backend::{ListQuery, ListedPage};
use crate::contract::{Key, Namespace, NamespaceUsage, Quotas, Record, Usage};
use crate::maintenance::Holding;
use crate::service::Scope;

pub(super) async fn get(
    connection: &mut PgConnection,
    statements: Statements,
    (scope, namespace, key): (&Scope, &Namespace, &Key),
    now: Option<Time>,
) -> Result<Option<Record>, PostgresError> {
    const RECORD: &str = "
        SELECT key, revision, value::text AS value, metadata::text AS metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = $1 AND install_id = $2 AND namespace = $3 AND key = $4
          AND (expires_at IS NULL OR expires_at > coalesce($5, statement_timestamp()))";
    let found = statements
        .of(RECORD)
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(namespace.as_str())
        .bind(key.as_str())
        .bind(now)
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(rows::record).transpose()
}

/// Records in the order of `keys`.
pub(super) async fn get_many(
    connection: &mut PgConnection,
    statements: Statements,
    (scope, namespace, keys): (&Scope, &Namespace, &[Key]),
    now: Option<Time>,
) -> Result<Vec<Option<Record>>, PostgresError> {
    const RECORDS: &str = "
        SELECT key, revision, value::text AS value, metadata::text AS metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = $1 AND install_id = $2 AND namespace = $3 AND key = ANY ($4)
          AND (expires_at IS NULL OR expires_at > coalesce($5, statement_timestamp()))";
    let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
    let found = statements
        .of(RECORDS)
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(namespace.as_str())
        .bind(names)
        .bind(now)
        .fetch_all(connection)
        .await?;
    let mut records = HashMap::with_capacity(found.len());
    for row in &found {
        let record = rows::record(row)?;
        records.insert(record.key.clone(), record);
    }
    Ok(keys.iter().map(|key| records.get(key).cloned()).collect())
}

pub(super) async fn list(
    connection: &mut PgConnection,
    statements: Statements,
    (scope, namespace, query): (&Scope, &Namespace, &ListQuery),
    now: Option<Time>,
) -> Result<ListedPage, PostgresError> {
    // The database counts the bytes, so that no more of a page leaves it than is answered, and one record
    // more, which tells that there is more.
    macro_rules! page {
        ($order:literal) => {
            concat!(
                "
                SELECT key, revision, value, metadata, expires_at, created_at, updated_at FROM (
                    SELECT *, row_number() OVER page AS number, sum(size) OVER page - size AS before FROM (
                        SELECT *, octet_length(key) + coalesce(octet_length(value), 0)
                                + coalesce(octet_length(metadata), 0) AS size
                        FROM (
                            SELECT key, revision, expires_at, created_at, updated_at,
                                   CASE WHEN $1 THEN value::text END AS value,
                                   CASE WHEN $2 THEN metadata::text END AS metadata
                            FROM ext_storage_records
                            WHERE tenant_id = $3 AND install_id = $4 AND namespace = $5 AND key >= $6 AND key < $7
                              AND (expires_at IS NULL OR expires_at > coalesce($8, statement_timestamp()))
                            ORDER BY key ",
                $order,
                " LIMIT $9
                        ) AS found
                    ) AS sized
                    WINDOW page AS (ORDER BY key ",
                $order,
                " ROWS UNBOUNDED PRECEDING)
                ) AS counted
                WHERE number <= 2 OR before <= $10
                ORDER BY number"
            )
        };
    }
    const FORWARD: &str = page!("ASC");
    const REVERSE: &str = page!("DESC");
    let statement = if query.reverse { REVERSE } else { FORWARD };
    let found = statements
        .of(statement)
        .bind(query.include_values)
        .bind(query.include_metadata)
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(namespace.as_str())
        .bind(query.range.lower())
        .bind(query.range.upper())
        .bind(now)
        .bind(i64::from(query.limit) + 1)
        .bind(i64::try_from(query.max_bytes).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    ListedPage::filled(query, found.iter().map(rows::listed))
}

pub(super) async fn usage(
    connection: &mut PgConnection,
    statements: Statements,
    scope: &Scope,
    now: Option<Time>,
) -> Result<Usage, PostgresError> {
    // One statement, so that the counters and what of them is expired are of one moment. Of a
    // backlog no more is counted than a request can pay for.
    const USAGE_OF: &str = "
        SELECT namespace, keys, bytes FROM ext_storage_usage
        WHERE tenant_id = $1 AND install_id = $2 AND namespace <> '' AND keys > 0
        UNION ALL
        SELECT NULL, count(*), coalesce(sum(bytes), 0)::bigint FROM (
            SELECT r.bytes FROM ext_storage_usage AS u
            JOIN ext_storage_records AS r
              ON r.tenant_id = u.tenant_id AND r.install_id = u.install_id AND r.namespace = u.namespace
            WHERE u.tenant_id = $1 AND u.install_id = $2 AND r.tenant_id = $1 AND r.install_id = $2
              AND u.next_expiry <= coalesce($3, statement_timestamp())
              AND r.expires_at <= coalesce($3, statement_timestamp())
            LIMIT $4
        ) AS expired
        ORDER BY namespace";
    let found = statements
        .of(USAGE_OF)
        .bind(scope.tenant.as_uuid())
        .bind(scope.install.as_uuid())
        .bind(now)
        .bind(i64::try_from(Usage::MOST_EXPIRED_COUNTED).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let mut usage = empty(scope.limits.quotas);
    for row in &found {
        let (keys, bytes) = (USAGE.count(row, "keys")?, USAGE.count(row, "bytes")?);
        if USAGE.get::<Option<&str>>(row, "namespace")?.is_none() {
            (usage.expired_keys, usage.expired_bytes) = (keys, bytes);
            continue;
        }
        usage.keys += keys;
        usage.bytes += bytes;
        usage.per_namespace.push(NamespaceUsage {
            namespace: USAGE.namespace(row, "namespace")?,
            keys,
            bytes,
        });
    }
    Ok(usage)
}

const fn empty(quotas: Quotas) -> Usage {
    Usage {
        bytes: 0,
        keys: 0,
        expired_bytes: 0,
        expired_keys: 0,
        quotas,
        per_namespace: Vec::new(),
    }
}

pub(super) async fn tenants(
    connection: &mut PgConnection,
    statements: Statements,
    after: Option<TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, PostgresError> {
    // Every write needs the row of its tenant once.
    const TENANTS: &str = "
        SELECT tenant_id FROM ext_storage_usage
        WHERE tenant_id > $1 AND install_id = $2 AND namespace = ''
        ORDER BY tenant_id LIMIT $3";
    let nobody = InstallId::new(uuid::Uuid::nil());
    let after = after.map_or(uuid::Uuid::nil(), |after| *after.as_uuid());
    let found = statements
        .of(TENANTS)
        .bind(after)
        .bind(nobody.as_uuid())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let tenant = |row| USAGE.id(row, "tenant_id").map(TenantId::new);
    found.iter().map(tenant).collect()
}

pub(super) async fn holdings(
    connection: &mut PgConnection,
    statements: Statements,
    tenant: TenantId,
) -> Result<Vec<Holding>, PostgresError> {
    const HOLDINGS: &str = "
        SELECT install_id, sum(bytes)::bigint AS bytes, max(keys) AS keys,
               count(*) FILTER (WHERE keys > 0) AS namespaces
        FROM ext_storage_usage
        WHERE tenant_id = $1 AND namespace <> ''
        GROUP BY install_id ORDER BY install_id";
    let found = statements
        .of(HOLDINGS)
        .bind(tenant.as_uuid())
        .fetch_all(connection)
        .await?;
    found.iter().map(rows::holding).collect()
}
