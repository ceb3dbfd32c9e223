//! Reads what a group of writes concerns: one round trip, whatever the group.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::SqliteConnection;

use super::error::SqliteError;
use super::rows;
use super::state::{Counted, Place, State};
use super::writer::Job;
use crate::contract::Key;

/// What is read of a place: its keys, and whether with their content.
#[derive(Debug, Default)]
struct Wanted<'g> {
    /// In order, so that each lies near the one before.
    keys: BTreeSet<&'g Key>,
    content: bool,
}

/// Every counter and record that the group concerns, in one round trip.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    group: &[Job],
) -> Result<State, SqliteError> {
    // One row of JSON: making rows costs more than all else in this statement. Parameters are read
    // once each: a materialized table is not computed again for every record.
    const STATE: &str = "
        WITH place AS MATERIALIZED (
            SELECT key AS number, unhex(value ->> 0) AS tenant, unhex(value ->> 1) AS install,
                   value ->> 2 AS namespace, value -> 3 AS keys
            FROM json_each(?)
        )
        SELECT (
            SELECT json_group_array(json_array(
                wanted.key, u.keys, u.bytes, u.namespaces, u.revision_floor, u.change_seq, u.next_expiry))
            FROM json_each(?) AS wanted
            CROSS JOIN ext_storage_usage AS u
              ON u.tenant_id = unhex(wanted.value ->> 0)
             AND u.install_id = unhex(wanted.value ->> 1)
             AND u.namespace = wanted.value ->> 2
        ) AS counters, (
            SELECT json_group_array(json_array(
                place.number, r.key, r.revision, r.bytes, r.expires_at, r.created_at))
            FROM place
            CROSS JOIN json_each(place.keys) AS wanted
            CROSS JOIN ext_storage_records AS r
              ON r.tenant_id = place.tenant AND r.install_id = place.install
             AND r.namespace = place.namespace AND r.key = wanted.value
        ) AS records";
    let wanted = wanted_by(group);
    let counted: HashSet<Counted> = wanted.keys().flat_map(Place::counted).collect();
    let counted: Vec<Counted> = counted.into_iter().collect();
    let places: Vec<&Place> = wanted.keys().collect();
    let row = sqlx::query(STATE)
        .bind(rows::json(wanted.iter().map(Wanted::to_json)))
        .bind(rows::json(counted.iter().map(Counted::to_json)))
        .fetch_one(&mut *connection)
        .await?;
    let mut state = State::default();
    for (number, counters) in rows::loaded_counters(&row)? {
        if let Some(counted) = counted.get(number) {
            state.load_counters(counted.clone(), counters);
        }
    }
    for (number, key, stored) in rows::loaded_records(&row)? {
        if let Some(place) = places.get(number) {
            state.load_record(place, key, stored);
        }
    }
    for (place, wanted) in &wanted {
        if wanted.content {
            load_content(connection, place, wanted, &mut state).await?;
        }
    }
    Ok(state)
}

/// Reads what the records say, for the few writes that may have to answer with it.
async fn load_content(
    connection: &mut SqliteConnection,
    place: &Place,
    wanted: &Wanted<'_>,
    state: &mut State,
) -> Result<(), SqliteError> {
    const CONTENT: &str = "
        SELECT key, value, metadata, updated_at
        FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key IN (SELECT value FROM json_each(?))";
    let found = sqlx::query(CONTENT)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(rows::json_array(wanted.keys.iter().copied()))
        .fetch_all(connection)
        .await?;
    for row in &found {
        let (key, content) = rows::content(row)?;
        state.load_content(place, &key, content);
    }
    Ok(())
}

fn wanted_by(group: &[Job]) -> HashMap<Place, Wanted<'_>> {
    let mut wanted: HashMap<Place, Wanted<'_>> = HashMap::new();
    for job in group {
        let of_place = wanted.entry(job.place()).or_default();
        of_place.keys.extend(job.keys());
        of_place.content |= job.wants_content();
    }
    wanted
}

impl Wanted<'_> {
    /// Place and keys, as the statement above reads them.
    fn to_json<'w>(
        (place, wanted): (&'w Place, &'w Self),
    ) -> (String, String, &'w str, Vec<&'w str>) {
        (
            rows::hex(place.tenant.as_bytes()),
            rows::hex(place.install.as_bytes()),
            place.namespace.as_str(),
            wanted.keys.iter().map(|key| key.as_str()).collect(),
        )
    }
}

impl Place {
    /// What a write to this place is counted by.
    fn counted(&self) -> [Counted; 3] {
        [
            Counted::Tenant(self.tenant),
            Counted::Install(self.tenant, self.install),
            Counted::Namespace(self.clone()),
        ]
    }
}

impl Counted {
    /// The key of its row, as the statement above reads it.
    fn to_json(&self) -> (String, String, &str) {
        let (tenant, install, namespace) = self.row_key();
        (rows::hex(tenant), rows::hex(install), namespace)
    }
}
