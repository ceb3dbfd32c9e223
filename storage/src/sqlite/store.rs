//! Stores what came of a group.

use alga_model::Timestamp;
use rusqlite::{Connection, Statement, params};

use super::error::SqliteError;
use super::state::{Content, State, Stored};
use crate::contract::Key;

/// Stores every record and counter of `state` that the group changed, in the order of their tables,
/// where each row lies beside the one before.
pub(super) fn state(connection: &Connection, state: &State<'_>) -> Result<(), SqliteError> {
    records(connection, state)?;
    counters(connection, state)
}

fn records(connection: &Connection, state: &State<'_>) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            encoding = excluded.encoding, metadata = excluded.metadata, value = excluded.value";
    const DELETE: &str = "
        DELETE FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    let mut upsert = connection.prepare_cached(UPSERT)?;
    let mut delete = connection.prepare_cached(DELETE)?;
    for (place, records) in state.changed_records() {
        place.bind(&mut upsert)?;
        place.bind(&mut delete)?;
        for (key, stored) in records {
            let Some(stored) = stored else {
                delete.raw_bind_parameter(4, key.as_str())?;
                delete.raw_execute()?;
                continue;
            };
            // What was written has content; what was only loaded did not change.
            if let Some(content) = &stored.content {
                bind(&mut upsert, key, stored, content)?;
                upsert.raw_execute()?;
            }
        }
    }
    Ok(())
}

/// Binds what follows the columns that all records of a place share.
fn bind(
    upsert: &mut Statement<'_>,
    key: &Key,
    stored: &Stored<'_>,
    content: &Content<'_>,
) -> rusqlite::Result<()> {
    upsert.raw_bind_parameter(4, key.as_str())?;
    upsert.raw_bind_parameter(5, stored.revision.get())?;
    upsert.raw_bind_parameter(6, stored.bytes)?;
    upsert.raw_bind_parameter(7, stored.expires_at.map(Timestamp::as_millis))?;
    upsert.raw_bind_parameter(8, stored.created_at.as_millis())?;
    upsert.raw_bind_parameter(9, content.updated_at.as_millis())?;
    upsert.raw_bind_parameter(10, content.metadata.as_str())?;
    upsert.raw_bind_parameter(11, content.value.as_str())
}

fn counters(connection: &Connection, state: &State<'_>) -> Result<(), SqliteError> {
    const UPSERT: &str = "
        INSERT INTO ext_storage_usage
            (tenant_id, install_id, namespace, keys, bytes, namespaces, revision_floor, change_seq, next_expiry)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces,
            revision_floor = excluded.revision_floor, change_seq = excluded.change_seq,
            next_expiry = excluded.next_expiry";
    let mut upsert = connection.prepare_cached(UPSERT)?;
    for (counted, counters) in state.changed_counters() {
        let (tenant, install, namespace) = counted.row_key();
        upsert.execute(params![
            tenant,
            install,
            namespace,
            counters.keys,
            counters.bytes,
            counters.namespaces,
            counters.revision_floor,
            counters.change_seq,
            counters.next_expiry.map(Timestamp::as_millis),
        ])?;
    }
    Ok(())
}
