//! Running extensions, each figure beside Wasmtime alone.

mod bare;
mod client;
mod footprint;
mod http;
mod invoke;
mod memory;
mod neighbour;
mod restart;
mod stage;

use crate::session::Session;

/// Measures every line of the engine that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    session.line("engine/invoke", invoke::get_and_put).await?;
    session.line("engine/http", http::beside_wasm).await?;
    session
        .line("engine/http-hello", http::beside_hello)
        .await?;
    let name = "engine/neighbour";
    session.line(name, neighbour::beside_loops).await?;
    let name = "engine/neighbour-waiting";
    session
        .line(name, neighbour::beside_loops_that_wait)
        .await?;
    session.line("engine/restart-rust", restart::rust).await?;
    let name = "engine/restart-typescript";
    session.line(name, restart::typescript).await?;
    let name = "engine/memory-execution";
    session.line(name, footprint::of_executions).await?;
    let name = "engine/memory-install";
    session.line(name, footprint::of_known_installs).await?;
    let name = "engine/memory-install-called";
    session.line(name, footprint::of_called_installs).await
}
