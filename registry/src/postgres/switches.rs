//! Statements about the switches, which are one row.

use alga_postgres::Time;

use super::error::PostgresError;
use super::session::{Session, bigint};
use super::{audit, changed};
use crate::audit::AuditEntry;
use crate::change::Change;
use crate::json;
use crate::listener::Changed;
use crate::rows;
use crate::switches::{Switches, SwitchesEdit};

/// Selects the switches as `rows::switches` reads them, followed by a literal clause.
macro_rules! select_switches {
    ($clause:literal) => {
        concat!(
            "SELECT storage, allowed_extensions::text AS allowed_extensions, generation, updated_at
            FROM registry_switches WHERE id = 1",
            $clause
        )
    };
}

const FIND: &str = select_switches!("");
/// Waits for whoever changes them, and keeps others from that.
const KEEP: &str = select_switches!(" FOR SHARE");
const LOCK: &str = select_switches!(" FOR NO KEY UPDATE");
const SAVE: &str = "INSERT INTO registry_switches
    (id, storage, allowed_extensions, generation, updated_at) VALUES (1, $1, $2::json, $3, $4)
    ON CONFLICT (id) DO UPDATE SET storage = excluded.storage,
        allowed_extensions = excluded.allowed_extensions, generation = excluded.generation,
        updated_at = excluded.updated_at";

#[tracing::instrument(level = "debug", name = "db.switches.find", skip_all)]
pub(super) async fn find(session: &mut Session<'_>) -> Result<Switches, PostgresError> {
    read(session, FIND).await
}

/// The switches, which nobody changes before the transaction ends.
#[tracing::instrument(level = "debug", name = "db.switches.keep", skip_all)]
pub(super) async fn kept(session: &mut Session<'_>) -> Result<Switches, PostgresError> {
    read(session, KEEP).await
}

/// Edits the switches in a transaction that the caller commits.
pub(super) async fn edit(
    session: &mut Session<'_>,
    edit: &SwitchesEdit,
    expected_generation: Option<u64>,
    change: Change<'_>,
) -> Result<Switches, PostgresError> {
    let before = read(session, LOCK).await?;
    let Some(after) = before.edited(edit, expected_generation, change.now)? else {
        return Ok(before);
    };
    save(session, &after).await?;
    let entry = AuditEntry::switches_edited(&before, &after);
    audit::record(session, &entry, change).await?;
    Ok(after)
}

async fn read(session: &mut Session<'_>, sql: &'static str) -> Result<Switches, PostgresError> {
    let switches = session.of(sql);
    let found = session.find_one(switches, rows::switches).await?;
    Ok(found.unwrap_or_default())
}

#[tracing::instrument(level = "debug", name = "db.switches.save", skip_all)]
async fn save(session: &mut Session<'_>, switches: &Switches) -> Result<(), PostgresError> {
    let allowed = switches.allowed_extensions.as_ref();
    let save = session
        .of(SAVE)
        .bind(switches.storage)
        .bind(allowed.map(json::text).transpose()?)
        .bind(bigint(switches.generation))
        .bind(switches.updated_at.map(Time));
    session.execute(save).await?;
    changed::tell(session, Changed::All).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn no_statement_scans() {
        let plans = Plans::new().await;
        for sql in [FIND, KEEP, LOCK] {
            plans.assert_searches(sql).await;
        }
    }
}
