//! The statements that read. None of them writes, and none waits for a writer.

use alga_model::{TenantId, Timestamp};
use futures_util::TryStreamExt as _;
use sqlx::SqlitePool;

use super::error::SqliteError;
use super::rows;
use crate::backend::{ListQuery, ListedPage};
use crate::contract::{Key, Namespace, Record, Usage};
use crate::maintenance::Holding;
use crate::service::Scope;

pub(super) async fn get(
    pool: &SqlitePool,
    scope: &Scope,
    namespace: &Namespace,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Record>, SqliteError> {
    const RECORD: &str = "
        SELECT key, revision, value, metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?
          AND (expires_at IS NULL OR expires_at > ?)";
    sqlx::query(RECORD)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(scope.install.as_bytes().as_slice())
        .bind(namespace.as_str())
        .bind(key.as_str())
        .bind(now.as_millis())
        .fetch_optional(pool)
        .await?
        .as_ref()
        .map(rows::record)
        .transpose()
}

pub(super) async fn get_many(
    pool: &SqlitePool,
    scope: &Scope,
    namespace: &Namespace,
    keys: &[Key],
    now: Timestamp,
) -> Result<Vec<Option<Record>>, SqliteError> {
    const RECORDS: &str = "
        SELECT key, revision, value, metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key IN (SELECT value FROM json_each(?))
          AND (expires_at IS NULL OR expires_at > ?)";
    let found: Vec<Record> = sqlx::query(RECORDS)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(scope.install.as_bytes().as_slice())
        .bind(namespace.as_str())
        .bind(rows::json_array(keys))
        .bind(now.as_millis())
        .fetch_all(pool)
        .await?
        .iter()
        .map(rows::record)
        .collect::<Result<_, _>>()?;
    Ok(keys
        .iter()
        .map(|key| found.iter().find(|record| record.key == *key).cloned())
        .collect())
}

pub(super) async fn list(
    pool: &SqlitePool,
    scope: &Scope,
    namespace: &Namespace,
    query: &ListQuery,
    now: Timestamp,
) -> Result<ListedPage, SqliteError> {
    const FORWARD: &str = "
        SELECT key, revision, iif(?1, value, NULL) AS value, iif(?2, metadata, NULL) AS metadata,
               expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ?3 AND install_id = ?4 AND namespace = ?5 AND key >= ?6 AND key < ?7
          AND (expires_at IS NULL OR expires_at > ?8)
        ORDER BY key LIMIT ?9";
    const REVERSE: &str = "
        SELECT key, revision, iif(?1, value, NULL) AS value, iif(?2, metadata, NULL) AS metadata,
               expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ?3 AND install_id = ?4 AND namespace = ?5 AND key >= ?6 AND key < ?7
          AND (expires_at IS NULL OR expires_at > ?8)
        ORDER BY key DESC LIMIT ?9";
    // One more than the page holds tells whether it is the last one.
    let rows_wanted = i64::from(query.limit) + 1;
    let mut found = sqlx::query(if query.reverse { REVERSE } else { FORWARD })
        .bind(query.include_values)
        .bind(query.include_metadata)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(scope.install.as_bytes().as_slice())
        .bind(namespace.as_str())
        .bind(query.range.lower())
        .bind(query.range.upper())
        .bind(now.as_millis())
        .bind(rows_wanted)
        .fetch(pool);
    let mut page = ListedPage {
        items: Vec::new(),
        more: false,
    };
    let mut bytes = 0;
    while let Some(row) = found.try_next().await? {
        let listed = rows::listed(&row)?;
        bytes += listed.size();
        let full = page.items.len() as u64 >= u64::from(query.limit) || bytes > query.max_bytes;
        if full && !page.items.is_empty() {
            page.more = true;
            break;
        }
        page.items.push(listed);
    }
    Ok(page)
}

pub(super) async fn usage(
    pool: &SqlitePool,
    scope: &Scope,
    now: Timestamp,
) -> Result<Usage, SqliteError> {
    // One statement, so that the counters and what of them is expired are of one moment. Of a
    // backlog no more is counted than a request can pay for.
    const USAGE: &str = "
        SELECT namespace, keys, bytes FROM ext_storage_usage
        WHERE tenant_id = ?1 AND install_id = ?2 AND (keys > 0 OR namespace = '')
        UNION ALL
        SELECT NULL, count(*), coalesce(sum(bytes), 0) FROM (
            SELECT r.bytes FROM ext_storage_usage AS u
            CROSS JOIN ext_storage_records AS r
              ON r.tenant_id = u.tenant_id AND r.install_id = u.install_id AND r.namespace = u.namespace
            WHERE u.tenant_id = ?1 AND u.install_id = ?2 AND u.namespace <> '' AND u.next_expiry <= ?3
              AND r.expires_at <= ?3
            LIMIT ?4
        )
        ORDER BY namespace";
    let counted = sqlx::query(USAGE)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(scope.install.as_bytes().as_slice())
        .bind(now.as_millis())
        .bind(rows::integer(Usage::MOST_EXPIRED_COUNTED))
        .fetch_all(pool)
        .await?;
    rows::install_usage(&counted, scope.limits.quotas)
}

pub(super) async fn tenants(
    pool: &SqlitePool,
    after: Option<TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, SqliteError> {
    const TENANTS: &str = "
        SELECT DISTINCT tenant_id FROM ext_storage_usage
        WHERE tenant_id > ? ORDER BY tenant_id LIMIT ?";
    sqlx::query(TENANTS)
        .bind(after.as_ref().map_or(&[][..], |tenant| tenant.as_bytes()))
        .bind(limit)
        .fetch_all(pool)
        .await?
        .iter()
        .map(rows::tenant_id)
        .collect()
}

pub(super) async fn holdings(
    pool: &SqlitePool,
    tenant: TenantId,
) -> Result<Vec<Holding>, SqliteError> {
    const HOLDINGS: &str = "
        SELECT install_id, max(iif(namespace = '', bytes, 0)) AS bytes,
               max(iif(namespace = '', namespaces, 0)) AS namespaces,
               max(iif(namespace = '', 0, keys)) AS keys
        FROM ext_storage_usage
        WHERE tenant_id = ? AND install_id <> x''
        GROUP BY install_id";
    sqlx::query(HOLDINGS)
        .bind(tenant.as_bytes().as_slice())
        .fetch_all(pool)
        .await?
        .iter()
        .map(rows::holding)
        .collect()
}
