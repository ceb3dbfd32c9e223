//! Waiting no longer than until a deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use tokio::task::coop::unconstrained;

/// What `future` resolves to, or nothing once `deadline` has passed.
///
/// A timer is set up only when there is something to wait for: most calls of extensions end without
/// ever waiting, and a timer would be a good part of what the runner adds to them. It is looked at
/// also when `future` has used up what a task may do at a stretch.
///
/// The future is pinned by the caller, as a future that takes another one by value has room for it twice.
pub(crate) async fn within<F: Future>(
    deadline: Instant,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = future.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let timer = timer.get_or_insert_with(|| {
            Box::pin(unconstrained(tokio::time::sleep_until(deadline.into())))
        });
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_is_ready_is_given_also_after_the_deadline() {
        let passed = Instant::now();
        assert_eq!(within(passed, pin!(ready(1))).await, Some(1));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_and_not_before_the_deadline() {
        let deadline = Instant::now() + MOMENT;
        assert_eq!(within(deadline, pin!(pending::<()>())).await, None);
        assert!(Instant::now() >= deadline);
    }

    #[tokio::test]
    async fn what_has_to_wait_is_given_in_time() {
        let waited = pin!(tokio::task::yield_now());
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(within(deadline, waited).await, Some(()));
    }

    /// Always ready for more, so that it would never let a timer be looked at.
    async fn busy() {
        loop {
            tokio::task::coop::consume_budget().await;
        }
    }

    #[tokio::test]
    async fn what_never_waits_is_given_up_too() {
        let deadline = Instant::now() + MOMENT;
        assert_eq!(within(deadline, pin!(busy())).await, None);
    }
}
