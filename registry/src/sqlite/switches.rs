//! Statements about the switches, which are one row or none.

use alga_model::Timestamp;
use sqlx::{SqliteConnection, SqliteExecutor};

use super::error::SqliteError;
use super::{audit, json_text, rows, signed};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::switches::{Switches, SwitchesEdit};

const FIND: &str = "SELECT storage, allowed_extensions, generation, updated_at
    FROM registry_switches WHERE id = 1";
const SAVE: &str = "INSERT INTO registry_switches
    (id, storage, allowed_extensions, generation, updated_at) VALUES (1, ?1, ?2, ?3, ?4)
    ON CONFLICT (id) DO UPDATE SET storage = excluded.storage,
        allowed_extensions = excluded.allowed_extensions, generation = excluded.generation,
        updated_at = excluded.updated_at";

#[tracing::instrument(level = "debug", name = "db.switches.find", skip_all)]
pub(super) async fn find(executor: impl SqliteExecutor<'_>) -> Result<Switches, SqliteError> {
    let row = sqlx::query(FIND).fetch_optional(executor).await?;
    row.as_ref()
        .map_or_else(|| Ok(Switches::default()), rows::switches)
}

/// Edits the switches in a transaction that the caller commits.
pub(super) async fn edit(
    tx: &mut SqliteConnection,
    edit: &SwitchesEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Switches, SqliteError> {
    let before = find(&mut *tx).await?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    save(&mut *tx, &after).await?;
    let entry = AuditEntry::switches_edited(edit, &before, &after);
    audit::record(tx, &entry, change).await?;
    Ok(after)
}

#[tracing::instrument(level = "debug", name = "db.switches.save", skip_all)]
async fn save(tx: &mut SqliteConnection, switches: &Switches) -> Result<(), SqliteError> {
    let allowed = switches.allowed_extensions.as_ref();
    sqlx::query(SAVE)
        .bind(switches.storage)
        .bind(allowed.map(json_text).transpose()?)
        .bind(signed(switches.generation)?)
        .bind(switches.updated_at.map(Timestamp::as_millis))
        .execute(tx)
        .await?;
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
