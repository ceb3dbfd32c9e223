//! The command `alga-runner`, as `runner/src/main.rs` has it.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    alga_runner::cli::main().await
}
