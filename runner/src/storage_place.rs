//! Where the records are: in a database of this process, or with another process that serves them.

use std::sync::Arc;

use alga_storage::{RemoteService, StorageDatabase};

/// Where records, counters and audit are kept.
#[derive(Debug, Clone)]
pub enum StoragePlace {
    /// In a database that this process uses.
    Here(Arc<dyn StorageDatabase>),
    /// With a service that it asks.
    Elsewhere(Arc<RemoteService>),
}

/// What is asked can only be done where the records are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage is kept by another process, which `storage.api.url` names; ask that one, or work on its database without it"
)]
pub struct KeptElsewhere;

impl StoragePlace {
    /// The database.
    pub fn here(&self) -> Result<&Arc<dyn StorageDatabase>, KeptElsewhere> {
        match self {
            Self::Here(database) => Ok(database),
            Self::Elsewhere(_) => Err(KeptElsewhere),
        }
    }
}
