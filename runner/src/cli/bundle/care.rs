//! `alga-runner bundle sweep`, `gc` and `fsck`.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use alga_bundles::Retry;
use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;

use super::advice::{Advice, Left};
use crate::app::Stores;
use crate::bundle_care::{
    Owner, Search, UPLOADS_KEPT, earlier, garbage, remove_garbage, repair, sweep_uploads,
};
use crate::bundle_store;
use crate::cli::duration;
use crate::cli::output::{self, Tally};
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct Sweep {
    /// Remove uploads that are older than this, instead of a day
    #[arg(long, value_name = "DURATION", value_parser = duration::age)]
    older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Gc {
    /// Remove the objects, instead of only printing them
    #[arg(long)]
    delete: bool,
    /// Mark the store as this registry's from now on, whosever it was, and print what would be removed
    #[arg(long, conflicts_with = "delete")]
    take_over: bool,
    /// Leave objects alone that were written since; a version may be about to be registered
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration::age)]
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
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        ensure_not_anothers(&Owner::of(store, registry).await?, config)?;
        let swept = sweep_uploads(store, registry, stores.clock.now(), age).await?;
        output::json(&swept)?;
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Gc {
    /// Prints each object on a line, as JSON.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        let owner = if self.take_over {
            Owner::take_over(store, registry).await?
        } else {
            Owner::of(store, registry).await?
        };
        ensure_not_anothers(&owner, config)?;
        ensure!(
            !self.delete || owner == Owner::Ours,
            "nobody has marked {} yet, so that it may be any registry's: run `bundle gc --take-over` first where it is \
             this one's",
            bundle_store::place(config)
        );
        let before = earlier(stores.clock.now(), self.older_than);
        let garbage = garbage(store, registry, before).await?;
        if garbage.is_empty() {
            let age = humantime::format_duration(self.older_than);
            output::note(format_args!(
                "nothing found that no version needs and that is older than {age}"
            ));
        }
        for found in garbage {
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
    /// Prints each damage on a line, as JSON, as soon as it is found; fails where any is left.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        ensure_not_anothers(&Owner::of(store, registry).await?, config)?;
        let tally = RefCell::new(Tally::new("MiB read:"));
        let findings = RefCell::new(Vec::new());
        let search = Search {
            store,
            registry,
            retry: Retry::default(),
            progress: &|bytes| tally.borrow_mut().show(bytes >> 20),
            found: &|finding| {
                tally.borrow_mut().pause();
                output::json(&finding)?;
                findings.borrow_mut().push(finding);
                Ok(())
            },
        };
        let searched = search.run().await;
        drop(tally);
        let mut advice = Advice::default();
        for finding in findings.into_inner() {
            let left = if self.repair {
                match repair(store, registry, &finding.damage).await {
                    Ok(is_whole) => Left::after_repair(&finding, is_whole),
                    // It keeps nobody from the next one.
                    Err(error) => {
                        output::error(&error.context("cannot repair"));
                        Left::without_repair(&finding)
                    }
                }
            } else {
                Left::without_repair(&finding)
            };
            advice.add(&finding, left);
        }
        stores.close().await;
        for line in advice.lines(searched.as_ref().ok().copied()) {
            output::note(line);
        }
        searched.context("not everything was looked at")?;
        Ok(if advice.is_settled() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// To a registry that is not its own, a store is full of garbage and has nothing that is needed.
fn ensure_not_anothers(owner: &Owner, config: &Config) -> anyhow::Result<()> {
    ensure!(
        !matches!(owner, Owner::Another(_)),
        "{} is that of another registry: name the same database here as for its servers, or, where this registry \
         replaces that one, run `bundle gc --take-over`",
        bundle_store::place(config)
    );
    Ok(())
}
