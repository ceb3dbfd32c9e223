//! Counts what counters should say.

use std::collections::{BTreeMap, BTreeSet};

use alga_model::{InstallId, TenantId};
use rusqlite::{Connection, Row, params};

use super::error::SqliteError;
use super::rows;
use crate::maintenance::{Counter, Drift};

/// Install and namespace of a row of counters: both empty for the totals of a tenant, the namespace
/// for those of an install.
type RowKey = (Option<InstallId>, String);

/// A row of counters, as far as records tell what it should say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) keys: i64,
    pub(super) bytes: i64,
    pub(super) namespaces: i64,
    pub(super) next_expiry: Option<i64>,
}

/// Tells every drift of a tenant's counters, and mends them where asked to. The caller's
/// transaction sees to it that nothing changes in between.
pub(super) fn verify(
    connection: &Connection,
    tenant: TenantId,
    repair: bool,
) -> Result<Vec<Drift>, SqliteError> {
    let mut drifts = missized(connection, tenant)?;
    if repair && !drifts.is_empty() {
        mend_sizes(connection, tenant)?;
    }
    drifts.extend(malformed(connection, tenant)?);
    let counted = count(connection, tenant)?;
    let stored = stored(connection, tenant)?;
    let all: BTreeSet<&RowKey> = counted.keys().chain(stored.keys()).collect();
    for key in all {
        let counted = counted.get(key).copied().unwrap_or_default();
        let of_row = differences(tenant, key, stored.get(key).copied(), counted);
        if repair && !of_row.is_empty() {
            mend(connection, tenant, key, counted)?;
        }
        drifts.extend(of_row);
    }
    Ok(drifts)
}

/// What the counters should say, by the records.
fn count(
    connection: &Connection,
    tenant: TenantId,
) -> Result<BTreeMap<RowKey, Counts>, SqliteError> {
    const COUNT: &str = "
        SELECT install_id, namespace, count(*) AS keys, sum(octet_length(value) + octet_length(metadata)) AS bytes,
               0 AS namespaces, min(expires_at) AS next_expiry
        FROM ext_storage_records WHERE tenant_id = ?
        GROUP BY install_id, namespace";
    let mut counted = BTreeMap::new();
    let mut statement = connection.prepare_cached(COUNT)?;
    let mut found = statement.query([tenant.as_bytes()])?;
    while let Some(row) = found.next()? {
        let ((install, namespace), counts) = rows::counts(row)?;
        for total in [(install, String::new()), (None, String::new())] {
            let of_tenant = total.0.is_none();
            let total: &mut Counts = counted.entry(total).or_default();
            total.keys += counts.keys;
            total.bytes += counts.bytes;
            if of_tenant {
                total.next_expiry = total
                    .next_expiry
                    .into_iter()
                    .chain(counts.next_expiry)
                    .min();
            } else {
                total.namespaces += 1;
            }
        }
        counted.insert((install, namespace), counts);
    }
    Ok(counted)
}

fn stored(
    connection: &Connection,
    tenant: TenantId,
) -> Result<BTreeMap<RowKey, Counts>, SqliteError> {
    const STORED: &str = "
        SELECT install_id, namespace, keys, bytes, namespaces, next_expiry
        FROM ext_storage_usage WHERE tenant_id = ?";
    connection
        .prepare_cached(STORED)?
        .query_and_then([tenant.as_bytes()], rows::counts)?
        .collect()
}

fn differences(
    tenant: TenantId,
    (install, namespace): &RowKey,
    stored: Option<Counts>,
    counted: Counts,
) -> Vec<Drift> {
    let drift = |counter, stored, counted| Drift {
        tenant_id: tenant,
        install_id: *install,
        namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
        counter,
        stored,
        counted,
    };
    let now = stored.unwrap_or_default();
    let mut drifts: Vec<Drift> = [
        (Counter::Keys, now.keys, counted.keys),
        (Counter::Bytes, now.bytes, counted.bytes),
        (Counter::Namespaces, now.namespaces, counted.namespaces),
    ]
    .into_iter()
    .filter(|(_, stored, counted)| stored != counted)
    .map(|(counter, was, counted)| drift(counter, stored.map(|_| was), Some(counted)))
    .collect();
    // Too early costs a look in vain; too late would leave expired records lying.
    if let Some(first) = counted.next_expiry
        && now.next_expiry.is_none_or(|next| next > first)
    {
        drifts.push(drift(Counter::NextExpiry, now.next_expiry, Some(first)));
    }
    drifts
}

/// Puts a row right. The floor of a row that was lost can't be known; above the greatest revision
/// there is, most guards that were taken before still fail.
fn mend(
    connection: &Connection,
    tenant: TenantId,
    (install, namespace): &RowKey,
    counted: Counts,
) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_usage
            (tenant_id, install_id, namespace, keys, bytes, namespaces, next_expiry, revision_floor)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (
            SELECT coalesce(max(revision), 0) FROM ext_storage_records
            WHERE tenant_id = ?1 AND install_id = ?2 AND namespace = ?3
        ))
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces,
            next_expiry = excluded.next_expiry";
    let install = install
        .as_ref()
        .map_or(&[][..], |install| install.as_bytes());
    connection.prepare_cached(UPSERT)?.execute(params![
        tenant.as_bytes(),
        install,
        namespace,
        counted.keys,
        counted.bytes,
        counted.namespaces,
        counted.next_expiry,
    ])?;
    Ok(())
}

/// Namespaces with records whose size was stored wrongly, and how many.
fn missized(connection: &Connection, tenant: TenantId) -> Result<Vec<Drift>, SqliteError> {
    const MISSIZED: &str = "
        SELECT install_id, namespace, count(*) AS keys, 0 AS bytes, 0 AS namespaces, NULL AS next_expiry
        FROM ext_storage_records
        WHERE tenant_id = ? AND bytes <> octet_length(value) + octet_length(metadata)
        GROUP BY install_id, namespace";
    wrong_records(connection, MISSIZED, tenant, Counter::MissizedRecords)
}

/// Namespaces with records that are not JSON, and how many.
fn malformed(connection: &Connection, tenant: TenantId) -> Result<Vec<Drift>, SqliteError> {
    const MALFORMED: &str = "
        SELECT install_id, namespace, count(*) AS keys, 0 AS bytes, 0 AS namespaces, NULL AS next_expiry
        FROM ext_storage_records
        WHERE tenant_id = ? AND encoding = 'json' AND NOT (json_valid(value) AND json_valid(metadata))
        GROUP BY install_id, namespace";
    wrong_records(connection, MALFORMED, tenant, Counter::MalformedRecords)
}

fn wrong_records(
    connection: &Connection,
    statement: &str,
    tenant: TenantId,
    counter: Counter,
) -> Result<Vec<Drift>, SqliteError> {
    let drift = |row: &Row<'_>| {
        let ((install_id, namespace), counts) = rows::counts(row)?;
        Ok(Drift {
            tenant_id: tenant,
            install_id,
            namespace: Some(namespace),
            counter,
            stored: Some(counts.keys),
            counted: Some(0),
        })
    };
    connection
        .prepare_cached(statement)?
        .query_and_then([tenant.as_bytes()], drift)?
        .collect()
}

fn mend_sizes(connection: &Connection, tenant: TenantId) -> Result<(), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_records SET bytes = octet_length(value) + octet_length(metadata)
        WHERE tenant_id = ? AND bytes <> octet_length(value) + octet_length(metadata)";
    connection
        .prepare_cached(UPDATE)?
        .execute([tenant.as_bytes()])?;
    Ok(())
}
