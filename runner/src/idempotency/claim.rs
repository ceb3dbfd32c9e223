//! Claims that are not forgotten.

use std::fmt;
use std::sync::Arc;

use alga_model::ErrorChain;
use alga_registry::{Claim, Registry};
use tokio::runtime::Handle;

/// A claim to a request. Dropped before there is an answer, by a panic for instance, it is given up,
/// so that nobody has to wait until its lease is over.
pub(super) struct Held {
    registry: Arc<dyn Registry>,
    claim: Option<Claim>,
}

impl Held {
    pub(super) const fn new(registry: Arc<dyn Registry>, claim: Claim) -> Self {
        Self {
            registry,
            claim: Some(claim),
        }
    }

    /// The claim, for the answer that is there.
    pub(super) fn answered(mut self) -> Claim {
        self.claim
            .take()
            .expect("it is there until this is consumed")
    }

    /// Gives the claim up, and returns once others can have it.
    pub(super) async fn give_up(mut self) {
        if let Some(claim) = self.claim.take() {
            give_up(&*self.registry, claim).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        // Without a runtime the process is at its end, and the lease has to do.
        if let Ok(runtime) = Handle::try_current() {
            let registry = Arc::clone(&self.registry);
            runtime.spawn(async move { give_up(&*registry, claim).await });
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

async fn give_up(registry: &dyn Registry, claim: Claim) {
    if let Err(error) = registry.give_up_request(&claim).await {
        tracing::warn!(
            error = %ErrorChain(&error),
            error.blame = "host",
            "a request can't be given up; who repeats it waits until the lease is over"
        );
    }
}
