//! The statements that read. None of them writes, and on a file none waits for a writer.

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::SqliteError;
use super::rows;
use super::state::Place;
use crate::backend::{ListQuery, ListedPage};
use crate::contract::{Key, Quotas, Record, Usage};
use crate::distribution::{Distribution, Survey, TableSize};
use crate::maintenance::Holding;

pub(super) fn get(
    connection: &Connection,
    place: &Place,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Record>, SqliteError> {
    const RECORD: &str = "
        SELECT key, revision, value, metadata, expires_at, created_at, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?
          AND (expires_at IS NULL OR expires_at > ?)";
    let (tenant, install, namespace, key) = place.row_key(key);
    let found = connection
        .prepare_cached(RECORD)?
        .query_row(
            params![tenant, install, namespace, key, now.as_millis()],
            |row| Ok(rows::record(row)),
        )
        .optional()?;
    found.transpose()
}

/// Records in the order of `keys`.
pub(super) fn get_many(
    connection: &Connection,
    place: &Place,
    keys: &[Key],
    now: Timestamp,
) -> Result<Vec<Option<Record>>, SqliteError> {
    keys.iter()
        .map(|key| get(connection, place, key, now))
        .collect()
}

pub(super) fn list(
    connection: &Connection,
    place: &Place,
    query: &ListQuery,
    now: Timestamp,
) -> Result<ListedPage, SqliteError> {
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
    let mut statement = connection.prepare_cached(if query.reverse { REVERSE } else { FORWARD })?;
    // Read one by one: a page that is full of large records ends long before its limit.
    let found = statement.query_and_then(
        params![
            query.include_values,
            query.include_metadata,
            place.tenant.as_bytes(),
            place.install.as_bytes(),
            place.namespace.as_str(),
            query.range.lower(),
            query.range.upper(),
            now.as_millis(),
            // One more than the page holds tells whether it is the last one.
            query.limit.saturating_add(1),
        ],
        rows::listed,
    )?;
    ListedPage::filled(query, found)
}

pub(super) fn usage(
    connection: &Connection,
    (tenant, install): (TenantId, InstallId),
    quotas: Quotas,
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
    let mut usage = Usage {
        bytes: 0,
        keys: 0,
        expired_bytes: 0,
        expired_keys: 0,
        quotas,
        per_namespace: Vec::new(),
    };
    let mut statement = connection.prepare_cached(USAGE)?;
    let mut counted = statement.query(params![
        tenant.as_bytes(),
        install.as_bytes(),
        now.as_millis(),
        Usage::MOST_EXPIRED_COUNTED,
    ])?;
    while let Some(row) = counted.next()? {
        rows::add_usage(&mut usage, row)?;
    }
    Ok(usage)
}

pub(super) fn tenants(
    connection: &Connection,
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
    let after = after.as_ref().map_or(&[][..], |tenant| tenant.as_bytes());
    connection
        .prepare_cached(TENANTS)?
        .query_and_then(params![after, limit], rows::tenant_id)?
        .collect()
}

/// The whole file stands for its tables: only the page count is there for nothing.
pub(super) fn distribution(connection: &Connection) -> Result<Distribution, SqliteError> {
    const FILE: &str = "
        SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()";
    const TENANTS: &str = "
        SELECT tenant_id, sum(keys) AS keys, sum(bytes) AS bytes FROM ext_storage_usage
        WHERE namespace <> '' GROUP BY tenant_id";
    let file = TableSize {
        table: "file".to_owned(),
        disk_bytes: connection.query_row(FILE, (), |row| row.get("bytes"))?,
    };
    let mut survey = Survey::of_tables([file]);
    let mut tenants = connection.prepare_cached(TENANTS)?;
    for tenant in tenants.query_and_then((), rows::tenant_share)? {
        survey.add_tenant(tenant?);
    }
    Ok(survey.finish())
}

pub(super) fn holdings(
    connection: &Connection,
    tenant: TenantId,
) -> Result<Vec<Holding>, SqliteError> {
    const HOLDINGS: &str = "
        SELECT install_id, max(iif(namespace = '', bytes, 0)) AS bytes,
               max(iif(namespace = '', namespaces, 0)) AS namespaces,
               max(iif(namespace = '', 0, keys)) AS keys
        FROM ext_storage_usage
        WHERE tenant_id = ? AND install_id <> x''
        GROUP BY install_id";
    connection
        .prepare_cached(HOLDINGS)?
        .query_and_then([tenant.as_bytes()], rows::holding)?
        .collect()
}
