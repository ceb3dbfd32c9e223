//! Reads what a group of writes concerns: two statements, whatever the group.

use std::collections::{HashMap, HashSet};

use sqlx::SqliteConnection;

use super::error::SqliteError;
use super::rows;
use super::state::{Counted, Place, State};
use super::writer::Job;
use crate::contract::Key;

/// What is read of a place: its keys, and whether with their content.
#[derive(Debug, Default)]
struct Wanted<'g> {
    keys: HashSet<&'g Key>,
    content: bool,
}

/// Every counter and record that the group concerns.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    group: &[Job],
) -> Result<State, SqliteError> {
    let mut wanted: HashMap<Place, Wanted<'_>> = HashMap::new();
    for job in group {
        let of_place = wanted.entry(job.place()).or_default();
        of_place.keys.extend(job.keys());
        of_place.content |= job.wants_content();
    }
    let mut state = State::default();
    load_counters(connection, wanted.keys(), &mut state).await?;
    load_records(connection, &wanted, &mut state).await?;
    Ok(state)
}

async fn load_counters(
    connection: &mut SqliteConnection,
    places: impl Iterator<Item = &Place>,
    state: &mut State,
) -> Result<(), SqliteError> {
    const COUNTERS: &str = "
        SELECT wanted.key AS place, u.keys, u.bytes, u.namespaces, u.revision_floor, u.change_seq, u.next_expiry
        FROM json_each(?) AS wanted
        CROSS JOIN ext_storage_usage AS u
          ON u.tenant_id = unhex(wanted.value ->> 0)
         AND u.install_id = unhex(wanted.value ->> 1)
         AND u.namespace = wanted.value ->> 2";
    let counted: HashSet<Counted> = places.flat_map(Place::counted).collect();
    let counted: Vec<Counted> = counted.into_iter().collect();
    let found = sqlx::query(COUNTERS)
        .bind(rows::json(counted.iter().map(Counted::to_json)))
        .fetch_all(connection)
        .await?;
    for row in &found {
        let counted = rows::wanted(row, &counted)?;
        state.load_counters(counted.clone(), rows::counters(row)?);
    }
    Ok(())
}

async fn load_records(
    connection: &mut SqliteConnection,
    wanted: &HashMap<Place, Wanted<'_>>,
    state: &mut State,
) -> Result<(), SqliteError> {
    const RECORDS: &str = "
        SELECT place.key AS place, r.key, r.revision, r.bytes, r.expires_at, r.created_at, r.updated_at,
               iif(place.value ->> 4, r.value, NULL) AS value,
               iif(place.value ->> 4, r.metadata, NULL) AS metadata
        FROM json_each(?) AS place
        CROSS JOIN json_each(place.value, '$[3]') AS wanted
        CROSS JOIN ext_storage_records AS r
          ON r.tenant_id = unhex(place.value ->> 0)
         AND r.install_id = unhex(place.value ->> 1)
         AND r.namespace = place.value ->> 2
         AND r.key = wanted.value";
    let places: Vec<&Place> = wanted.keys().collect();
    let wanted = wanted.iter().map(|(place, wanted)| {
        let keys: Vec<&str> = wanted.keys.iter().map(|key| key.as_str()).collect();
        (
            rows::hex(place.tenant.as_bytes()),
            rows::hex(place.install.as_bytes()),
            place.namespace.as_str(),
            keys,
            wanted.content,
        )
    });
    let found = sqlx::query(RECORDS)
        .bind(rows::json(wanted))
        .fetch_all(connection)
        .await?;
    for row in &found {
        let (key, stored) = rows::stored(row)?;
        state.load_record(rows::wanted(row, &places)?, key, stored);
    }
    Ok(())
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
