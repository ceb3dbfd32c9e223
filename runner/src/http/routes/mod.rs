//! One file a noun.

pub(super) mod admin;
pub(super) mod bundles;
pub(super) mod execute;
pub(super) mod health;
pub(super) mod install;
pub(super) mod logs;
pub(super) mod metrics;
pub(super) mod openapi;
pub(super) mod storage;
pub(super) mod tus;
pub(super) mod uploads;
