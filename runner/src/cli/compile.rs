//! `alga-runner compile`: what the runner starts to compile a component apart from everything else.
//!
//! It is no interface: arguments and output change from one release to the next, and both ends are
//! always of the same one.

use std::process::ExitCode;

use clap::{Args, value_parser};

use crate::engine::CompileTask;

#[derive(Debug, Args)]
pub(super) struct Compile {
    /// The bytes of the component, which come on standard input
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(1..=1 << 32))]
    component_bytes: u64,
    /// Bytes of memory it may take
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(1..=1 << 48))]
    memory_bytes: u64,
    /// Seconds it may compute, all threads together
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=1 << 32))]
    cpu_seconds: u64,
    /// Have the code count fuel
    #[arg(long)]
    fuel: bool,
}

impl Compile {
    /// Writes the code to standard output.
    pub(super) fn run(&self) -> ExitCode {
        CompileTask::from(self).run()
    }
}

impl From<&Compile> for CompileTask {
    fn from(compile: &Compile) -> Self {
        Self {
            component_bytes: compile.component_bytes,
            memory_bytes: compile.memory_bytes,
            cpu_seconds: compile.cpu_seconds,
            fuel: compile.fuel,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn what_the_engine_asks_for_is_what_is_done() {
        for fuel in [false, true] {
            let task = CompileTask {
                component_bytes: 1,
                memory_bytes: 2,
                cpu_seconds: 3,
                fuel,
            };
            let line = [vec![OsString::from("alga-runner")], task.arguments()].concat();
            let Command::Compile(compile) = Cli::try_parse_from(line).unwrap().command else {
                panic!("another command");
            };
            assert_eq!(CompileTask::from(&compile), task);
        }
    }
}
