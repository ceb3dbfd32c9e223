//! The command `alga-runner`, as `runner/src/main.rs` has it.

use std::process::ExitCode;

fn main() -> ExitCode {
    alga_runner::cli::main()
}
