//! How Alga Runner uses PostgreSQL: a pool of connections that may go through a pooler, and a schema
//! that is brought up to date over a connection of its own.
//!
//! Storage and registry each have their tables and their history; what they share is how they
//! connect, migrate, and what failures mean. The crate knows no table but those of the histories.

mod database;
mod error;
mod listener;
mod migrate;
mod options;
mod pool;
mod time;

pub use alga_schema::{MigrationStatus, Schema, SchemaError};
pub use database::{Database, Sent, Statements};
pub use error::{DriverError, Failure, PostgresError};
pub use listener::{ListenError, Listener};
pub use options::{InvalidUrl, Options};
pub use time::Time;
