//! The command `alga-runner`.

use std::process::ExitCode;

use alga_runner::cli;

/// A write of many records is thousands of small allocations, on several threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
