//! Settings of the answers that are kept for those who repeat a request.

use super::kind::{bytes, count};
use super::setting::section;

section! {
    /// How much is kept for those who repeat a request with an idempotency key.
    pub struct IdempotencyConfig {
        /// How many answers are kept for an install. Beyond them the oldest are forgotten before
        /// their day is over.
        answers_per_install: u64 = 10_000, "idempotency.answers_per_install": count(1..=1_000_000);
        /// How many answers are kept for all installs of a tenant together.
        answers_per_tenant: u64 = 40_000, "idempotency.answers_per_tenant": count(1..=10_000_000);
        /// How many bytes the answers have that are kept for an install. Beyond them only that
        /// there was an answer is kept of the oldest.
        bytes_per_install: u64 = 64 << 20, "idempotency.bytes_per_install": bytes(0..=1 << 40);
        /// How many bytes the answers have that are kept for all installs of a tenant together.
        bytes_per_tenant: u64 = 256 << 20, "idempotency.bytes_per_tenant": bytes(0..=1 << 40);
    }
}
