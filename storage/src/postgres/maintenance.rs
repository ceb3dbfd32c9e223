//! What an operator asks of the database.

use std::collections::BTreeMap;

use alga_model::{InstallId, TenantId, Timestamp};
use alga_postgres::{Statements, Time};
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::error::PostgresError;
use super::rows::{self, ANSWERS, AUDIT, RECORDS, USAGE};
use super::{PostgresBackend, read};
use crate::error::Error;
use crate::maintenance::{AuditFilter, AuditRecord, Counter, Drift, Holding, Maintenance, Removed};
use crate::told;

/// Namespaces whose tenants are tried before a sweep gives up: some may be swept by another process.
const NAMESPACES_TRIED: i64 = 256;

#[async_trait]
impl Maintenance for PostgresBackend {
    async fn remove_expired(&self, limit: u32) -> Result<Removed, Error> {
        let now = self.now();
        let due = self
            .read(async |connection, sent| due_tenants(connection, sent, now).await)
            .await?;
        for (nth, tenant) in due.iter().enumerate() {
            let mut removed = self
                .write(async |connection, sent| sweep(connection, sent, *tenant, limit, now).await)
                .await?;
            if removed.records > 0 || removed.more {
                removed.more |= nth + 1 < due.len();
                told::removed("sweep", removed);
                return Ok(removed);
            }
        }
        Ok(Removed::default())
    }

    async fn remove_audit(&self, before: Timestamp, limit: u32) -> Result<Removed, Error> {
        let old = self
            .read(async |connection, sent| old_audit(connection, sent, before, limit).await)
            .await?;
        let found = old.values().map(Vec::len).sum::<usize>();
        let mut removed = Removed {
            more: u32::try_from(found).unwrap_or(u32::MAX) >= limit,
            ..Removed::default()
        };
        // Of each tenant by itself, as each may be somewhere else.
        for (tenant, ids) in old {
            removed.records += self
                .write(async |connection, sent| remove_audit(connection, sent, tenant, &ids).await)
                .await?;
        }
        Ok(removed)
    }

