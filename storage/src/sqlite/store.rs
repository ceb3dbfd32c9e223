//! Writes what came of a group, many rows a statement.

use sqlx::query_builder::{QueryBuilder, Separated};
use sqlx::{Sqlite, SqliteConnection};

use alga_model::Timestamp;

use super::error::SqliteError;
use super::rows;
use super::state::{Content, Counted, Counters, Place, State, Stored};
use crate::contract::Key;

/// Rows of one statement, at most.
const MOST_ROWS: usize = 64;
/// Up to here there is a statement for every number of rows, beyond for powers of two only: what
/// is prepared must find its place in the driver's cache of a hundred statements.
const EVERY_NUMBER: usize = 8;

/// Stores every record and counter of `state` that the group changed.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    state: &State,
) -> Result<(), SqliteError> {
    let mut records = Vec::new();
    for (place, key, stored) in state.changed_records() {
        match stored.and_then(|stored| Some((stored, stored.content.as_ref()?))) {
            Some((stored, content)) => records.push((place, key, stored, content)),
            None => remove(connection, place, key).await?,
        }
    }
    upsert_records(connection, &records).await?;
    let counters: Vec<_> = state.changed_counters().collect();
    upsert_counters(connection, &counters).await
}

async fn upsert_records(
    connection: &mut SqliteConnection,
    records: &[(&Place, &Key, &Stored, &Content)],
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value) ";
    const OR_UPDATE: &str = "
        ON CONFLICT DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            metadata = excluded.metadata, value = excluded.value";
    write_rows(
        connection,
        (INSERT, OR_UPDATE),
        records,
        |row, (place, key, stored, content)| {
            row.push_bind(place.tenant.as_bytes().as_slice())
                .push_bind(place.install.as_bytes().as_slice())
                .push_bind(place.namespace.as_str())
                .push_bind(key.as_str())
                .push_bind(rows::integer(stored.revision.get()))
                .push_bind(rows::integer(stored.bytes))
                .push_bind(stored.expires_at.map(Timestamp::as_millis))
                .push_bind(stored.created_at.as_millis())
                .push_bind(content.updated_at.as_millis())
                .push_bind(content.metadata.as_str())
                .push_bind(content.value.as_str());
        },
    )
    .await
}

async fn upsert_counters(
    connection: &mut SqliteConnection,
    counters: &[(&Counted, &Counters)],
) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO ext_storage_usage
            (tenant_id, install_id, namespace, keys, bytes, namespaces, revision_floor, change_seq, next_expiry) ";
    const OR_UPDATE: &str = "
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces,
            revision_floor = excluded.revision_floor, change_seq = excluded.change_seq,
            next_expiry = excluded.next_expiry";
    write_rows(
        connection,
        (INSERT, OR_UPDATE),
        counters,
        |row, (counted, counters)| {
            let (tenant, install, namespace) = counted.row_key();
            row.push_bind(tenant)
                .push_bind(install)
                .push_bind(namespace)
                .push_bind(rows::integer(counters.keys))
                .push_bind(rows::integer(counters.bytes))
                .push_bind(rows::integer(counters.namespaces))
                .push_bind(rows::integer(counters.revision_floor))
                .push_bind(rows::integer(counters.change_seq))
                .push_bind(counters.next_expiry.map(Timestamp::as_millis));
        },
    )
    .await
}

async fn remove(
    connection: &mut SqliteConnection,
    place: &Place,
    key: &Key,
) -> Result<(), SqliteError> {
    const DELETE: &str = "DELETE FROM ext_storage_records WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    sqlx::query(DELETE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(key.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Runs an `INSERT` with as many rows at once as there are; `before` and `after` stand around the
/// rows.
pub(super) async fn write_rows<T>(
    connection: &mut SqliteConnection,
    (before, after): (&str, &str),
    mut rows: &[T],
    bind: impl Fn(&mut Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), SqliteError> {
    while let Some((some, others)) = rows.split_at_checked(rows_at_once(rows.len())) {
        if some.is_empty() {
            break;
        }
        let mut statement = QueryBuilder::new(before);
        statement.push_values(some, |mut row, values| bind(&mut row, values));
        statement.push(after);
        statement.build().execute(&mut *connection).await?;
        rows = others;
    }
    Ok(())
}

fn rows_at_once(rows: usize) -> usize {
    match rows {
        0..=EVERY_NUMBER => rows,
        MOST_ROWS.. => MOST_ROWS,
        _ => 1 << rows.ilog2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_statements_write_any_number_of_rows() {
        let sizes = |mut rows: usize| {
            let mut sizes = Vec::new();
            while rows > 0 {
                sizes.push(rows_at_once(rows));
                rows -= rows_at_once(rows);
            }
            sizes
        };
        assert_eq!(sizes(3), [3]);
        assert_eq!(sizes(20), [16, 4]);
        assert_eq!(sizes(100), [64, 32, 4]);
        let distinct: std::collections::BTreeSet<usize> = (1..1_000).flat_map(sizes).collect();
        assert_eq!(distinct.len(), 11);
    }
}
