//! `alga-runner serve`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use alga_model::{Clock as _, SystemClock};
use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::output;
use crate::app::App;
use crate::config::Config;
use crate::http::{AppState, Server};
use crate::telemetry;
use crate::tokens::Tokens;

/// How often histograms are emptied into what `/metrics` shows.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Listen on this address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Run extensions and keep their storage (all), or one of the two (runner, storage)
    #[arg(long, value_name = "ROLE")]
    pub(super) role: Option<String>,
    /// Allow everything without a token, on loopback only
    #[arg(long)]
    pub(super) insecure_dev: bool,
}

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let metrics = telemetry::install_metrics()?;
    let app = App::build(config).await?;
    let tokens = if config.server.insecure_dev {
        tracing::warn!("INSECURE: every caller may do everything, as server.insecure_dev is set");
        None
    } else {
        let tokens = Tokens::open(config)?;
        if let Some(files) = tokens.files() {
            tracing::info!(
                service_token = %files.service.display(),
                admin_token = %files.admin.display(),
                "no tokens are configured; those in the data folder are accepted"
            );
        }
        Some(tokens)
    };
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(METRICS_UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    let max_body_bytes = usize::try_from(config.server.max_body_bytes).unwrap_or(usize::MAX);
    let state = AppState::new(app, tokens, Some(metrics), max_body_bytes);
    let stop = stop_signal()?;
    let server = Server::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        role = config.role().as_str(),
        storage_api = config.storage_api.url,
        address = %server.address,
        data_dir = %config.data.dir.display(),
        key_id = state.app.stores.keys.current().id(),
        started_at = %SystemClock::default().now(),
        "started"
    );
    // The one line on standard output: whoever started us on port 0 learns the port here.
    output::line(format_args!("listening on http://{}", server.address))?;
    server
        .serve(state.clone(), stop, config.server.drain_timeout)
        .await;
    state.app.stores.close().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Resolves with the first SIGTERM or SIGINT. The second one ends the process as it would any.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("stopping at once, as a second signal asks");
            std::process::exit(1);
        });
    })
}
