//! Components that can't run, remembered so that nobody compiles them again for every request.

use std::time::{Duration, Instant};

use alga_model::ContentHash;
use moka::Expiry;
use moka::future::Cache;

use super::components::InvalidComponent;

/// How many are remembered. A deployment has few of them.
const MOST: u64 = 1_024;
/// How long what may be due to a busy machine is held against a component.
pub(super) const PASSING: Duration = Duration::from_secs(60);

/// What is known to be wrong with components.
pub(super) struct Failures(Cache<ContentHash, Failure>);

/// What is wrong with a component.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    invalid: InvalidComponent,
    passing: bool,
}

impl Failure {
    /// It is so now and will be.
    pub(super) const fn lasting(message: String) -> Self {
        Self {
            invalid: InvalidComponent { message },
            passing: false,
        }
    }

    /// It may go well another time: limits and crashes have to do with the machine too.
    pub(super) const fn passing(message: String) -> Self {
        Self {
            invalid: InvalidComponent { message },
            passing: true,
        }
    }
}

impl Failures {
    pub(super) fn new() -> Self {
        let cache = Cache::builder().max_capacity(MOST).expire_after(Lasting);
        Self(cache.build())
    }

    pub(super) async fn of(&self, bundle: ContentHash) -> Option<InvalidComponent> {
        Some(self.0.get(&bundle).await?.invalid)
    }

    /// Remembers it, and gives it back without what only mattered here.
    pub(super) async fn remember(&self, bundle: ContentHash, failure: Failure) -> InvalidComponent {
        let invalid = failure.invalid.clone();
        self.0.insert(bundle, failure).await;
        invalid
    }
}

struct Lasting;

impl Expiry<ContentHash, Failure> for Lasting {
    fn expire_after_create(
        &self,
        _bundle: &ContentHash,
        failure: &Failure,
        _now: Instant,
    ) -> Option<Duration> {
        failure.passing.then_some(PASSING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_remembered_is_about_one_bundle() {
        let failures = Failures::new();
        let why = Failure::lasting("why".to_owned());
        let (bad, other) = (ContentHash::of(b"bad"), ContentHash::of(b"other"));
        assert_eq!(failures.remember(bad, why).await.message, "why");
        assert_eq!(failures.of(bad).await.unwrap().message, "why");
        assert!(failures.of(other).await.is_none());
    }

    #[test]
    fn only_what_may_pass_is_forgotten() {
        let forgotten = |failure: fn(String) -> Failure| {
            let (bad, failure) = (ContentHash::of(b"bad"), failure("why".to_owned()));
            Lasting.expire_after_create(&bad, &failure, Instant::now())
        };
        assert_eq!(forgotten(Failure::lasting), None);
        assert_eq!(forgotten(Failure::passing), Some(PASSING));
    }
}
