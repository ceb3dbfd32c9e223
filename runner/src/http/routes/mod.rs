//! One file a noun.

pub(super) mod execute;
pub(super) mod health;
pub(super) mod install;
pub(super) mod metrics;
