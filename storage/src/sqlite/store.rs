//! Writes what came of a group, many rows a statement.

use std::collections::BTreeMap;

use alga_model::Timestamp;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::error::SqliteError;
use super::rows;
use super::state::{Content, Counted, Counters, Place, State, Stored};
use crate::contract::Key;

/// Up to here there is a statement for every number of rows.
const EVERY_NUMBER: usize = 32;
/// Beyond, only for these, of which the last is the most.
const LARGER_NUMBERS: [usize; 2] = [64, 100];
/// From so many rows on, what they have in common is bound once. Fewer are not worth a statement of
/// their own.
pub(super) const WORTH_SHARING: usize = 4;

/// A statement whose parameters are being bound.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A record to store.
type Row<'s> = (&'s Key, &'s Stored, &'s Content);

/// Stores every record and counter of `state` that the group changed.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    state: &State,
) -> Result<(), SqliteError> {
    // In the order of the table, where each row lies beside the one before.
    let mut records: BTreeMap<&Place, Vec<Row<'_>>> = BTreeMap::new();
    for (place, key, stored) in state.changed_records() {
        match stored.and_then(|stored| Some((stored, stored.content.as_ref()?))) {
            Some((stored, content)) => {
                records
                    .entry(place)
                    .or_default()
                    .push((key, stored, content));
            }
            None => remove(connection, place, key).await?,
        }
    }
    upsert_records(connection, &records).await?;
    let counters: Vec<_> = state.changed_counters().collect();
    upsert_counters(connection, &counters).await
}

async fn upsert_records(
    connection: &mut SqliteConnection,
    records: &BTreeMap<&Place, Vec<Row<'_>>>,
) -> Result<(), SqliteError> {
    const UPSERT: Insert = Insert {
        into: "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value) ",
        columns: 11,
        on_conflict: "
        ON CONFLICT DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            metadata = excluded.metadata, value = excluded.value",
    };
    let mut scattered = Vec::new();
    for (place, records) in records {
        if records.len() < WORTH_SHARING {
            scattered.extend(records.iter().map(|record| (*place, record)));
        } else {
            UPSERT
                .rows_with_common(connection, (place, 3), records, bind_place, bind_record)
                .await?;
        }
    }
    UPSERT
        .rows(connection, &scattered, |statement, (place, record)| {
            bind_record(bind_place(statement, place), record)
        })
        .await
}

fn bind_place<'q>(statement: Statement<'q>, place: &'q &Place) -> Statement<'q> {
    statement
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
}

fn bind_record<'q>(statement: Statement<'q>, (key, stored, content): &'q Row<'_>) -> Statement<'q> {
    statement
        .bind(key.as_str())
        .bind(rows::integer(stored.revision.get()))
        .bind(rows::integer(stored.bytes))
        .bind(stored.expires_at.map(Timestamp::as_millis))
        .bind(stored.created_at.as_millis())
        .bind(content.updated_at.as_millis())
        .bind(content.metadata.as_str())
        .bind(content.value.as_str())
}

