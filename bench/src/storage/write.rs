//! Single puts into one namespace, some of new keys and some over existing records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use alga_storage::{Key, Namespace};
use tokio::task::JoinSet;

use super::sample::{Numbers, key, value};
use super::stage::Stage;
use crate::measure::{Latencies, in_turns, median, per_second, rounds};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// Keys that are written to.
const KEYS: u32 = 10_000;
/// Writes of a round, one after another.
const PUTS: u32 = 500;
const WRITERS: u32 = 64;
const PUTS_PER_WRITER: u32 = 50;

/// Which records a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// New ones, each behind all others, as logs, events and orders come.
    Appending,
    /// Any of the 10 000, most of them over one that is there. Each touches a page of its own.
    Scattered,
}

/// What 64 writers get done together, by the writes that a loop gets done with a commit for each.
pub(crate) async fn put_64_writers(bench: Bench, pattern: Pattern) -> anyhow::Result<Figure> {
    let bare = Writes::open(&bench, "bare.sqlite3").await?;
    let ours = Writes::open(&bench, "ours.sqlite3").await?;
    let turns = in_turns(
        &bench,
        |round| bare.clone().bare_puts(round.into(), pattern),
        |round| ours.clone().concurrent_puts(round.into(), pattern),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    let figure = Figure::new(ours, "puts/s");
    Ok(match pattern {
        Pattern::Appending => figure.against(bare, Bar::AtLeast(5.0)),
        Pattern::Scattered => {
            figure.note(format!("bare {}, ratio {:.2}", bare.round(), ours / bare))
        }
    })
}

/// Puts a second from 64 writers.
pub(crate) async fn concurrent_put_rate(bench: &Bench) -> anyhow::Result<f64> {
    let writes = Writes::open(bench, "ours.sqlite3").await?;
    let rates = rounds(bench, |round| {
        writes
            .clone()
            .concurrent_puts(round.into(), Pattern::Scattered)
    });
    Ok(median(rates.await?))
}

/// The latencies of puts one after another, by round.
pub(crate) async fn put_latencies(bench: &Bench) -> anyhow::Result<Vec<Latencies>> {
    let writes = Writes::open(bench, "ours.sqlite3").await?;
    rounds(bench, |round| {
        writes.clone().puts(round.into(), PUTS, Pattern::Scattered)
    })
    .await
}

#[derive(Debug, Clone)]
struct Writes {
    stage: Stage,
    namespace: Namespace,
    appended: Arc<AtomicU32>,
}

impl Writes {
    async fn open(bench: &Bench, file: &str) -> anyhow::Result<Self> {
        let namespace = Namespace::parse("work-orders")?;
        let stage = Stage::open(bench.path(file), [namespace.clone()]).await?;
        Ok(Self {
            stage,
            namespace,
            appended: Arc::default(),
        })
    }

    fn number(&self, pattern: Pattern, numbers: &mut Numbers) -> u32 {
        match pattern {
            Pattern::Appending => self.appended.fetch_add(1, Ordering::Relaxed),
            Pattern::Scattered => numbers.below(KEYS),
        }
    }

    async fn puts(self, seed: u64, count: u32, pattern: Pattern) -> anyhow::Result<Latencies> {
        let mut numbers = Numbers::seeded(seed);
        let mut latencies = Latencies::default();
        for _ in 0..count {
            let number = self.number(pattern, &mut numbers);
            let key = Key::parse(key(number))?;
            let put = self.stage.put(&self.namespace, key, value(number));
            latencies.time(put).await?;
        }
        Ok(latencies)
    }

    async fn concurrent_puts(self, round: u64, pattern: Pattern) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for writer in 0..u64::from(WRITERS) {
            tasks.spawn(
                self.clone()
                    .puts(round << 32 | writer, PUTS_PER_WRITER, pattern),
            );
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(per_second(WRITERS * PUTS_PER_WRITER, start))
    }

    async fn bare_puts(self, seed: u64, pattern: Pattern) -> anyhow::Result<f64> {
        let mut numbers = Numbers::seeded(seed);
        let bare = self.stage.bare();
        let start = Instant::now();
        for _ in 0..PUTS {
            let number = self.number(pattern, &mut numbers);
            let (key, value) = (key(number), value(number));
            bare.put(self.namespace.as_str(), &key, &value).await?;
        }
        Ok(per_second(PUTS, start))
    }
}
