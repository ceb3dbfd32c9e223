//! Asking again.

use std::error::Error;
use std::time::Duration;

use alga_model::ErrorChain;

use super::FetchError;

/// How often and how soon an unavailable store is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often it is asked at most, the first time included; 5 unless set.
    pub attempts: u32,
    /// The longest pause after the first attempt; doubled after each other. 100 ms unless set.
    pub base: Duration,
    /// The longest pause of all; 5 s unless set.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
        }
    }
}

impl Retry {
    /// Calls `attempt` until it succeeds or fails for good.
    pub(super) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        self.repeat(attempt, FetchError::is_transient).await
    }

    /// Calls `attempt` until it succeeds, fails in a way that is not transient, or has failed as often
    /// as it may.
    pub async fn repeat<T, E, F>(
        &self,
        attempt: impl Fn() -> F,
        is_transient: impl Fn(&E) -> bool,
    ) -> Result<T, E>
    where
        E: Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut made = 1;
        loop {
            match attempt().await {
                Err(error) if is_transient(&error) && made < self.attempts => {
                    metrics::counter!("alga_bundles_fetch_retries_total").increment(1);
                    tracing::debug!(error = %ErrorChain(&error), attempt = made, "the bundle store is asked again");
                    tokio::time::sleep(jittered(self.longest_pause(made))).await;
                    made += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn longest_pause(&self, made: u32) -> Duration {
        let factor = 1_u32
            .checked_shl(made.saturating_sub(1))
            .unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// Somewhere between half of `longest` and all of it, so that replicas that failed together do not
/// come back together.
fn jittered(longest: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    longest.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let retry = Retry {
            attempts: 9,
            base: Duration::from_millis(100),
            cap: Duration::from_millis(450),
        };
        let pauses: Vec<_> = [1, 2, 3, 4, 40]
            .iter()
            .map(|made| retry.longest_pause(*made).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 450, 450]);
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        let longest = Duration::from_millis(100);
        for _ in 0..100 {
            let pause = jittered(longest);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?}");
        }
    }
}
