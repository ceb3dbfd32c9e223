//! The command `alga-runner`.

use std::process::ExitCode;

use alga_runner::cli;

fn main() -> ExitCode {
    cli::main()
}
