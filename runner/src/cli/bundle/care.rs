//! `alga-runner bundle sweep`, `gc` and `fsck`.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use alga_bundles::{BundleStore, Retry};
use alga_registry::Registry;
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::app::Stores;
use crate::bundle_care::{
    Damage, Owner, Search, UPLOADS_KEPT, earlier, garbage, remove_garbage, repair, sweep_uploads,
};
use crate::bundle_store;
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
    /// Mark the store as this registry's from now on, whosever it was
    #[arg(long)]
    take_over: bool,
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
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        ensure_not_anothers(store, registry, config).await?;
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
        if self.take_over {
            Owner::take_over(store, registry).await?;
        }
        let owner = ensure_not_anothers(store, registry, config).await?;
        ensure!(
            !self.delete || owner == Owner::Ours,
            "nobody has marked {} yet, so that it may be any registry's: start a server on it, or name \
             `--take-over`",
            bundle_store::place(config)
        );
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
    /// Prints each damage on a line, as JSON, as soon as it is found; fails where any is left.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (store, registry) = (&*stores.bundles, &*stores.registry as _);
        ensure_not_anothers(store, registry, config).await?;
        let tally = RefCell::new(Tally::new("MiB read:"));
        let damages = RefCell::new(Vec::new());
        let search = Search {
            store,
            registry,
            retry: Retry::default(),
            progress: &|bytes| tally.borrow_mut().show(bytes >> 20),
            found: &|damage| {
                tally.borrow_mut().pause();
                output::json(&damage)?;
                damages.borrow_mut().push(damage);
                Ok(())
            },
        };
        let searched = search.run().await;
        drop(tally);
        let (mut unreadable, mut left) = (0_usize, 0_usize);
        for damage in damages.into_inner() {
            if let Damage::Unreadable { .. } = damage {
                unreadable += 1;
            } else if !self.repair || !is_repaired(store, registry, &damage).await {
                left += 1;
            }
        }
        stores.close().await;
        searched.context("not everything was looked at")?;
        if unreadable > 0 {
            output::note(format_args!("{unreadable} could not be read"));
        }
        if left > 0 {
            output::note(format_args!(
                "{left} left that needs its bundle to be published again"
            ));
        }
        Ok(if unreadable + left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// To a registry that is not its own, a store is full of garbage and has nothing that is needed.
async fn ensure_not_anothers(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    config: &Config,
) -> anyhow::Result<Owner> {
    let owner = Owner::of(store, registry).await?;
    if let Owner::Another(mark) = &owner {
        bail!(
            "{} is that of another registry ({mark}): name the same database here as for its servers, or, where \
             this registry replaces that one, `bundle gc --take-over`",
            bundle_store::place(config)
        );
    }
    Ok(owner)
}

/// Repairs a damage if it can. What fails is said, and keeps nobody from the next one.
async fn is_repaired(store: &dyn BundleStore, registry: &dyn Registry, damage: &Damage) -> bool {
    let repaired = repair(store, registry, damage).await;
    repaired.unwrap_or_else(|error| {
        output::error(&error.context("cannot repair"));
        false
    })
}
