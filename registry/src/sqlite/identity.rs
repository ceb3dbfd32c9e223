//! The statement about which registry it is.

use rusqlite::Connection;
use uuid::Uuid;

use super::error::SqliteError;
use super::find_one;
use crate::rows;

const FIND: &str = "SELECT id FROM registry_identity WHERE row = 1";

#[tracing::instrument(level = "debug", name = "db.identity.find", skip_all)]
pub(super) fn find(connection: &Connection) -> Result<Uuid, SqliteError> {
    let found = find_one(connection, FIND, (), rows::identity)?;
    Ok(found.ok_or_else(rows::no_identity)?)
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
