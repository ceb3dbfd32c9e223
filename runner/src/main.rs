//! The command `alga-runner`.

use std::process::ExitCode;

use alga_runner::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::main().await
}
