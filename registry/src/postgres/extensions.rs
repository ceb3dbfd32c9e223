//! Statements about extensions.

use alga_model::{ExtensionName, Timestamp};
use alga_postgres::Time;
use uuid::Uuid;

use super::error::PostgresError;
use super::session::Session;
use crate::extension::{Extension, ExtensionKey};
use crate::page::{Page, PageRequest};
use crate::rows;

/// Selects extensions as `rows::extension` reads them, followed by a literal condition.
macro_rules! select_extensions {
    ($condition:literal) => {
        concat!(
            "SELECT id, name, publisher, created_at FROM registry_extensions ",
            $condition
        )
    };
}

const BY_ID: &str = select_extensions!("WHERE id = $1");
const BY_NAME: &str = select_extensions!("WHERE name = $1");
const LOCK_ID: &str = select_extensions!("WHERE id = $1 FOR NO KEY UPDATE");
const LOCK_NAME: &str = select_extensions!("WHERE name = $1 FOR NO KEY UPDATE");
const PAGE: &str = select_extensions!("WHERE name > $1 ORDER BY name LIMIT $2");
const INSERT: &str = "INSERT INTO registry_extensions (id, name, publisher, created_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING";

#[tracing::instrument(level = "debug", name = "db.extensions.find", skip_all)]
pub(super) async fn find(
    session: &mut Session<'_>,
    key: &ExtensionKey,
) -> Result<Option<Extension>, PostgresError> {
    let by_key = match key {
        ExtensionKey::Id(id) => session.of(BY_ID).bind(id),
        ExtensionKey::Name(name) => session.of(BY_NAME).bind(name.as_str()),
    };
    session.find_one(by_key, rows::extension).await
}

#[tracing::instrument(level = "debug", name = "db.extensions.list", skip_all)]
pub(super) async fn list(
    session: &mut Session<'_>,
    page: &PageRequest<ExtensionName>,
) -> Result<Page<Extension, ExtensionName>, PostgresError> {
    let after = page.after.as_ref().map_or("", ExtensionName::as_str);
    let listing = session.of(PAGE).bind(after).bind(page.lookahead());
    let found = session.find_all(listing, rows::extension).await?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |extension: &Extension| extension.name.clone(),
    ))
}

/// The extension with this id, whose versions nobody else adds or removes meanwhile.
#[tracing::instrument(level = "debug", name = "db.extensions.lock", skip_all)]
pub(super) async fn locked(
    session: &mut Session<'_>,
    id: Uuid,
) -> Result<Option<Extension>, PostgresError> {
    let by_id = session.of(LOCK_ID).bind(id);
    session.find_one(by_id, rows::extension).await
}

/// The extension of this name, made for `publisher` where there is none, whose versions nobody else
/// adds or removes meanwhile.
#[tracing::instrument(level = "debug", name = "db.extensions.create", skip_all)]
pub(super) async fn locked_or_created(
    session: &mut Session<'_>,
    name: &ExtensionName,
    publisher: &str,
    now: Timestamp,
) -> Result<Extension, PostgresError> {
    // Extensions stay, so where making one fails it is there the second time.
    loop {
        let by_name = session.of(LOCK_NAME).bind(name.as_str());
        if let Some(extension) = session.find_one(by_name, rows::extension).await? {
            return Ok(extension);
        }
        let extension = Extension {
            id: Uuid::now_v7(),
            name: name.clone(),
            publisher: publisher.to_owned(),
            created_at: now,
        };
        let insert = session
            .of(INSERT)
            .bind(extension.id)
            .bind(name.as_str())
            .bind(publisher)
            .bind(Time(now));
        if session.execute(insert).await? == 1 {
            return Ok(extension);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::plan::Plans;

    #[tokio::test]
    async fn no_statement_scans() {
        let plans = Plans::new().await;
        for sql in [BY_ID, BY_NAME, LOCK_ID, LOCK_NAME, PAGE] {
            plans.assert_searches(sql).await;
        }
    }
}
