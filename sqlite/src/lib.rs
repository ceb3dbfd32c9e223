//! How Alga Runner uses SQLite: one connection that writes, a few that read, and a schema that is
//! brought up to date under a lock.
//!
//! Storage and registry each have a database of their own, with statements of their own; what they
//! share is how it is opened, migrated and used, and what its failures mean. The crate knows no table
//! but the one that holds the history of a schema.

mod database;
mod error;
mod migrate;
mod pool;

pub use alga_schema::{MigrationStatus, Schema, SchemaError};
pub use database::{Database, Location, Options, STATEMENTS, begin};
pub use error::{DriverError, SqliteError};
