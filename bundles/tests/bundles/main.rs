//! Bundles from the outside: hostile archives, packing, stores, publishing and fetching.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests may fail like the tests themselves"
)]

mod archive;
mod eviction;
mod fetch;
mod hostile;
mod pack;
mod preview;
mod publish;
mod s3;
mod signature;
mod staged;
mod store;
mod support;
mod unsteady;
