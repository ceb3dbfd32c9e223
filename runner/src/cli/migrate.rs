//! `alga-runner migrate`.

use std::process::ExitCode;

use alga_schema::{Database, DatabaseError};
use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};

use super::output;
use crate::app::{Stores, ensure_data};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Apply the migrations that are missing
    Up,
    /// Revert the migrations after a version, and lose what only they can store
    Down(Down),
    /// Show which migrations there are and which are applied
    Status,
}

#[derive(Debug, Args)]
pub(super) struct Down {
    /// Which database
    database: Name,
    /// The version to return to; 0 reverts everything
    #[arg(long, value_name = "VERSION")]
    to: i64,
    /// Yes, lose what only the later migrations can store
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Storage,
    Registry,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if !matches!(self, Self::Up) {
            ensure_data(config)?;
        }
        let stores = Stores::open_unmigrated(config).await?;
        let databases = [
            ("storage", stores.storage.here()?.database()),
            ("registry", stores.registry.database()),
        ];
        match self {
            Self::Status => status(databases).await?,
            Self::Up => {
                for (_, database) in databases {
                    database.migrate_up().await.map_err(failed)?;
                }
                status(databases).await?;
            }
            Self::Down(down) => {
                let [(_, storage), (_, registry)] = databases;
                let database = match down.database {
                    Name::Storage => storage,
                    Name::Registry => registry,
                };
                ensure!(
                    down.yes,
                    "this loses what only the later migrations can store; say --yes to go on"
                );
                database.migrate_down_to(down.to).await.map_err(failed)?;
                status(databases).await?;
            }
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

async fn status(databases: [(&str, &dyn Database); 2]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, database) in databases {
        for migration in database.migration_status().await.map_err(failed)? {
            let applied = if migration.applied {
                "applied"
            } else {
                "missing"
            };
            rows.push([
                name.to_owned(),
                migration.version.to_string(),
                migration.name,
                applied.to_owned(),
            ]);
        }
    }
    Ok(output::table(
        ["DATABASE", "VERSION", "NAME", "STATE"],
        &rows,
    )?)
}

fn failed(error: DatabaseError) -> anyhow::Error {
    anyhow::Error::from_boxed(error)
}
