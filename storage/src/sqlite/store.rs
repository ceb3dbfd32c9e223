//! Stores what came of a group.

use std::collections::BTreeMap;

use alga_model::Timestamp;

use super::rows;
use super::script::{Insert, Script};
use super::state::{Content, Counted, Counters, Place, State, Stored};
use crate::contract::Key;

/// A record to store.
type Row<'s> = (&'s Key, &'s Stored, &'s Content);

/// Stores every record and counter of `state` that the group changed.
pub(super) fn state(script: &mut Script, state: &State) {
    // In the order of the table, where each row lies beside the one before.
    let mut records: BTreeMap<&Place, Vec<Row<'_>>> = BTreeMap::new();
    for (place, key, stored) in state.changed_records() {
        let Some(stored) = stored else {
            remove(script, place, key);
            continue;
        };
        // What was written has content; what was only loaded did not change.
        if let Some(content) = &stored.content {
            let of_place = records.entry(place).or_default();
            of_place.push((key, stored, content));
        }
    }
    upsert_records(script, records);
    upsert_counters(script, state.changed_counters());
}

fn upsert_records(script: &mut Script, records: BTreeMap<&Place, Vec<Row<'_>>>) {
    const UPSERT: Insert = Insert {
        into: "
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value) ",
        columns: 11,
        common_columns: 3,
        on_conflict: "
        ON CONFLICT DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            encoding = excluded.encoding, metadata = excluded.metadata, value = excluded.value",
    };
    let bind_place = |script: &mut Script, place: &&Place| {
        script
            .bind(place.tenant.as_bytes().as_slice())
            .bind(place.install.as_bytes().as_slice())
            .bind(place.namespace.as_str());
    };
    UPSERT.write(
        script,
        records,
        bind_place,
        |script, (key, stored, content)| {
            script
                .bind(key.as_str())
                .bind(rows::integer(stored.revision.get()))
                .bind(rows::integer(stored.bytes))
                .bind(stored.expires_at.map(Timestamp::as_millis))
                .bind(stored.created_at.as_millis())
                .bind(content.updated_at.as_millis())
                .bind(content.metadata.as_str())
                .bind(content.value.as_str());
        },
    );
}

fn upsert_counters<'s>(
    script: &mut Script,
    counters: impl Iterator<Item = (&'s Counted, &'s Counters)>,
) {
    const UPSERT: Insert = Insert {
        into: "
        INSERT INTO ext_storage_usage
            (tenant_id, install_id, namespace, keys, bytes, namespaces, revision_floor, change_seq, next_expiry) ",
        columns: 9,
        common_columns: 0,
        on_conflict: "
        ON CONFLICT DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, namespaces = excluded.namespaces,
            revision_floor = excluded.revision_floor, change_seq = excluded.change_seq,
            next_expiry = excluded.next_expiry",
    };
    let rows = counters.map(|row| ((), vec![row]));
    UPSERT.write(
        script,
        rows,
        |_, ()| {},
        |script, (counted, counters)| {
            let (tenant, install, namespace) = counted.row_key();
            script
                .bind(tenant)
                .bind(install)
                .bind(namespace)
                .bind(rows::integer(counters.keys))
                .bind(rows::integer(counters.bytes))
                .bind(rows::integer(counters.namespaces))
                .bind(rows::integer(counters.revision_floor))
                .bind(rows::integer(counters.change_seq))
                .bind(counters.next_expiry.map(Timestamp::as_millis));
        },
    );
}

fn remove(script: &mut Script, place: &Place, key: &Key) {
    const DELETE: &str = "
        DELETE FROM ext_storage_records
        WHERE tenant_id = ? AND install_id = ? AND namespace = ? AND key = ?";
    script
        .statement(DELETE)
        .bind(place.tenant.as_bytes().as_slice())
        .bind(place.install.as_bytes().as_slice())
        .bind(place.namespace.as_str())
        .bind(key.as_str());
}
