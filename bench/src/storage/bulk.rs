//! Batches of new records, one batch after another.

use std::time::Instant;

use alga_storage::{Key, Namespace};

use super::sample::{key, value};
use super::stage::Stage;
use crate::measure::{in_turns, median, per_second, rounds};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// Records of a round.
const RECORDS: u32 = 4_000;

/// What batches of 20 get done, by what bare inserts of as much get done.
pub(crate) async fn bulk_put_20(bench: Bench) -> anyhow::Result<Figure> {
    let bare = Batches::open(&bench, "bare.sqlite3", 20).await?;
    let ours = Batches::open(&bench, "ours.sqlite3", 20).await?;
    let turns = in_turns(
        &bench,
        |round| bare.clone().bare_puts(round),
        |round| ours.clone().puts(round),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "rows/s").against(bare, Bar::AtLeast(0.5)))
}

/// Records written a second in batches of `size`.
pub(crate) async fn rate(bench: &Bench, size: usize) -> anyhow::Result<f64> {
    let batches = Batches::open(bench, "ours.sqlite3", size).await?;
    let rates = rounds(bench, |round| batches.clone().puts(round));
    Ok(median(rates.await?))
}

#[derive(Debug, Clone)]
struct Batches {
    stage: Stage,
    namespace: Namespace,
    size: usize,
}

impl Batches {
    async fn open(bench: &Bench, file: &str, size: usize) -> anyhow::Result<Self> {
        let namespace = Namespace::parse("work-orders")?;
        let stage = Stage::open(bench.path(file), [namespace.clone()]).await?;
        Ok(Self {
            stage,
            namespace,
            size,
        })
    }

    async fn puts(self, round: u32) -> anyhow::Result<f64> {
        let records = records(round)
            .map(|(key, value)| Ok((Key::parse(key)?, value)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let batches: Vec<_> = records.chunks(self.size).map(<[_]>::to_vec).collect();
        let start = Instant::now();
        for batch in batches {
            self.stage.bulk_put(&self.namespace, batch).await?;
        }
        Ok(per_second(RECORDS, start))
    }

    async fn bare_puts(self, round: u32) -> anyhow::Result<f64> {
        let records: Vec<_> = records(round).collect();
        let batches: Vec<_> = records.chunks(self.size).map(<[_]>::to_vec).collect();
        let bare = self.stage.bare();
        let start = Instant::now();
        for batch in batches {
            bare.bulk_put(self.namespace.as_str(), batch).await?;
        }
        Ok(per_second(RECORDS, start))
    }
}

/// The records of a round, which no other round has.
fn records(round: u32) -> impl Iterator<Item = (String, String)> {
    let first = round * RECORDS;
    (first..first + RECORDS).map(|number| (key(number), value(number)))
}
