//! Runs third-party extensions of a multi-tenant product.
//!
//! The binary `alga-runner` is this library behind a command line. An [`app::App`] is everything
//! that serves requests, built once from a [`config::Config`]; [`http`] puts it on the network;
//! [`execute`] is the way of one call, [`admission`] decides when it may run, [`engine`] is the part
//! that runs guests, and [`activity`] remembers for a while what they did. [`harness`] is what of this
//! a test of an extension needs, in a few lines.
//!
//! This crate puts the others together and implements the traits with which they ask for one
//! another: grants of the registry for the storage, Wasmtime and the registry for publishing.

pub mod activity;
pub mod admin;
pub mod admission;
pub mod app;
pub mod bundle_care;
mod bundle_store;
pub mod cli;
pub mod config;
mod credentials;
mod databases;
mod deadline;
pub mod engine;
pub mod execute;
pub mod harness;
mod headers;
pub mod http;
pub mod idempotency;
pub mod installs;
pub mod keys;
pub mod publishing;
#[cfg(test)]
mod stage;
pub mod storage_place;
pub mod telemetry;
pub mod tokens;
pub mod upkeep;
pub mod uploads;
mod versions;
