//! What a tenant whose guests compute without end costs the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_guest_fixtures as fixtures;
use alga_host_api::Request;
use alga_runner::app::App;
use alga_runner::installs::KnownInstall;
use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;

use super::stage;
use crate::measure::{Latencies, in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// Calls at once, of all tenants but the looping one.
const CALLS: usize = 200;
const TENANTS: usize = 4;
const LOOPS: usize = 50;
/// None of the loops ends by itself.
const TIMEOUT: Duration = Duration::from_secs(600);

const MICROS_PER_MILLI: f64 = 1_000.0;

/// 200 calls of four tenants at once, beside 50 endless loops of a fifth, and without them.
pub(super) async fn beside_loops(bench: Bench) -> anyhow::Result<Figure> {
    beside(bench, fixtures::endless_loop()).await
}

/// The same where the loops wait for what is there already, after each millisecond or so.
pub(super) async fn beside_loops_that_wait(bench: Bench) -> anyhow::Result<Figure> {
    beside(bench, fixtures::compute_between_waits(1_000_000)).await
}

async fn beside(bench: Bench, looping: Vec<u8>) -> anyhow::Result<Figure> {
    let street = Arc::new(Street::of(&bench, &looping).await?);
    let turns = in_turns(
        &bench,
        |_| Arc::clone(&street).quiet(),
        |_| Arc::clone(&street).loaded(),
    )
    .await?;
    let quiet = median(turns.iter().map(|(quiet, _)| *quiet));
    let loaded = median(turns.iter().map(|(_, loaded)| *loaded));
    let bar = Bar::Within {
        times: 2.0,
        and: 10.0,
    };
    Ok(Figure::new(loaded, "ms p99")
        .against(quiet, bar)
        .note(format!(
            "{CALLS} calls of {TENANTS} tenants: {quiet:.1} ms alone, {loaded:.1} ms beside {LOOPS} loops"
        )))
}

/// A runner with the defaults, and who lives there.
struct Street {
    app: App,
    good: Vec<Arc<KnownInstall>>,
    looping: Arc<KnownInstall>,
}

impl Street {
    async fn of(bench: &Bench, looping: &[u8]) -> anyhow::Result<Self> {
        let mut config = stage::config(bench, "data");
        config.engine.timeout = TIMEOUT;
        config.engine.host_calls = u64::MAX;
        let app = App::build(&config).await?;
        let mut good = Vec::new();
        for tenant in 0..TENANTS {
            let folder = bundle(bench, &format!("good{tenant}"), &fixtures::echo())?;
            good.push(stage::install(&app, bench, &folder).await?);
        }
        let folder = bundle(bench, "loop", looping)?;
        let looping = stage::install(&app, bench, &folder).await?;
        Ok(Self { app, good, looping })
    }

    async fn quiet(self: Arc<Self>) -> anyhow::Result<f64> {
        self.burst().await
    }

    async fn loaded(self: Arc<Self>) -> anyhow::Result<f64> {
        let mut loops = JoinSet::new();
        for _ in 0..LOOPS {
            let street = Arc::clone(&self);
            let call = stage::call(Arc::clone(&self.looping), Request::new("GET", "/"));
            loops.spawn(async move {
                let executor = &street.app.extensions()?.executor;
                executor.execute(call).await?;
                anyhow::Ok(())
            });
        }
        // Its calls come behind those of the loops: when they are answered, all loops run.
        self.burst().await?;
        let took = self.burst().await?;
        ensure!(loops.try_join_next().is_none(), "a loop has ended");
        loops.shutdown().await;
        Ok(took)
    }

    /// How long the slowest calls of a burst took but for one in a hundred, in milliseconds.
    async fn burst(self: &Arc<Self>) -> anyhow::Result<f64> {
        let mut calls = JoinSet::<anyhow::Result<Duration>>::new();
        for install in self.good.iter().cycle().take(CALLS) {
            let street = Arc::clone(self);
            let call = stage::call(Arc::clone(install), Request::new("GET", "/"));
            let start = Instant::now();
            calls.spawn(async move {
                let answer = street.app.extensions()?.executor.execute(call).await?;
                ensure!(answer.status == 200, "it answered {}", answer.status);
                Ok(start.elapsed())
            });
        }
        let took: anyhow::Result<Latencies> = calls.join_all().await.into_iter().collect();
        Ok(took?.p99() / MICROS_PER_MILLI)
    }
}

/// A folder that the component's bundle can be packed from.
fn bundle(bench: &Bench, name: &str, component: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = bench.path(name);
    let manifest = json!({
        "name": format!("com.example.{name}"),
        "publisher": "Benchmarks",
        "version": "1.0.0",
        "runtime": "wasm-component@1",
        "capabilities": {},
    });
    std::fs::create_dir_all(folder.join("dist"))?;
    std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    std::fs::write(folder.join("dist/main.wasm"), component)?;
    Ok(folder)
}
