//! The cost of a put in a tenant that has stored much.

use alga_storage::{Key, Namespace};

use super::bare::{Crowd, namespace_name};
use super::sample::{Numbers, key, value};
use super::stage::Stage;
use crate::measure::{Latencies, in_turns, median};
use crate::report::{Bar, Figure, rounded};
use crate::session::Bench;

/// Puts of a round.
const PUTS: u32 = 300;

const SMALL: Crowd = Crowd {
    installs: 1,
    namespaces: 1,
    keys: 1_000,
};

const LARGE: Crowd = Crowd {
    installs: 10,
    namespaces: 20,
    keys: 5_000,
};

/// How long a put takes in a tenant with a million records, by one with a thousand.
pub(crate) async fn put(bench: Bench) -> anyhow::Result<Figure> {
    let small = Tenant::open(&bench, "small.sqlite3", SMALL).await?;
    let large = Tenant::open(&bench, "large.sqlite3", LARGE).await?;
    let turns = in_turns(
        &bench,
        |round| small.clone().puts(round.into()),
        |round| large.clone().puts(round.into()),
    )
    .await?;
    let in_small = median(turns.iter().map(|(small, _)| small.p50()));
    let in_large = median(turns.iter().map(|(_, large)| large.p50()));
    let p99 = median(turns.iter().map(|(_, large)| large.p99()));
    Ok(Figure::new(in_large, "µs p50")
        .against(in_small, Bar::AtMost(1.2))
        .note(format!("p99 {} µs", rounded(p99))))
}

#[derive(Debug, Clone)]
struct Tenant {
    stage: Stage,
    namespace: Namespace,
    crowd: Crowd,
}

impl Tenant {
    async fn open(bench: &Bench, file: &str, crowd: Crowd) -> anyhow::Result<Self> {
        // Records on both sides of those that are written to.
        let namespace = Namespace::parse(namespace_name(crowd.namespaces / 2))?;
        let stage = Stage::open(bench.path(file), [namespace.clone()]).await?;
        bench.progress("writing the records");
        stage.bare().crowd(crowd, &value(0)).await?;
        Ok(Self {
            stage,
            namespace,
            crowd,
        })
    }

    /// Of the keys, half are there at first and half are new.
    async fn puts(self, seed: u64) -> anyhow::Result<Latencies> {
        let mut numbers = Numbers::seeded(seed);
        let mut latencies = Latencies::default();
        for _ in 0..PUTS {
            let number = numbers.below(2 * self.crowd.keys);
            let key = Key::parse(key(number))?;
            let put = self.stage.put(&self.namespace, key, value(number));
            latencies.time(put).await?;
        }
        Ok(latencies)
    }
}
