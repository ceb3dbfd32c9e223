//! Components that can't run, remembered so that nobody compiles them again for every request.

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::component_id::ComponentId;
use super::components::InvalidComponent;

/// How many are remembered. A deployment has few of them.
const MOST: u64 = 1_024;
/// How long what may be due to a busy machine is held against a component.
pub(super) const PASSING: Duration = Duration::from_secs(60);

/// What is known to be wrong with components.
pub(super) struct Failures(Cache<ComponentId, Failure>);

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

    pub(super) async fn of(&self, id: ComponentId) -> Option<InvalidComponent> {
        Some(self.0.get(&id).await?.invalid)
    }

    /// Remembers it, and gives it back without what only mattered here.
    pub(super) async fn remember(&self, id: ComponentId, failure: Failure) -> InvalidComponent {
        let invalid = failure.invalid.clone();
        self.0.insert(id, failure).await;
        invalid
    }
}

struct Lasting;

impl Expiry<ComponentId, Failure> for Lasting {
    fn expire_after_create(
        &self,
        _id: &ComponentId,
        failure: &Failure,
        _now: Instant,
    ) -> Option<Duration> {
        failure.passing.then_some(PASSING)
    }
}

#[cfg(test)]
mod tests {
    use alga_model::ContentHash;

    use super::*;

    #[tokio::test]
    async fn what_is_remembered_is_about_one_file_of_one_bundle() {
        let failures = Failures::new();
        let why = Failure::lasting("why".to_owned());
        let (bundle, other) = (ContentHash::of(b"bundle"), ContentHash::of(b"other"));
        let bad = ComponentId::new(bundle, "dist/bad.wasm");
        assert_eq!(failures.remember(bad, why).await.message, "why");
        assert_eq!(failures.of(bad).await.unwrap().message, "why");
        for good in [
            ComponentId::new(bundle, "dist/main.wasm"),
            ComponentId::new(other, "dist/bad.wasm"),
        ] {
            assert!(failures.of(good).await.is_none());
        }
    }

    #[test]
    fn only_what_may_pass_is_forgotten() {
        let forgotten = |failure: fn(String) -> Failure| {
            let (bad, failure) = (
                ComponentId::alone(ContentHash::of(b"bad")),
                failure("why".to_owned()),
            );
            Lasting.expire_after_create(&bad, &failure, Instant::now())
        };
        assert_eq!(forgotten(Failure::lasting), None);
        assert_eq!(forgotten(Failure::passing), Some(PASSING));
    }
}
