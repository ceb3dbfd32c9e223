//! `alga-runner config`.

use std::process::ExitCode;

use clap::Subcommand;

use super::output;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every setting, where it comes from, and no secret
    Print,
    /// Say whether the settings are good; what is wrong is listed completely
    Check,
}

impl Command {
    /// The settings were read before, with all mistakes reported.
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        match self {
            Self::Print => output::line(config.render().trim_end())?,
            Self::Check => output::line("the settings are good")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
