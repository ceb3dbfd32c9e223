//! Rounds, medians and percentiles.

use std::time::{Duration, Instant};

use crate::session::Bench;

/// How often everything is measured: many short rounds, because a busy moment of the machine should
/// meet both that are compared. Odd, so that a median is the figure of a round.
const ROUNDS: u32 = 15;

/// Measures in rounds; the first warms up and is not counted.
pub(crate) async fn rounds<T, S>(
    bench: &Bench,
    mut subject: impl FnMut(u32) -> S,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    S: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let nothing = |_| std::future::ready(Ok(()));
    let turns = in_turns(bench, nothing, &mut subject).await?;
    Ok(turns.into_iter().map(|((), subject)| subject).collect())
}

/// Measures baseline and subject in rounds, in turns; the first round warms up and is not counted.
pub(crate) async fn in_turns<A, B, T, S>(
    bench: &Bench,
    mut baseline: impl FnMut(u32) -> B,
    mut subject: impl FnMut(u32) -> S,
) -> anyhow::Result<Vec<(A, T)>>
where
    A: Send + 'static,
    B: Future<Output = anyhow::Result<A>> + Send + 'static,
    T: Send + 'static,
    S: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let mut turns = Vec::new();
    for round in 0..=ROUNDS {
        bench.progress(&format!("round {round} of {ROUNDS}"));
        // Each on a worker thread: the main thread would have to be woken for every answer.
        let baseline = tokio::spawn(baseline(round)).await??;
        let subject = tokio::spawn(subject(round)).await??;
        turns.push((baseline, subject));
    }
    turns.remove(0);
    Ok(turns)
}

/// The figure in the middle; half are at most as large.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `count` things in the time since `start`, a second.
pub(crate) fn per_second(count: u32, start: Instant) -> f64 {
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// How long the operations of a round took, each by itself.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Does one more operation.
    pub(crate) async fn time<T>(&mut self, operation: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = operation.await;
        self.0.push(start.elapsed());
        done
    }

    /// The latency that half of the operations kept within, in microseconds.
    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    /// The latency that all but one in a hundred operations kept within, in microseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    /// Operations a second.
    pub(crate) fn per_second(&self) -> f64 {
        let total: Duration = self.0.iter().sum();
        f64::from(u32::try_from(self.0.len()).unwrap_or(u32::MAX)) / total.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted
            .get(index)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<T: IntoIterator<Item = Duration>>(took: T) -> Self {
        Self(took.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_latency_that_was_measured() {
        let latencies: Latencies = (1..=100).rev().map(Duration::from_micros).collect();
        assert!((latencies.p50() - 51.0).abs() < 1e-9);
        assert!((latencies.p99() - 100.0).abs() < 1e-9);
        assert!(Latencies::default().p50().is_nan());
    }

    #[test]
    fn the_median_does_not_mind_an_outlier() {
        assert!((median([5.0, 1.0, 900.0]) - 5.0).abs() < 1e-9);
        assert!(median([]).is_nan());
    }
}