async fn upsert_counters(
    connection: &mut SqliteConnection,
    counters: &[(&Counted, &Counters)],
) -> Result<(), SqliteError> {
    const UPSERT: Insert = Insert {
        into: "
        INSERT INTO ext_storage_usage
            (tenant_id, install_id, namespace, keys, bytes, namespaces, revision_floor, change_seq, next_expiry) ",
        columns: 9,
        on_conflict: "
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces,
            revision_floor = excluded.revision_floor, change_seq = excluded.change_seq,
            next_expiry = excluded.next_expiry",
    };
    UPSERT
        .rows(connection, counters, |statement, (counted, counters)| {
            let (tenant, install, namespace) = counted.row_key();
            statement
                .bind(tenant)
                .bind(install)
                .bind(namespace)
                .bind(rows::integer(counters.keys))
                .bind(rows::integer(counters.bytes))
                .bind(rows::integer(counters.namespaces))
                .bind(rows::integer(counters.revision_floor))
                .bind(rows::integer(counters.change_seq))
                .bind(counters.next_expiry.map(Timestamp::as_millis))
        })
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

/// An `INSERT` of many rows.
pub(super) struct Insert {
    /// Everything before the rows.
    pub(super) into: &'static str,
    /// How many columns a row has.
    pub(super) columns: usize,
    /// Everything after the rows.
    pub(super) on_conflict: &'static str,
}

impl Insert {
    /// Inserts rows.
    pub(super) async fn rows<R>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[R],
        bind: impl for<'q> Fn(Statement<'q>, &'q R) -> Statement<'q>,
    ) -> Result<(), SqliteError> {
        while !rows.is_empty() {
            let (some, others) = split(rows);
            let values = values(self.columns, some.len());
            let text = [self.into, &values, self.on_conflict].concat();
            let mut statement = sqlx::query(AssertSqlSafe(text));
            for row in some {
                statement = bind(statement, row);
            }
            statement.execute(&mut *connection).await?;
            rows = others;
        }
        Ok(())
    }

    /// Inserts rows whose first columns are the same.
    ///
    /// Binding is much of the cost of a row. What the rows have in common is bound once, and the
    /// database multiplies it with them.
    pub(super) async fn rows_with_common<C, R>(
        &self,
        connection: &mut SqliteConnection,
        (common, common_columns): (&C, usize),
        mut rows: &[R],
        bind_common: impl for<'q> Fn(Statement<'q>, &'q C) -> Statement<'q>,
        bind: impl for<'q> Fn(Statement<'q>, &'q R) -> Statement<'q>,
    ) -> Result<(), SqliteError> {
        let of_all = values(common_columns, 1);
        while !rows.is_empty() {
            let (some, others) = split(rows);
            let of_each = values(self.columns.saturating_sub(common_columns), some.len());
            let (into, on_conflict) = (self.into, self.on_conflict);
            // Without a WHERE, ON would belong to the join.
            let text = [
                into,
                "SELECT * FROM (",
                &of_all,
                ") CROSS JOIN (",
                &of_each,
                ") WHERE true",
                on_conflict,
            ]
            .concat();
            let mut statement = bind_common(sqlx::query(AssertSqlSafe(text)), common);
            for row in some {
                statement = bind(statement, row);
            }
            statement.execute(&mut *connection).await?;
            rows = others;
        }
        Ok(())
    }
}

/// `VALUES` with a parameter for each column of each row.
fn values(columns: usize, rows: usize) -> String {
    let row = format!("({}?)", "?, ".repeat(columns.saturating_sub(1)));
    let others = format!(", {row}").repeat(rows.saturating_sub(1));
    format!("VALUES {row}{others}")
}

/// The rows of the next statement, and the others. There are few different numbers of rows, because
/// what is prepared must find its place in the cache of the connection.
fn split<R>(rows: &[R]) -> (&[R], &[R]) {
    let at_once = match rows.len() {
        few @ 0..=EVERY_NUMBER => few,
        many => LARGER_NUMBERS
            .into_iter()
            .rfind(|number| *number <= many)
            .unwrap_or(EVERY_NUMBER),
    };
    rows.split_at(at_once)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_statements_write_any_number_of_rows() {
        let sizes = |rows: usize| {
            let rows = vec![(); rows];
            let mut left = rows.as_slice();
            let mut sizes = Vec::new();
            while !left.is_empty() {
                let (some, others) = split(left);
                sizes.push(some.len());
                left = others;
            }
            sizes
        };
        assert_eq!(sizes(3), [3]);
        assert_eq!(sizes(20), [20]);
        assert_eq!(sizes(50), [32, 18]);
        assert_eq!(sizes(100), [100]);
        assert_eq!(sizes(205), [100, 100, 5]);
        let distinct: std::collections::BTreeSet<usize> = (1..1_000).flat_map(sizes).collect();
        assert_eq!(distinct.len(), EVERY_NUMBER + LARGER_NUMBERS.len());
    }
}