    async fn remove_answers(&self, limit: u32) -> Result<Removed, Error> {
        let now = self.now();
        let old = self
            .read(async |connection, sent| old_answers(connection, sent, now, limit).await)
            .await?;
        let found = old.values().map(Vec::len).sum::<usize>();
        let mut removed = Removed {
            more: u32::try_from(found).unwrap_or(u32::MAX) >= limit,
            ..Removed::default()
        };
        for (tenant, ids) in old {
            removed.records += self
                .write(async |connection, sent| {
                    remove_answers(connection, sent, tenant, &ids).await
                })
                .await?;
        }
        Ok(removed)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, Error> {
        let reading =
            self.read(async |connection, sent| audit(connection, sent, filter, after, limit).await);
        Ok(reading.await?)
    }

    async fn tenants(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<TenantId>, Error> {
        let reading =
            self.read(async |connection, sent| read::tenants(connection, sent, after, limit).await);
        Ok(reading.await?)
    }

    async fn holdings(&self, tenant: TenantId) -> Result<Vec<Holding>, Error> {
        let reading =
            self.read(async |connection, sent| read::holdings(connection, sent, tenant).await);
        Ok(reading.await?)
    }

    async fn verify_usage(&self, tenant: TenantId, repair: bool) -> Result<Vec<Drift>, Error> {
        let sent = self.database.statements();
        // A tenant may hold more than is counted in the time of a statement.
        let verifying = self
            .database
            .write_unhurried(async |connection: &mut PgConnection| {
                verify(connection, sent, tenant, repair).await
            });
        Ok(verifying.await?)
    }
}

/// Tenants that may hold expired records, those that have waited longest first.
async fn due_tenants(
    connection: &mut PgConnection,
    statements: Statements,
    now: Option<Time>,
) -> Result<Vec<TenantId>, PostgresError> {
    const DUE: &str = "
        SELECT tenant_id FROM ext_storage_usage
        WHERE next_expiry <= coalesce($1, statement_timestamp())
        ORDER BY next_expiry LIMIT $2";
    let due = statements.of(DUE).bind(now).bind(NAMESPACES_TRIED);
    let mut tenants = Vec::new();
    for row in &due.fetch_all(connection).await? {
        let tenant = TenantId::new(USAGE.id(row, "tenant_id")?);
        if !tenants.contains(&tenant) {
            tenants.push(tenant);
        }
    }
    Ok(tenants)
}

/// Removes expired records of a tenant, unless another process does.
async fn sweep(
    connection: &mut PgConnection,
    statements: Statements,
    tenant: TenantId,
    limit: u32,
    now: Option<Time>,
) -> Result<Removed, PostgresError> {
    const SWEEP: &str = "
        SELECT removed_records, removed_bytes, more FROM ext_storage_sweep_1($1, $2, p_now => $3)";
    let row = statements
        .of(SWEEP)
        .bind(tenant.as_uuid())
        .bind(i64::from(limit))
        .bind(now)
        .fetch_one(connection)
        .await?;
    Ok(Removed {
        records: RECORDS.count(&row, "removed_records")?,
        bytes: RECORDS.count(&row, "removed_bytes")?,
        more: RECORDS.get(&row, "more")?,
    })
}

/// The records of at most `limit` rows in the order of time.
async fn audit(
    connection: &mut PgConnection,
    statements: Statements,
    filter: &AuditFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<AuditRecord>, PostgresError> {
    // Ids begin with their time, so that a range of time is a range of ids.
    const OF_ALL: &str = "
        SELECT audit_id, at, tenant_id, install_id, extension, namespace, operation, actor, request_id,
               records, bytes, changes::text AS changes
        FROM ext_storage_audit
        WHERE audit_id > $1 AND audit_id < $2 AND ($3 IS NULL OR install_id = $3)
        ORDER BY audit_id LIMIT $4";
    const OF_TENANT: &str = "
        SELECT audit_id, at, tenant_id, install_id, extension, namespace, operation, actor, request_id,
               records, bytes, changes::text AS changes
        FROM ext_storage_audit
        WHERE audit_id > $1 AND audit_id < $2 AND ($3 IS NULL OR install_id = $3) AND tenant_id = $5
        ORDER BY audit_id LIMIT $4";
    let from = after.max(filter.since.map(first_id_at));
    let until = filter.until.map_or(Uuid::max(), first_id_at);
    let reading = statements
        .of(filter.tenant.map_or(OF_ALL, |_| OF_TENANT))
        .bind(from.unwrap_or(Uuid::nil()))
        .bind(until)
        .bind(filter.install.as_ref().map(InstallId::as_uuid))
        .bind(i64::from(limit));
    let reading = match &filter.tenant {
        Some(tenant) => reading.bind(tenant.as_uuid()),
        None => reading,
    };
    let mut records = Vec::new();
    for row in &reading.fetch_all(connection).await? {
        records.extend(rows::audit_records(row)?);
    }
    Ok(records)
}

/// The oldest rows from before `before`, by tenant.
async fn old_audit(
    connection: &mut PgConnection,
    statements: Statements,
    before: Timestamp,
    limit: u32,
) -> Result<BTreeMap<TenantId, Vec<Uuid>>, PostgresError> {
    const OLD: &str = "
        SELECT tenant_id, audit_id FROM ext_storage_audit
        WHERE audit_id < $1 ORDER BY audit_id LIMIT $2";
    let old = statements
        .of(OLD)
        .bind(first_id_at(before))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let mut by_tenant: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in &old {
        let tenant = TenantId::new(AUDIT.id(row, "tenant_id")?);
        by_tenant
            .entry(tenant)
            .or_default()
            .push(AUDIT.id(row, "audit_id")?);
    }
    Ok(by_tenant)
}

/// Removes rows of a tenant, and tells how many changes they told of.
async fn remove_audit(
    connection: &mut PgConnection,
    statements: Statements,
    tenant: TenantId,
    ids: &[Uuid],
) -> Result<u64, PostgresError> {
    const REMOVE: &str = "
        WITH removed AS (
            DELETE FROM ext_storage_audit WHERE tenant_id = $1 AND audit_id = ANY ($2)
            RETURNING CASE WHEN changes IS NULL THEN 1 ELSE records END AS records
        )
        SELECT coalesce(sum(records), 0)::bigint AS records FROM removed";
    let removing = statements.of(REMOVE).bind(tenant.as_uuid()).bind(ids);
    AUDIT.count(&removing.fetch_one(connection).await?, "records")
}

/// The oldest answers whose time is over, by tenant.
async fn old_answers(
    connection: &mut PgConnection,
    statements: Statements,
    now: Option<Time>,
    limit: u32,
) -> Result<BTreeMap<TenantId, Vec<(Uuid, Uuid)>>, PostgresError> {
    const OLD: &str = "
        SELECT tenant_id, install_id, operation_id FROM ext_storage_idempotency
        WHERE expires_at <= coalesce($1, statement_timestamp()) ORDER BY expires_at LIMIT $2";
    let old = statements.of(OLD).bind(now);
    let mut by_tenant = BTreeMap::<_, Vec<_>>::new();
    for row in &old.bind(i64::from(limit)).fetch_all(connection).await? {
        let tenant = TenantId::new(ANSWERS.id(row, "tenant_id")?);
        let id = (
            ANSWERS.id(row, "install_id")?,
            ANSWERS.id(row, "operation_id")?,
        );
        by_tenant.entry(tenant).or_default().push(id);
    }
    Ok(by_tenant)
}

async fn remove_answers(
    connection: &mut PgConnection,
    statements: Statements,
    tenant: TenantId,
    ids: &[(Uuid, Uuid)],
) -> Result<u64, PostgresError> {
    const REMOVE: &str = "
        DELETE FROM ext_storage_idempotency AS i USING unnest($2::uuid[], $3::uuid[]) AS o (install_id, operation_id)
        WHERE i.tenant_id = $1 AND i.install_id = o.install_id AND i.operation_id = o.operation_id";
    let (installs, operations): (Vec<_>, Vec<_>) = ids.iter().copied().unzip();
    let removing = statements.of(REMOVE).bind(tenant.as_uuid());
    let removed = removing.bind(installs).bind(operations);
    Ok(removed.execute(connection).await?.rows_affected())
}

async fn verify(
    connection: &mut PgConnection,
    statements: Statements,
    tenant: TenantId,
    repair: bool,
) -> Result<Vec<Drift>, PostgresError> {
    const VERIFY: &str = "
        SELECT install_id, namespace, counter, stored, counted FROM ext_storage_verify_1($1, $2)";
    let verifying = statements.of(VERIFY).bind(tenant.as_uuid()).bind(repair);
    let mut drifts = Vec::new();
    for row in &verifying.fetch_all(connection).await? {
        let install = USAGE.id(row, "install_id")?;
        let namespace: String = USAGE.get(row, "namespace")?;
        drifts.push(Drift {
            tenant_id: tenant,
            install_id: (!install.is_nil()).then(|| InstallId::new(install)),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            counter: counter(USAGE.get(row, "counter")?)?,
            stored: USAGE.get(row, "stored")?,
            counted: USAGE.get(row, "counted")?,
        });
    }
    Ok(drifts)
}

fn counter(name: &str) -> Result<Counter, PostgresError> {
    Ok(match name {
        "keys" => Counter::Keys,
        "bytes" => Counter::Bytes,
        "reserved" => Counter::Reserved,
        "namespaces" => Counter::Namespaces,
        "nextExpiry" => Counter::NextExpiry,
        "missizedRecords" => Counter::MissizedRecords,
        _ => return Err(PostgresError::Nonsense(name.to_owned())),
    })
}

/// Before every id that was given at `time` or later, after every one from before (RFC 9562, 5.7).
fn first_id_at(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(time.as_millis().unsigned_abs()) << 80)
}
