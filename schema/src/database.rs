//! A database, to whoever doesn't care which.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;

use crate::MigrationStatus;

/// A database whose schema is kept up to date, of whatever kind.
#[async_trait]
pub trait Database: Debug + Send + Sync {
    /// Fails unless the database answers.
    async fn ping(&self) -> Result<(), DatabaseError>;

    /// Applies the migrations that are missing. Safe from several processes at once.
    async fn migrate_up(&self) -> Result<(), DatabaseError>;

    /// Reverts the migrations after `version`, the last one first, and with them what only they can
    /// store; 0 reverts all. Safe from several processes at once.
    async fn migrate_down_to(&self, version: i64) -> Result<(), DatabaseError>;

    /// The migrations of this release and whether the database has them. Writes nothing.
    async fn migration_status(&self) -> Result<Vec<MigrationStatus>, DatabaseError>;

    /// Waits for what is going on and closes the database.
    async fn close(&self);
}

/// Why something could not be done with a database; which kinds there are depends on the database.
pub type DatabaseError = Box<dyn Error + Send + Sync>;
