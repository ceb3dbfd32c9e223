//! What the crate promises, with a schema of its own.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod migrations;
mod notes;
mod opening;
