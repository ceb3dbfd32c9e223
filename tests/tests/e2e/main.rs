//! The whole system, as a process: commands, HTTP, real components, real databases.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod deployment;
mod example;
mod running;
mod tls;

mod administration;
mod admission;
mod architecture;
mod assets;
mod auth;
mod beside;
mod bucket;
mod bucket_uploads;
mod commands;
mod compile;
mod crash;
mod documentation;
mod execute;
mod golden;
mod guest_tools;
mod hostile;
mod idempotency;
mod integrity;
mod interleavings;
mod logs;
mod neighbour;
mod notes;
mod openapi;
mod plain_http;
mod postgres;
mod process;
mod quickstart;
mod roles;
mod shared_code;
mod tickets;
mod uploads;
