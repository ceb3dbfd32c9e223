//! One invocation after another, without a server.

use std::sync::Arc;

use alga_host_api::Request;
use alga_runner::app::{App, engine_options};
use alga_runner::config::Config;
use alga_runner::execute::Executor;
use alga_runner::installs::KnownInstall;
use alga_storage::{Gate, JsonText, Key};
use anyhow::{Context as _, ensure};

use super::bare::{self, Bare};
use super::memory::Memory;
use super::stage;
use crate::measure::{Latencies, in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::Bench;

const CALLS: u32 = 2_000;
const NOTE: &str = r#"{"title":"Printer","text":"Does not print."}"#;
const BODY: &str = r#"{"line":"Out of paper."}"#;

/// A request that the notes example answers with one get and one put.
pub(super) async fn get_and_put(bench: Bench) -> anyhow::Result<Figure> {
    let config = stage::config(&bench, "data");
    let app = App::build(&config).await?;
    let install = stage::install(&app, &bench, &stage::bundle_of("notes")).await?;
    let component = std::fs::read(stage::bundle_of("notes").join("dist/main.wasm"))?;

    let options = engine_options(&config);
    let engine = Bare::engine(&options)?;
    let bare = Bare::compile(&engine, &component)?;
    let ours = Arc::new(Ours::new(&config, &app, install)?);

    let turns = in_turns(
        &bench,
        |_| calls_of_bare(bare.clone()),
        |_| calls_of_ours(Arc::clone(&ours)),
    )
    .await?;
    let ours = median(turns.iter().map(|(_, ours)| ours.p50()));
    let bare = median(turns.iter().map(|(bare, _)| bare.p50()));
    let p99 = median(turns.iter().map(|(_, ours)| ours.p99()));
    Ok(Figure::new(ours, "µs p50")
        .against(bare, Bar::AtMost(1.5))
        .note(format!("p99 {p99:.1} µs")))
}

/// The executor of a server, with storage in memory.
struct Ours {
    executor: Executor,
    memory: Arc<Memory>,
    install: Arc<KnownInstall>,
}

impl Ours {
    fn new(config: &Config, app: &App, install: Arc<KnownInstall>) -> anyhow::Result<Self> {
        let memory = Arc::<Memory>::default();
        let gate = Gate::new(Arc::clone(&app.installs) as _, Arc::clone(&memory) as _);
        let activity = app.admin.activity.clone();
        let activity = activity.context("it runs extensions")?;
        Ok(Self {
            executor: app.stores.executor(config, activity, gate)?,
            memory,
            install,
        })
    }
}

async fn calls_of_ours(ours: Arc<Ours>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    for number in 0..CALLS {
        ours.memory.seed(
            ours.install.install.id,
            Key::parse(id(number))?,
            JsonText::parse(NOTE)?,
        );
        let call = stage::call(
            Arc::clone(&ours.install),
            Request::new("POST", &path(number)).body(BODY),
        );
        let answer = latencies.time(ours.executor.execute(call)).await?;
        ensure!(answer.status == 200, "it answered {}", answer.status);
    }
    Ok(latencies)
}

async fn calls_of_bare(bare: Bare) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    for number in 0..CALLS {
        bare.seed(id(number), NOTE.to_owned());
        let request = bare::Request {
            method: "POST".to_owned(),
            path: path(number),
            query: None,
            headers: Vec::new(),
            body: Some(BODY.into()),
        };
        let answer = latencies.time(bare.call(&request)).await?;
        ensure!(answer.status == 200, "it answered {}", answer.status);
    }
    Ok(latencies)
}

fn id(number: u32) -> String {
    format!("note-{number}")
}

fn path(number: u32) -> String {
    format!("/notes/{}/lines", id(number))
}
