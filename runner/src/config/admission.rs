//! Settings of how many calls run and wait at once.

use std::time::Duration;

use super::kind::{count, millis};
use super::setting::section;

section! {
    /// How many calls run at once and how many wait for that, beside `engine.max_instances`.
    pub struct AdmissionConfig {
        /// How many calls of one install run at once, unless it has a number of its own.
        install_concurrency: u32 = 64, "admission.install_concurrency": count(1..=10_000);
        /// How many calls of one install may wait until they can run.
        install_queue: u32 = 64, "admission.install_queue": count(1..=10_000);
        /// How many calls of one tenant run at once.
        tenant_concurrency: u32 = 128, "admission.tenant_concurrency": count(1..=10_000);
        /// How many calls of one tenant may wait until they can run.
        tenant_queue: u32 = 128, "admission.tenant_queue": count(1..=10_000);
        /// How many of `engine.max_instances` are kept for tenants of whom nothing runs, in percent,
        /// rounded up, but never all.
        reserve_percent: u8 = 25, "admission.reserve_percent": count(0..=90);
        /// How many calls may wait until they can run, of all tenants together.
        queue: u32 = 1_024, "admission.queue": count(1..=100_000);
        /// How long a call may wait until it can run.
        longest_wait: Duration = Duration::from_secs(1), "admission.queue_wait_ms": millis(0..=600_000);
    }
}
