//! Measures what the parts of Alga Runner cost, each beside the bare thing it is built on.
//!
//! Both are measured in turns in the same run, so a busy machine slows both alike and their ratio
//! says something on any machine. A ratio that misses its bar fails the run.
//!
//! `alga-bench soak` is another matter: a server under load for minutes.

mod bundles;
mod engine;
mod measure;
mod postgres;
mod remote;
mod report;
mod server;
mod session;
mod soak;
mod storage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::session::Session;

/// That of the command `alga-runner`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the benchmarks, prints a table, and writes report.json beside the databases.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the databases are for the time being, and the report stays.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// The program `alga-runner`; the one beside this program where it is not named.
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// Run only the benchmarks whose names contain one of these.
    filters: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    match first.to_str() {
        // The runner compiles in processes of its own program, which this one is here.
        Some("compile") => Ok(alga_runner::cli::main()),
        Some("soak") => soak::main(),
        _ => measure_all(),
    }
}

#[tokio::main]
async fn measure_all() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    install_metrics()?;
    let runner = match arguments.runner {
        Some(runner) => runner,
        None => std::env::current_exe()?.with_file_name("alga-runner"),
    };
    let mut session = Session::start(&arguments.folder, runner, arguments.filters)?;
    tokio::select! {
        run = run(&mut session) => run?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Ok(ExitCode::from(130));
        }
    }
    let report = session.finish()?;
    report.print()?;
    report.write(&arguments.folder.join("report.json"))?;
    Ok(if report.is_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(session: &mut Session) -> anyhow::Result<()> {
    storage::run(session).await?;
    postgres::run(session).await?;
    remote::run(session).await?;
    bundles::run(session).await?;
    engine::run(session).await
}

/// Collects metrics as a running server does, because that is part of what an operation costs.
fn install_metrics() -> anyhow::Result<()> {
    // How often the server does it too.
    const UPKEEP: Duration = Duration::from_secs(5);
    let buckets: Vec<f64> = (0..17).map(|power| 0.000_25 * 2_f64.powi(power)).collect();
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &buckets)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot start the metrics")?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.run_upkeep();
        }
    });
    Ok(())
}
