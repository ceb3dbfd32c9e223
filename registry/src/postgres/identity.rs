//! The statement about which registry it is.

use uuid::Uuid;

use super::error::PostgresError;
use super::session::Session;
use crate::rows;

const FIND: &str = "SELECT id FROM registry_identity WHERE row = 1";

#[tracing::instrument(level = "debug", name = "db.identity.find", skip_all)]
pub(super) async fn find(session: &mut Session<'_>) -> Result<Uuid, PostgresError> {
    let identity = session.of(FIND);
    let found = session.find_one(identity, rows::identity).await?;
    Ok(found.ok_or_else(rows::no_identity)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn no_statement_scans() {
        Plans::new().await.assert_searches(FIND).await;
    }
}
