//! Which calls run now, and which wait for their turn.
//!
//! Every call needs a [`Permit`] to run. There are as many as the engine has slots, so that the
//! engine never has to refuse one, and fewer for one tenant and for one install; some are kept for
//! tenants of whom nothing runs, so that nobody has all of them. The module `queue` decides; here
//! are the clock, the channels and the numbers.

mod queue;
mod refusals;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram};
use tokio::sync::oneshot;

use self::queue::{Arrival, Queue, Ticket};
use self::refusals::Refusals;

pub use self::queue::{Caps, Limits, Reason, Refusal, Who};

/// Lets calls run.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

/// A place among the calls that run, given back when it is dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Permit {
    shared: Arc<Shared>,
    who: Who,
    since: Instant,
}

struct Shared {
    queue: Mutex<Queue<Waiter>>,
    longest_wait: Duration,
    refusals: Refusals,
    running: Gauge,
    waiting: Gauge,
    waits: Histogram,
}

/// Where somebody waits to be told.
type Waiter = oneshot::Sender<Result<Permit, Refusal>>;

impl Admission {
    /// Lets as many calls run as `limits` allow, and none wait longer than `longest_wait`.
    pub fn new(limits: Limits, longest_wait: Duration) -> Self {
        Self(Arc::new(Shared {
            running: metrics::gauge!("alga_admission_running"),
            waiting: metrics::gauge!("alga_admission_waiting"),
            waits: metrics::histogram!("alga_admission_wait_duration_seconds"),
            ..Shared::unmeasured(limits, longest_wait)
        }))
    }

    /// Lets in by the same rules for something else than running. Only refusals are counted.
    pub fn to_something_else(limits: Limits, longest_wait: Duration) -> Self {
        Self(Arc::new(Shared::unmeasured(limits, longest_wait)))
    }

    /// Waits until a call that arrived a moment ago may run, at most until `deadline`. Dropped before that, the call leaves
    /// its place to others at once. `most` calls of its install run at once, or as many as the limits
    /// say.
    ///
    /// # Errors
    /// What is in its way: where too many wait already, or it has waited as long as it may.
    pub async fn admit(
        &self,
        who: Who,
        most: Option<u32>,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        match self.arrive(who, most, arrived) {
            Arrived::Runs(permit) => Ok(permit),
            Arrived::Refused(refusal) => Err(self.refused(who, refusal, Duration::ZERO)),
            Arrived::Waits(waiting) => {
                // On the heap, as most calls never wait.
                let admitted = Box::pin(self.wait(waiting, arrived, deadline)).await;
                let waited = arrived.elapsed();
                match admitted {
                    Ok(permit) => {
                        self.0.waits.record(waited);
                        Ok(permit)
                    }
                    Err(refusal) => Err(self.refused(who, refusal, waited)),
                }
            }
        }
    }

    /// Lets nobody in any more. Who waits already is still served.
    pub fn close(&self) {
        self.0.change(Queue::close);
    }

    /// Tells the metrics how many run and wait now. Whoever wants to know asks much more rarely than
    /// it changes.
    pub fn report_load(&self) {
        let (running, waiting) = self.0.change(|queue| (queue.running(), queue.waiting()));
        self.0.running.set(to_f64(running));
        self.0.waiting.set(to_f64(waiting));
    }

    fn refused(&self, who: Who, refusal: Refusal, waited: Duration) -> Refusal {
        self.0.refusals.note(who, refusal.reason, waited);
        refusal
    }

    fn arrive(&self, who: Who, most: Option<u32>, now: Instant) -> Arrived<'_> {
        let most = most.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let mut answer = None;
        let (served, arrival) = self.0.change(|queue| {
            let served = queue.limit(who, most);
            let arrival = queue.arrive(who, most, || {
                let (waiter, answered) = oneshot::channel();
                answer = Some(answered);
                waiter
            });
            (served, arrival)
        });
        self.0.serve(served);
        let (ticket, displaced) = match arrival {
            Arrival::Runs => return Arrived::Runs(Permit::new(&self.0, who, now)),
            Arrival::Refused(refusal) => return Arrived::Refused(refusal),
            Arrival::Waits { ticket, displaced } => (ticket, displaced),
        };
        if let Some((waiter, refusal)) = displaced {
            // Who has gone away meanwhile doesn't want to know.
            drop(waiter.send(Err(refusal)));
        }
        Arrived::Waits(Waiting {
            shared: &self.0,
            who,
            ticket,
            answer: answer.expect("whoever waits was given a channel"),
        })
    }

    async fn wait(
        &self,
        mut waiting: Waiting<'_>,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        let until = deadline.min(arrived + self.0.longest_wait);
        let answered = tokio::time::timeout_at(until.into(), &mut waiting.answer).await;
        if answered.is_err()
            && let Some(refusal) = waiting.leave()
        {
            return Err(refusal);
        }
        // Where the time was up and it left nothing, the answer is on its way.
        let answered = match answered {
            Ok(answered) => answered,
            Err(_) => (&mut waiting.answer).await,
        };
        answered.unwrap_or_else(|_| Err(Refusal::because(Reason::Process)))
    }
}

/// What became of a call that came.
enum Arrived<'a> {
    Runs(Permit),
    Refused(Refusal),
    Waits(Waiting<'a>),
}

/// A call that waits, and leaves when it is dropped.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    who: Who,
    ticket: Ticket,
    answer: oneshot::Receiver<Result<Permit, Refusal>>,
}

impl Waiting<'_> {
    /// Waits no longer. Tells what was in the way; nothing where the answer is there or on its way.
    fn leave(&self) -> Option<Refusal> {
        self.shared
            .change(|queue| queue.leave(self.who, self.ticket))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A permit that is under way is dropped with the channel.
        self.leave();
    }
}

impl Shared {
    fn unmeasured(limits: Limits, longest_wait: Duration) -> Self {
        Self {
            queue: Mutex::new(Queue::new(limits)),
            longest_wait,
            refusals: Refusals::default(),
            running: Gauge::noop(),
            waiting: Gauge::noop(),
            waits: Histogram::noop(),
        }
    }

    /// Tells those who run now.
    fn serve(self: &Arc<Self>, served: Vec<(Who, Waiter)>) {
        for (who, waiter) in served {
            // Where somebody has just gone away, the permit comes back and is given back here.
            drop(waiter.send(Ok(Permit::new(self, who, Instant::now()))));
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue<Waiter>) -> T) -> T {
        // Poisoning would need a panic below, which counts and moves only.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut queue)
    }
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

impl Permit {
    fn new(shared: &Arc<Shared>, who: Who, since: Instant) -> Self {
        Self {
            shared: Arc::clone(shared),
            who,
            since,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        let served = self.shared.change(|queue| queue.release(self.who, held));
        self.shared.serve(served);
    }
}

#[cfg(test)]
mod tests;
