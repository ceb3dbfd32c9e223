//! The timer of a connection.
//!
//! hyper sets up a timer for the head of every request, and takes it down again when the head is
//! there. This one stays set up: what is asked of it is only noted, and it is set anew when it has
//! gone off too early, once in as long as a head may take.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Tells the time to one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTimer(Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>);

/// A wait for a moment.
#[derive(Debug)]
struct Until {
    moment: Instant,
    timer: ConnectionTimer,
}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, moment: Instant) -> Pin<Box<dyn Sleep>> {
        let timer = self.clone();
        Box::pin(Until { moment, timer })
    }
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut set = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = self.moment.into();
        let sleep = set.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(moment)));
        if sleep.deadline() > moment {
            sleep.as_mut().reset(moment);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= moment {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    async fn told_in_time(timer: &ConnectionTimer) {
        let moment = Instant::now() + MOMENT;
        timer.sleep_until(moment).await;
        assert!(Instant::now() >= moment);
    }

    #[tokio::test]
    async fn a_moment_is_told_whatever_was_asked_before() {
        for earlier in [MOMENT / 5, MOMENT, 2 * MOMENT, Duration::from_secs(3_600)] {
            let timer = ConnectionTimer::default();
            {
                let mut asked = timer.sleep(earlier);
                let pending = futures_util::poll!(asked.as_mut());
                assert_eq!(pending, Poll::Pending, "{earlier:?}");
            }
            told_in_time(&timer).await;
            // And once more, when it has gone off.
            told_in_time(&timer).await;
        }
    }
}
