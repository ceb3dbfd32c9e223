//! Extensions: names and who they belong to.

use alga_model::{ExtensionName, Timestamp};
use uuid::Uuid;

/// A name under which versions are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Identifies the extension for ever.
    pub id: Uuid,
    /// The name; unique, never changes.
    pub name: ExtensionName,
    /// Who registered the first version. Nobody else can register another one.
    pub publisher: String,
    /// When the first version was registered.
    pub created_at: Timestamp,
}

/// What an extension can be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionKey {
    /// Its id.
    Id(Uuid),
    /// Its name.
    Name(ExtensionName),
}
