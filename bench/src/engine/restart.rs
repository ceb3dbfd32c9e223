//! The first answer of a process that finds its code compiled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use alga_host_api::Request;
use alga_model::ContentHash;
use alga_runner::app::{App, engine_options};
use alga_runner::config::Config;
use anyhow::{Context as _, ensure};
use tokio::task::spawn_blocking;

use super::bare::{self, Bare};
use super::stage;
use crate::measure::{in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// The notes example.
pub(super) async fn rust(bench: Bench) -> anyhow::Result<Figure> {
    measure(bench, stage::bundle_of("notes")).await
}

/// The example in TypeScript, built from its source.
pub(super) async fn typescript(bench: Bench) -> anyhow::Result<Figure> {
    bench.progress("building tickets-ts");
    let folder = bench.path("tickets");
    let copied = folder.clone();
    spawn_blocking(move || build("tickets-ts", &copied)).await??;
    measure(bench, folder).await
}

/// Makes a folder to pack from, with the component in it.
fn build(example: &str, folder: &Path) -> anyhow::Result<()> {
    let source = stage::bundle_of(example);
    let (guest, mut script) = (source.join(".."), source.clone());
    script.extend(["..", "..", "..", "scripts", "build-guest"]);
    let copied = Command::new("cp")
        .arg("-r")
        .args([&source, folder])
        .status()?;
    ensure!(copied.success(), "cannot copy {}", source.display());
    let built = Command::new(script)
        .args([&guest, &folder.join("dist")])
        .stdout(Stdio::null())
        .status()?;
    ensure!(built.success(), "cannot build {example}");
    Ok(())
}

async fn measure(bench: Bench, bundle: PathBuf) -> anyhow::Result<Figure> {
    let config = stage::config(&bench, "data");
    let app = App::build(&config).await?;
    let install = stage::install(&app, &bench, &bundle).await?.install.id;
    app.stores.close().await;
    drop(app);
    let code = code_of(&config.data.code_cache())?;
    let config = Arc::new(config);

    let turns = in_turns(
        &bench,
        |_| first_of_bare(Arc::clone(&config), code.clone()),
        |_| first_of_ours(Arc::clone(&config), install),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "ms").against(bare, Bar::AtMost(1.5)))
}

/// The one file of compiled code there is.
fn code_of(folder: &Path) -> anyhow::Result<PathBuf> {
    let files = std::fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let code = files.into_iter().find(|file| {
        file.extension()
            .is_some_and(|extension| extension == "cwasm")
    });
    code.context("no code was kept")
}

async fn first_of_ours(config: Arc<Config>, install: alga_model::InstallId) -> anyhow::Result<f64> {
    let app = App::build(&config).await?;
    let start = Instant::now();
    let install = app.installs.find(install).await?.context("it is gone")?;
    let call = stage::call(install, Request::new("GET", "/"));
    app.extensions()?.executor.execute(call).await?;
    let took = start.elapsed();
    app.stores.close().await;
    Ok(took.as_secs_f64() * 1e3)
}

/// Reads the code, makes sure what it is, and calls it.
async fn first_of_bare(config: Arc<Config>, code: PathBuf) -> anyhow::Result<f64> {
    let engine = Bare::engine(&engine_options(&config))?;
    let start = Instant::now();
    let bare = spawn_blocking(move || {
        let code = std::fs::read(code)?;
        let (tag, code) = code.split_at_checked(TAG_BYTES).context("no code")?;
        // What is compared is beside the point, as it is computed in any case.
        std::hint::black_box((tag, ContentHash::of(code)));
        Bare::load(&engine, code)
    })
    .await??;
    let request = bare::Request {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        query: None,
        headers: Vec::new(),
        body: None,
    };
    bare.call(&request).await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// What stands before the code in a file.
const TAG_BYTES: usize = 32;
