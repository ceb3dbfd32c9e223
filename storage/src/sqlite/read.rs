//! The statements that read. None of them writes, and none waits for a writer.

use alga_model::{TenantId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::error::SqliteError;
use super::rows;
use crate::backend::{ListQuery, ListedPage};
use crate::contract::{Key, Listed, Namespace, Record, Usage};
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

/// What is read at once, at most, of a page that is far smaller: it may ask for a thousand records,
/// of which only some, each up to its greatest size, fit on it.
const READ_AT_ONCE: u64 = 16 << 20;
/// More are not read at once however small they may be, and fewer however large.
const ROWS_AT_ONCE: (u64, u64) = (16, 256);

pub(super) async fn list(
    pool: &SqlitePool,
    scope: &Scope,
    namespace: &Namespace,
    query: &ListQuery,
    now: Timestamp,
) -> Result<ListedPage, SqliteError> {
    // One more than the page holds tells whether it is the last one.
    let wanted = query.limit.saturating_add(1);
    let mut page = ListedPage {
        items: Vec::new(),
        more: false,
    };
    let limits = scope.request_limits();
    let largest = limits.value_bytes + limits.metadata_bytes;
    let at_once = (READ_AT_ONCE / largest.max(1)).clamp(ROWS_AT_ONCE.0, ROWS_AT_ONCE.1);
    let at_once = rows::narrow(at_once);
    if !(query.include_values || query.include_metadata) || wanted <= at_once {
        let mut connection = pool.acquire().await?;
        let rows = list_rows(&mut connection, scope, namespace, query, now, wanted).await?;
        page.take(&rows, query)?;
        return Ok(page);
    }
    // Several statements, but one transaction: a page is of one moment.
    let mut transaction = pool.begin().await?;
    let mut query = query.clone();
    loop {
        let left = wanted.saturating_sub(rows::narrow(page.items.len() as u64));
        let at_once = left.min(at_once);
        let found = list_rows(&mut transaction, scope, namespace, &query, now, at_once).await?;
        page.take(&found, &query)?;
        let exhausted = found.len() < rows::length(at_once);
        match page.items.last() {
            Some(last) if !page.more && !exhausted => {
                query.range = query.range.beyond(&last.key, query.reverse);
            }
            _ => return Ok(page),
        }
    }
}

async fn list_rows(
    connection: &mut SqliteConnection,
    scope: &Scope,
    namespace: &Namespace,
    query: &ListQuery,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<SqliteRow>, SqliteError> {
    const FORWARD: &str = "
        SELECT key, revision, expires_at, created_at, updated_at,
               iif(?1, value, NULL) AS value, iif(?2, metadata, NULL) AS metadata
        FROM ext_storage_records
        WHERE tenant_id = ?3 AND install_id = ?4 AND namespace = ?5 AND key >= ?6 AND key < ?7
          AND (expires_at IS NULL OR expires_at > ?8)
        ORDER BY key LIMIT ?9";
    const REVERSE: &str = "
        SELECT key, revision, expires_at, created_at, updated_at,
               iif(?1, value, NULL) AS value, iif(?2, metadata, NULL) AS metadata
        FROM ext_storage_records
        WHERE tenant_id = ?3 AND install_id = ?4 AND namespace = ?5 AND key >= ?6 AND key < ?7
          AND (expires_at IS NULL OR expires_at > ?8)
        ORDER BY key DESC LIMIT ?9";
    let found = sqlx::query(if query.reverse { REVERSE } else { FORWARD })
        .bind(query.include_values)
        .bind(query.include_metadata)
        .bind(scope.tenant.as_bytes().as_slice())
        .bind(scope.install.as_bytes().as_slice())
        .bind(namespace.as_str())
        .bind(query.range.lower())
        .bind(query.range.upper())
        .bind(now.as_millis())
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Ok(found)
}

impl ListedPage {
    /// Takes what fits of the rows that follow those the page has.
    fn take(&mut self, rows: &[SqliteRow], query: &ListQuery) -> Result<(), SqliteError> {
        let mut bytes: u64 = self.items.iter().map(Listed::size).sum();
        for row in rows {
            let listed = rows::listed(row)?;
            bytes += listed.size();
            let full = self.items.len() >= rows::length(query.limit) || bytes > query.max_bytes;
            if full && !self.items.is_empty() {
                self.more = true;
                return Ok(());
            }
            self.items.push(listed);
        }
        Ok(())
    }
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
        SELECT tenant_id FROM ext_storage_usage
        WHERE tenant_id > ?1 AND install_id = x'' AND namespace = ''
        UNION
        SELECT tenant_id FROM (
            SELECT DISTINCT tenant_id FROM ext_storage_records WHERE tenant_id > ?1
            ORDER BY tenant_id LIMIT ?2
        )
        ORDER BY tenant_id LIMIT ?2";
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
