//! Counts what counters should say.

use std::collections::{BTreeMap, BTreeSet};

use alga_model::{InstallId, TenantId};
use sqlx::SqliteConnection;

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
pub(super) async fn verify(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    repair: bool,
) -> Result<Vec<Drift>, SqliteError> {
    let mut drifts = missized(connection, tenant).await?;
    if repair && !drifts.is_empty() {
        mend_sizes(connection, tenant).await?;
    }
    let counted = count(connection, tenant).await?;
    let stored = stored(connection, tenant).await?;
    let all: BTreeSet<&RowKey> = counted.keys().chain(stored.keys()).collect();
    for key in all {
        let counted = counted.get(key).copied().unwrap_or_default();
        let of_row = differences(tenant, key, stored.get(key).copied(), counted);
        if repair && !of_row.is_empty() {
            mend(connection, tenant, key, counted).await?;
        }
        drifts.extend(of_row);
    }
    Ok(drifts)
}

/// What the counters should say, by the records.
async fn count(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<BTreeMap<RowKey, Counts>, SqliteError> {
    const COUNT: &str = "
        SELECT install_id, namespace, count(*) AS keys, sum(octet_length(value) + octet_length(metadata)) AS bytes,
               0 AS namespaces, min(expires_at) AS next_expiry
        FROM ext_storage_records WHERE tenant_id = ?
        GROUP BY install_id, namespace";
    let mut counted = BTreeMap::new();
    let found = sqlx::query(COUNT)
        .bind(tenant.as_bytes().as_slice())
        .fetch_all(connection)
        .await?;
    for row in &found {
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

async fn stored(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<BTreeMap<RowKey, Counts>, SqliteError> {
    const STORED: &str = "
        SELECT install_id, namespace, keys, bytes, namespaces, next_expiry
        FROM ext_storage_usage WHERE tenant_id = ?";
    sqlx::query(STORED)
        .bind(tenant.as_bytes().as_slice())
        .fetch_all(connection)
        .await?
        .iter()
        .map(rows::counts)
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
async fn mend(
    connection: &mut SqliteConnection,
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
    sqlx::query(UPSERT)
        .bind(tenant.as_bytes().as_slice())
        .bind(
            install
                .as_ref()
                .map_or(&[][..], |install| install.as_bytes()),
        )
        .bind(namespace)
        .bind(counted.keys)
        .bind(counted.bytes)
        .bind(counted.namespaces)
        .bind(counted.next_expiry)
        .execute(connection)
        .await?;
    Ok(())
}

/// Namespaces with records whose size was stored wrongly, and how many.
async fn missized(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<Drift>, SqliteError> {
    const MISSIZED: &str = "
        SELECT install_id, namespace, count(*) AS keys, 0 AS bytes, 0 AS namespaces, NULL AS next_expiry
        FROM ext_storage_records
        WHERE tenant_id = ? AND bytes <> octet_length(value) + octet_length(metadata)
        GROUP BY install_id, namespace";
    sqlx::query(MISSIZED)
        .bind(tenant.as_bytes().as_slice())
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| {
            let ((install_id, namespace), counts) = rows::counts(row)?;
            Ok(Drift {
                tenant_id: tenant,
                install_id,
                namespace: Some(namespace),
                counter: Counter::MissizedRecords,
                stored: Some(counts.keys),
                counted: Some(0),
            })
        })
        .collect()
}

async fn mend_sizes(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<(), SqliteError> {
    const UPDATE: &str = "
        UPDATE ext_storage_records SET bytes = octet_length(value) + octet_length(metadata)
        WHERE tenant_id = ? AND bytes <> octet_length(value) + octet_length(metadata)";
    sqlx::query(UPDATE)
        .bind(tenant.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}
