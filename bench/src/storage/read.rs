//! Reads of one namespace of 10 000 records.

use std::time::Instant;

use alga_storage::{Key, Namespace};
use anyhow::ensure;
use tokio::task::JoinSet;

use super::sample::{Numbers, key, value};
use super::stage::Stage;
use crate::measure::{Latencies, in_turns, median, per_second, rounds};
use crate::report::{Bar, Figure, rounded};
use crate::session::Bench;

const RECORDS: u32 = 10_000;
const GETS: u32 = 3_000;
const PAGE: u32 = 1_000;
/// How often a round lists the namespace.
const LISTS: u32 = 2;

/// How long one get takes.
pub(crate) async fn get(bench: Bench) -> anyhow::Result<Figure> {
    let reads = Reads::open(&bench).await?;
    let turns = in_turns(
        &bench,
        |round| reads.clone().bare_gets(round.into()),
        |round| reads.clone().gets(round.into()),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| bare.p50()));
    let ours = median(turns.iter().map(|(_, ours)| ours.p50()));
    let p99 = median(turns.iter().map(|(_, ours)| ours.p99()));
    Ok(Figure::new(ours, "µs p50")
        .against(bare, Bar::AtMost(1.4))
        .note(format!("p99 {} µs", rounded(p99))))
}

/// How fast whole namespaces are listed, with values.
pub(crate) async fn list(bench: Bench) -> anyhow::Result<Figure> {
    let reads = Reads::open(&bench).await?;
    let turns = in_turns(
        &bench,
        |_| reads.clone().bare_lists(),
        |_| reads.clone().lists(),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "rows/s").against(bare, Bar::AtLeast(0.6)))
}

/// Records listed a second, with values.
pub(crate) async fn list_rate(bench: &Bench) -> anyhow::Result<f64> {
    let reads = Reads::open(bench).await?;
    Ok(median(rounds(bench, |_| reads.clone().lists()).await?))
}

/// Gets a second of one reader and of `readers` together.
pub(crate) async fn get_rates(bench: &Bench, readers: u32) -> anyhow::Result<(f64, f64)> {
    let reads = Reads::open(bench).await?;
    let turns = in_turns(
        bench,
        |round| reads.clone().gets(round.into()),
        |_| reads.clone().concurrent_gets(readers),
    )
    .await?;
    let one = median(turns.iter().map(|(one, _)| one.per_second()));
    let many = median(turns.iter().map(|(_, many)| *many));
    Ok((one, many))
}

#[derive(Debug, Clone)]
struct Reads {
    stage: Stage,
    namespace: Namespace,
}

impl Reads {
    async fn open(bench: &Bench) -> anyhow::Result<Self> {
        const AT_ONCE: usize = 100;
        let namespace = Namespace::parse("work-orders")?;
        let stage = Stage::open(bench.path("reads.sqlite3"), [namespace.clone()]).await?;
        bench.progress("writing the records");
        let numbers: Vec<u32> = (0..RECORDS).collect();
        for numbers in numbers.chunks(AT_ONCE) {
            let records = numbers
                .iter()
                .map(|number| Ok((Key::parse(key(*number))?, value(*number))))
                .collect::<anyhow::Result<_>>()?;
            stage.bulk_put(&namespace, records).await?;
        }
        Ok(Self { stage, namespace })
    }

    async fn gets(self, seed: u64) -> anyhow::Result<Latencies> {
        let mut numbers = Numbers::seeded(seed);
        let mut latencies = Latencies::default();
        for _ in 0..GETS {
            let key = Key::parse(key(numbers.below(RECORDS)))?;
            let get = self.stage.get(&self.namespace, key);
            let record = latencies.time(get).await?;
            ensure!(record.value.size() > 0, "a record without a value");
        }
        Ok(latencies)
    }

    async fn bare_gets(self, seed: u64) -> anyhow::Result<Latencies> {
        let mut numbers = Numbers::seeded(seed);
        let mut latencies = Latencies::default();
        let bare = self.stage.bare();
        for _ in 0..GETS {
            let key = key(numbers.below(RECORDS));
            let get = bare.get(self.namespace.as_str(), &key);
            let (_, _, value, ..) = latencies.time(get).await?;
            ensure!(!value.is_empty(), "a record without a value");
        }
        Ok(latencies)
    }

    async fn concurrent_gets(self, readers: u32) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for reader in 0..readers {
            tasks.spawn(self.clone().gets(reader.into()));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(per_second(readers * GETS, start))
    }

    async fn lists(self) -> anyhow::Result<f64> {
        let start = Instant::now();
        for _ in 0..LISTS {
            let mut listed = 0;
            let mut cursor = None;
            loop {
                let page = self.stage.list(&self.namespace, PAGE, cursor).await?;
                listed += page.items.len();
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            ensure!(listed == RECORDS as usize, "listed {listed} records");
        }
        Ok(per_second(LISTS * RECORDS, start))
    }

    async fn bare_lists(self) -> anyhow::Result<f64> {
        let bare = self.stage.bare();
        let start = Instant::now();
        for _ in 0..LISTS {
            let mut listed = 0;
            let mut last = String::new();
            loop {
                let rows = bare.list(self.namespace.as_str(), &last, PAGE).await?;
                listed += rows.len();
                let is_last = rows.len() < PAGE as usize;
                match rows.into_iter().next_back() {
                    Some((key, ..)) if !is_last => last = key,
                    _ => break,
                }
            }
            ensure!(listed == RECORDS as usize, "listed {listed} records");
        }
        Ok(per_second(LISTS * RECORDS, start))
    }
}
