//! The limits of an install or a tenant: what `install limits` and `tenant limits` have in common.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::input;
use crate::admin::ReplaceLimitsBody;

/// More than the registry stores; it says so then.
const MOST_INPUT: u64 = 1 << 20;

/// What is to become of overrides.
#[derive(Debug, Args)]
pub(super) struct Edit {
    /// Replace the overrides by this JSON, such as '{"quotas": {"keysPerNamespace": 20000}}', or by
    /// that of a file; `-` reads standard input
    #[arg(long, value_name = "JSON|FILE", conflicts_with = "clear")]
    set: Option<PathBuf>,
    /// Remove the overrides
    #[arg(long)]
    clear: bool,
}

impl Edit {
    /// What the overrides shall be; nothing where they are to be left alone.
    pub(super) fn wanted(&self) -> anyhow::Result<Option<ReplaceLimitsBody>> {
        let overrides = match &self.set {
            Some(argument) => Some(read(argument)?),
            None if self.clear => None,
            None => return Ok(None),
        };
        Ok(Some(ReplaceLimitsBody { overrides }))
    }
}

/// The JSON that an argument is, or that is in the file it names.
fn read(argument: &Path) -> anyhow::Result<Value> {
    let inline = argument
        .to_str()
        .filter(|text| text.trim_start().starts_with('{'));
    match inline {
        Some(text) => input::parsed(text).context("the argument of --set is not JSON"),
        None => input::json(argument, MOST_INPUT),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(set: &str) -> anyhow::Result<Option<ReplaceLimitsBody>> {
        let edit = Edit {
            set: Some(set.into()),
            clear: false,
        };
        edit.wanted()
    }

    #[test]
    fn json_is_read_from_the_argument_or_from_the_file_it_names() {
        let overrides = json!({"quotas": {"namespaces": 1}});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), overrides.to_string()).unwrap();
        for set in [&format!(" {overrides}"), file.path().to_str().unwrap()] {
            let wanted = wanted(set).unwrap().unwrap();
            assert_eq!(wanted.overrides.as_ref(), Some(&overrides), "{set}");
        }
        let refused = wanted("{quotas").unwrap_err();
        assert!(refused.to_string().contains("--set"), "{refused:#}");
    }
}
