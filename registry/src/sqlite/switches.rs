//! Statements about the switches, which are one row or none.

use alga_model::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::error::SqliteError;
use super::{audit, find_one};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::json;
use crate::rows;
use crate::switches::{Switches, SwitchesEdit};

const FIND: &str = "SELECT storage, allowed_extensions, generation, updated_at
    FROM registry_switches WHERE id = 1";
const SAVE: &str = "INSERT INTO registry_switches
    (id, storage, allowed_extensions, generation, updated_at) VALUES (1, ?1, ?2, ?3, ?4)
    ON CONFLICT (id) DO UPDATE SET storage = excluded.storage,
        allowed_extensions = excluded.allowed_extensions, generation = excluded.generation,
        updated_at = excluded.updated_at";

#[tracing::instrument(level = "debug", name = "db.switches.find", skip_all)]
pub(super) fn find(connection: &Connection) -> Result<Switches, SqliteError> {
    let found = find_one(connection, FIND, (), rows::switches)?;
    Ok(found.unwrap_or_default())
}

/// Edits the switches in a transaction that the caller commits.
pub(super) fn edit(
    tx: &Transaction<'_>,
    edit: &SwitchesEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Switches, SqliteError> {
    let before = find(tx)?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    save(tx, &after)?;
    let entry = AuditEntry::switches_edited(&before, &after);
    audit::record(tx, &entry, change)?;
    Ok(after)
}

#[tracing::instrument(level = "debug", name = "db.switches.save", skip_all)]
fn save(tx: &Transaction<'_>, switches: &Switches) -> Result<(), SqliteError> {
    let allowed = switches.allowed_extensions.as_ref();
    tx.prepare_cached(SAVE)?.execute(params![
        switches.storage,
        allowed.map(json::text).transpose()?,
        switches.generation,
        switches.updated_at.map(Timestamp::as_millis),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::assert_searches;

    #[tokio::test]
    async fn no_statement_scans() {
        assert_searches(FIND).await;
    }
}
