//! `alga-runner bundle sweep`, `gc` and `fsck`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::app::Stores;
use crate::bundle_care::{
    UPLOADS_KEPT, damages, earlier, garbage, remove_garbage, repair, sweep_uploads,
};
use crate::cli::output::{self, Tally};
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct Sweep {
    /// Remove uploads that are older than this, instead of a day
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Gc {
    /// Remove the objects, instead of only printing them
    #[arg(long)]
    delete: bool,
    /// Leave objects alone that were written since; a version may be about to be registered
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    older_than: Duration,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Fsck {
    /// Write copies of manifests again, and remove bundles that are damaged, so that they can be published
    /// again
    #[arg(long)]
    repair: bool,
}

/// An object that no version needs, as it is printed.
#[derive(Debug, Serialize)]
struct GarbageLine {
    key: String,
    size: u64,
    deleted: bool,
}

impl Sweep {
    /// Prints as JSON how many uploads were removed.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let age = self.older_than.unwrap_or(UPLOADS_KEPT);
        let before = earlier(stores.clock.now(), age);
        output::json(&sweep_uploads(&*stores.bundles, before).await?)?;
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Gc {
    /// Prints each object on a line, as JSON.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        let before = earlier(stores.clock.now(), self.older_than);
        for found in garbage(store, registry, before).await? {
            let deleted = self.delete && remove_garbage(store, registry, &found, before).await?;
            output::json(&GarbageLine {
                key: found.key.to_string(),
                size: found.size,
                deleted,
            })?;
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Fsck {
    /// Prints each damage on a line, as JSON; fails where any is left.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        let mut tally = Tally::new("MiB read:");
        let found = damages(store, registry, |bytes| tally.show(bytes >> 20)).await?;
        drop(tally);
        let mut left = 0_usize;
        for damage in &found {
            output::json(damage)?;
            let is_repaired = self.repair && repair(store, registry, damage).await?;
            left += usize::from(!is_repaired);
        }
        stores.close().await;
        if left == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        output::note(format_args!(
            "{left} left that needs its bundle to be published again"
        ));
        Ok(ExitCode::FAILURE)
    }
}
