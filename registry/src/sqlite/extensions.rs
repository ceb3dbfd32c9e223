//! Statements about extensions.

use alga_model::{ExtensionName, Timestamp};
use sqlx::{SqliteConnection, SqliteExecutor};
use uuid::Uuid;

use super::error::SqliteError;
use super::{lookahead, rows};
use crate::extension::{Extension, ExtensionKey};
use crate::page::{Page, PageRequest};

const BY_ID: &str = "SELECT id, name, publisher, created_at FROM registry_extensions WHERE id = ?1";
const BY_NAME: &str =
    "SELECT id, name, publisher, created_at FROM registry_extensions WHERE name = ?1";
const PAGE: &str = "SELECT id, name, publisher, created_at FROM registry_extensions
    WHERE name > ?1 ORDER BY name LIMIT ?2";
const INSERT: &str =
    "INSERT INTO registry_extensions (id, name, publisher, created_at) VALUES (?1, ?2, ?3, ?4)";

#[tracing::instrument(level = "debug", name = "db.extensions.find", skip_all)]
pub(super) async fn find(
    executor: impl SqliteExecutor<'_>,
    key: &ExtensionKey,
) -> Result<Option<Extension>, SqliteError> {
    let query = match key {
        ExtensionKey::Id(id) => sqlx::query(BY_ID).bind(id.as_bytes().as_slice()),
        ExtensionKey::Name(name) => sqlx::query(BY_NAME).bind(name.as_str()),
    };
    query
        .fetch_optional(executor)
        .await?
        .as_ref()
        .map(rows::extension)
        .transpose()
}

#[tracing::instrument(level = "debug", name = "db.extensions.list", skip_all)]
pub(super) async fn list(
    executor: impl SqliteExecutor<'_>,
    page: PageRequest<ExtensionName>,
) -> Result<Page<Extension, ExtensionName>, SqliteError> {
    let after = page.after.as_ref().map_or("", ExtensionName::as_str);
    let rows = sqlx::query(PAGE)
        .bind(after)
        .bind(lookahead(page.limit))
        .fetch_all(executor)
        .await?;
    let found = rows.iter().map(rows::extension).collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |extension: &Extension| extension.name.clone(),
    ))
}

#[tracing::instrument(level = "debug", name = "db.extensions.create", skip_all)]
pub(super) async fn create(
    tx: &mut SqliteConnection,
    name: &ExtensionName,
    publisher: &str,
    now: Timestamp,
) -> Result<Extension, SqliteError> {
    let id = Uuid::now_v7();
    sqlx::query(INSERT)
        .bind(id.as_bytes().as_slice())
        .bind(name.as_str())
        .bind(publisher)
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(Extension {
        id,
        name: name.clone(),
        publisher: publisher.to_owned(),
        created_at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::plan::assert_searches;

    #[tokio::test]
    async fn no_statement_scans() {
        for sql in [BY_ID, BY_NAME, PAGE] {
            assert_searches(sql).await;
        }
    }
}
