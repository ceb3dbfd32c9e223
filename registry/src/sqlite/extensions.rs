//! Statements about extensions.

use alga_model::{ExtensionName, Timestamp};
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::error::SqliteError;
use super::{find_all, find_one};
use crate::extension::{Extension, ExtensionKey};
use crate::page::{Page, PageRequest};
use crate::rows;

const BY_ID: &str = "SELECT id, name, publisher, created_at FROM registry_extensions WHERE id = ?1";
const BY_NAME: &str =
    "SELECT id, name, publisher, created_at FROM registry_extensions WHERE name = ?1";
const PAGE: &str = "SELECT id, name, publisher, created_at FROM registry_extensions
    WHERE name > ?1 ORDER BY name LIMIT ?2";
const INSERT: &str =
    "INSERT INTO registry_extensions (id, name, publisher, created_at) VALUES (?1, ?2, ?3, ?4)";

#[tracing::instrument(level = "debug", name = "db.extensions.find", skip_all)]
pub(super) fn find(
    connection: &Connection,
    key: &ExtensionKey,
) -> Result<Option<Extension>, SqliteError> {
    match key {
        ExtensionKey::Id(id) => find_one(connection, BY_ID, [id.as_bytes()], rows::extension),
        ExtensionKey::Name(name) => find_one(connection, BY_NAME, [name.as_str()], rows::extension),
    }
}

#[tracing::instrument(level = "debug", name = "db.extensions.list", skip_all)]
pub(super) fn list(
    connection: &Connection,
    page: &PageRequest<ExtensionName>,
) -> Result<Page<Extension, ExtensionName>, SqliteError> {
    let after = page.after.as_ref().map_or("", ExtensionName::as_str);
    let params = params![after, page.lookahead()];
    let found = find_all(connection, PAGE, params, rows::extension)?;
    Ok(Page::from_lookahead(
        found,
        page.limit,
        |extension: &Extension| extension.name.clone(),
    ))
}

#[tracing::instrument(level = "debug", name = "db.extensions.create", skip_all)]
pub(super) fn create(
    tx: &Transaction<'_>,
    name: &ExtensionName,
    publisher: &str,
    now: Timestamp,
) -> Result<Extension, SqliteError> {
    let id = Uuid::now_v7();
    tx.prepare_cached(INSERT)?.execute(params![
        id.as_bytes(),
        name.as_str(),
        publisher,
        now.as_millis(),
    ])?;
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
