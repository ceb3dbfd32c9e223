//! A connection that statements are sent over.

use alga_postgres::{Sent, Statements};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::error::PostgresError;
use crate::error::RegistryError;
use crate::rows::Row;

/// A connection and how statements are sent over it.
pub(super) struct Session<'c> {
    connection: &'c mut PgConnection,
    statements: Statements,
}

impl<'c> Session<'c> {
    pub(super) const fn new(connection: &'c mut PgConnection, statements: Statements) -> Self {
        Self {
            connection,
            statements,
        }
    }

    /// A statement, to bind its parameters.
    pub(super) fn of<'q>(&self, sql: &'static str) -> Sent<'q> {
        self.statements.of(sql)
    }

    /// A statement that was put together, with its parameters.
    pub(super) fn built<'q>(&self, sql: &'q mut QueryBuilder<Postgres>) -> Sent<'q> {
        self.statements.built(sql)
    }

    /// The row that a statement finds.
    pub(super) async fn find_one<T>(
        &mut self,
        statement: Sent<'_>,
        read: fn(&dyn Row) -> Result<T, RegistryError>,
    ) -> Result<Option<T>, PostgresError> {
        let found = statement.fetch_optional(&mut *self.connection).await?;
        Ok(found.map(|row| read(&row)).transpose()?)
    }

    /// The rows that a statement finds.
    pub(super) async fn find_all<T>(
        &mut self,
        statement: Sent<'_>,
        read: fn(&dyn Row) -> Result<T, RegistryError>,
    ) -> Result<Vec<T>, PostgresError> {
        let found = statement.fetch_all(&mut *self.connection).await?;
        let read: Result<_, _> = found.iter().map(|row| read(row)).collect();
        Ok(read?)
    }

    /// Does a statement and tells how many rows it changed, or found.
    pub(super) async fn execute(&mut self, statement: Sent<'_>) -> Result<u64, PostgresError> {
        let done = statement.execute(&mut *self.connection).await?;
        Ok(done.rows_affected())
    }
}

/// A count as a `bigint`.
pub(super) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
