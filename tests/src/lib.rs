//! What the end-to-end tests share: guests to run.

pub mod guest;
