//! Reads what a group of writes concerns.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};

use super::counters::Counted;
use super::error::SqliteError;
use super::rows;
use super::state::{Place, State};
use super::writer::Job;
use crate::contract::Key;

/// What is read of a place: its keys, in the order of their table, and whether with their content.
#[derive(Debug, Default)]
struct Wanted<'g> {
    keys: BTreeSet<&'g Key>,
    content: bool,
}

/// Every counter and record that the group concerns.
pub(super) fn state(connection: &Connection, group: &[Job]) -> Result<State<'static>, SqliteError> {
    let mut state = State::default();
    let wanted = wanted_by(group);
    counters(connection, wanted.keys(), &mut state)?;
    for (place, wanted) in &wanted {
        records(connection, place, &wanted.keys, &mut state)?;
        if wanted.content {
            contents(connection, place, &wanted.keys, &mut state)?;
        }
    }
    Ok(state)
}

fn counters<'g>(
    connection: &Connection,
    places: impl Iterator<Item = &'g Place>,
    state: &mut State<'_>,
) -> Result<(), SqliteError> {
    const COUNTERS: &str = "
        SELECT keys, bytes, namespaces, revision_floor, change_seq, next_expiry
        FROM ext_storage_usage WHERE tenant_id = ? AND install_id = ? AND namespace = ?";
    let mut counters = connection.prepare_cached(COUNTERS)?;
    let counted: BTreeSet<Counted> = places.flat_map(Counted::of).collect();
    for counted in counted {
        let row = counters
            .query_row(counted.row_key(), |row| Ok(rows::counters(row)))
            .optional()?;
        if let Some(row) = row {
            state.load_counters(counted, row?);
        }
    }
    Ok(())
}

fn records(
    connection: &Connection,
    place: &Place,
    keys: &BTreeSet<&Key>,
    state: &mut State<'_>,
) -> Result<(), SqliteError> {
    const RECORD: &str = "
        SELECT revision, bytes, expires_at, created_at FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    // Fewer are found faster one by one.
    const MANY: usize = 8;
    let left = if keys.len() < MANY {
        keys.iter().copied().collect()
    } else {
        neighbours(connection, place, keys, state)?
    };
    if left.is_empty() {
        return Ok(());
    }
    let mut record = connection.prepare_cached(RECORD)?;
    each(&mut record, place, left.into_iter(), |key, row| {
        state.load_record(place, key.clone(), rows::stored(row)?);
        Ok(())
    })
}

/// Reads the records of keys that lie together, as those of a batch often do, in one go, and tells which
/// keys it did not get to: of what lies between them it reads no more than there are keys.
fn neighbours<'g>(
    connection: &Connection,
    place: &Place,
    keys: &BTreeSet<&'g Key>,
    state: &mut State<'_>,
) -> Result<Vec<&'g Key>, SqliteError> {
    const BETWEEN: &str = "
        SELECT revision, bytes, expires_at, created_at, key FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key BETWEEN ? AND ?
        ORDER BY key LIMIT ?";
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Ok(Vec::new());
    };
    let most = keys.len() * 2;
    let mut between = connection.prepare_cached(BETWEEN)?;
    let mut found = between.query(params![
        place.tenant.as_bytes(),
        place.install.as_bytes(),
        place.namespace.as_str(),
        first.as_str(),
        last.as_str(),
        most,
    ])?;
    let mut left = keys.iter().copied().peekable();
    for _ in 0..most {
        let Some(row) = found.next()? else {
            return Ok(Vec::new());
        };
        let key = rows::key(row)?;
        while left.next_if(|wanted| wanted.as_str() < key).is_some() {}
        if let Some(wanted) = left.next_if(|wanted| wanted.as_str() == key) {
            state.load_record(place, wanted.clone(), rows::stored(row)?);
        }
    }
    Ok(left.collect())
}

/// Reads what the records say, for the few writes that may have to answer with it.
fn contents(
    connection: &Connection,
    place: &Place,
    keys: &BTreeSet<&Key>,
    state: &mut State<'_>,
) -> Result<(), SqliteError> {
    const CONTENT: &str = "
        SELECT value, metadata, updated_at FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    let mut content = connection.prepare_cached(CONTENT)?;
    each(&mut content, place, keys.iter().copied(), |key, row| {
        state.load_content(place, key, rows::content(row)?);
        Ok(())
    })
}

/// Finds the row of each key, where there is one. What the keys have in common is bound once.
fn each<'g>(
    statement: &mut Statement<'_>,
    place: &Place,
    keys: impl Iterator<Item = &'g Key>,
    mut found: impl FnMut(&Key, &Row<'_>) -> Result<(), SqliteError>,
) -> Result<(), SqliteError> {
    place.bind(statement)?;
    for key in keys {
        statement.raw_bind_parameter(4, key.as_str())?;
        if let Some(row) = statement.raw_query().next()? {
            found(key, row)?;
        }
    }
    Ok(())
}

fn wanted_by(group: &[Job]) -> BTreeMap<Place, Wanted<'_>> {
    let mut wanted: BTreeMap<Place, Wanted<'_>> = BTreeMap::new();
    for job in group {
        let of_place = wanted.entry(job.place()).or_default();
        of_place.keys.extend(job.keys());
        of_place.content |= job.wants_content();
    }
    wanted
}
