//! How long is waited for a store.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::store::{ObjectKey, StoreError};

/// What a store brings at least in a second, on the whole: less than any line that bundles are fetched over.
const LEAST_RATE: u64 = 16 << 10;

/// How long is waited for an object, step by step and on the whole. Only the store's time counts.
#[derive(Debug)]
pub(crate) struct Patience {
    key: ObjectKey,
    stall: Duration,
    left: Duration,
}

impl Patience {
    /// Waits up to `stall` for each step of reading an object of `size` bytes, and not much longer for all of
    /// them than a slow line takes.
    pub(crate) fn new(key: ObjectKey, stall: Duration, size: u64) -> Self {
        let slowly = Duration::from_secs(size / LEAST_RATE);
        Self {
            key,
            stall,
            left: slowly.saturating_add(stall.saturating_mul(2)),
        }
    }

    /// What a step gives, unless it takes too long.
    pub(crate) async fn wait<T>(
        &mut self,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let stepped = timeout(self.stall.min(self.left), step).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        stepped.unwrap_or_else(|_| {
            let message = if self.left.is_zero() {
                "it came too slowly".to_owned()
            } else {
                format!("nothing came for {:?}", self.stall)
            };
            let error = io::Error::new(io::ErrorKind::TimedOut, message);
            Err(StoreError::unavailable(self.key, error))
        })
    }
}

/// What `step` gives, unless nothing came for so long.
pub(crate) async fn unless_stalled<T>(
    stall: Duration,
    key: ObjectKey,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    Patience::new(key, stall, 0).wait(step).await
}
