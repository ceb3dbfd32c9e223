//! A server under mixed load for minutes, which must not hold more in the end than in the beginning.
//!
//! The server is the real program in a process of its own, with its defaults. Whatever it is asked
//! has an answer that is expected; another one ends the soak at once. An error in its log fails it.

mod load;
mod samples;
mod scene;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::load::Actor;
use self::samples::{HANDLES, Sample, Samples, THREADS};
use self::scene::Scene;
use crate::server::{Program, Server};
use crate::session::show_progress;

/// How often the server is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long the server may take to give back what requests held. Threads for blocking work end after
/// ten seconds without any, idle connections sooner.
const PATIENCE: Duration = Duration::from_secs(40);
/// An actor that takes longer over one thing is stuck.
const LAST_STEP: Duration = Duration::from_secs(60);

/// Puts load on a server for minutes and fails where it holds more and more. Prints a table, and writes
/// soak.csv with what was looked at every second.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the server's data is for the time being, and the samples stay
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// The program `alga-runner`
    #[arg(long, value_name = "FILE")]
    runner: PathBuf,
    /// How long the load lasts
    #[arg(default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
}

/// Soaks as the arguments after `soak` say.
#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse_from(std::env::args_os().skip(1));
    tokio::select! {
        soaked = soak(&arguments) => soaked,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitCode::from(130))
        }
    }
}

async fn soak(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (folder, lasts) = (
        &arguments.folder,
        Duration::from_secs(arguments.minutes * 60),
    );
    let cannot = || format!("cannot use the folder {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let data = TempDir::with_prefix_in("soak-", folder).with_context(cannot)?;
    let program = Program::new(&arguments.runner, data.path());
    scene::publish(&program).context("cannot publish the extensions")?;
    let server = program.serve()?;
    let soaked = under_load(&server, lasts).await;
    let samples = soaked.with_context(|| format!("the server's last words:\n{}", server.log()))?;
    samples.write(&folder.join("soak.csv"))?;
    samples.print()?;
    let errors = server.errors();
    ensure!(
        errors.is_empty(),
        "the server logged:\n{}",
        errors.join("\n")
    );
    Ok(if samples.are_fine() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the server held before, in the course of, and after the load.
async fn under_load(server: &Server, lasts: Duration) -> anyhow::Result<Samples> {
    let scene = Arc::new(Scene::install(server).await?);
    load::once(&scene)
        .await
        .context("cannot do everything once")?;
    let mut samples = Samples::at_rest(at_rest(server, None).await?);
    let (stop, stopped) = watch::channel(false);
    let mut actors = JoinSet::new();
    for actor in Actor::all() {
        actors.spawn(actor.act(Arc::clone(&scene), stopped.clone()));
    }
    drop(stopped);
    let start = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    while start.elapsed() < lasts {
        tokio::select! {
            _ = ticks.tick() => {
                samples.add(start.elapsed(), Sample::of(server.pid())?);
                show_progress(&format!("soak: {} of {} s", start.elapsed().as_secs(), lasts.as_secs()));
            }
            ended = actors.join_next() => match ended.context("nobody acts")?? {
                Ok(_) => bail!("somebody ended too early"),
                Err(error) => return Err(error),
            }
        }
    }
    show_progress("soak: coming to rest");
    stop.send_replace(true);
    let ended = tokio::time::timeout(LAST_STEP, async {
        while let Some(ended) = actors.join_next().await {
            let (name, steps) = ended??;
            samples.count(name, steps);
        }
        anyhow::Ok(())
    });
    ended.await.context("some requests are never answered")??;
    let before = samples.before();
    samples.ended(at_rest(server, Some(before)).await?);
    show_progress("");
    Ok(samples)
}

/// What the server holds when nobody asks anything: no more than before, as soon as that is so. Where
/// it stays more, the verdict is for others to give.
async fn at_rest(server: &Server, before: Option<Sample>) -> anyhow::Result<Sample> {
    let start = Instant::now();
    loop {
        let now = Sample::of(server.pid())?;
        let is_at_rest = before.map_or(start.elapsed() > 15 * EVERY, |before| {
            now.handles <= before.handles + HANDLES && now.threads <= before.threads + THREADS
        });
        if is_at_rest || start.elapsed() > PATIENCE {
            return Ok(now);
        }
        tokio::time::sleep(EVERY).await;
    }
}
