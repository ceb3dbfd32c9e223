//! `alga-runner install set`.

use std::str::FromStr;

use alga_model::InstallId;
use clap::{ArgGroup, Args};

use super::super::output;
use crate::admin::{Administration, Ask, EditInstall, EditInstallBody};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub(in crate::cli) struct Set {
    /// The install
    install: InstallId,
    /// Run at most so many calls of it at once, as far as its tenant may; `default` is as many as
    /// the configuration says
    #[arg(long, value_name = "NUMBER|default", group = "what")]
    concurrency: Option<Concurrency>,
    /// Let the config of an envelope count, or not
    #[arg(long, value_name = "true|false", group = "what")]
    allow_envelope_config: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Concurrency(Option<u32>);

impl FromStr for Concurrency {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" {
            return Ok(Self(None));
        }
        Ok(Self(Some(text.parse()?)))
    }
}

impl Set {
    pub(super) async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let edits = [
            self.concurrency
                .map(|Concurrency(most)| EditInstallBody::Concurrency(most)),
            self.allow_envelope_config
                .map(EditInstallBody::AllowEnvelopeConfig),
        ];
        for edit in edits.into_iter().flatten() {
            let ask = Ask::<EditInstall>::with(self.install, edit);
            output::json(&admin.ask(ask).await?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concurrency_is_a_number_or_the_default() {
        assert_eq!("7".parse(), Ok(Concurrency(Some(7))));
        assert_eq!("default".parse(), Ok(Concurrency(None)));
        for wrong in ["", "-1", "many", "4294967296"] {
            assert!(wrong.parse::<Concurrency>().is_err(), "{wrong}");
        }
    }
}
