//! `alga-runner extension`.

use std::process::ExitCode;

use alga_model::ExtensionName;
use clap::{Args, Subcommand};

use super::output;
use super::session::Session;
use crate::admin::{
    Administration, Ask, ListExtensions, PageQuery, Refused, ShowExtension, ShowVersion,
};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what was ever published
    List,
    /// Print as JSON an extension and its versions, or one version and its manifest
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The extension's name
    extension: ExtensionName,
    /// This version
    #[arg(long)]
    version: Option<String>,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let session = Session::open(config).await?;
        match self {
            Self::List => list(&session.admin).await?,
            Self::Show(command) => command.run(&session.admin).await?,
        }
        session.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(admin: &Administration) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut query = PageQuery::most_after(None);
    loop {
        let page = admin.ask(Ask::<ListExtensions>::by((), query)).await?;
        rows.extend(page.items.into_iter().map(|extension| {
            [
                extension.name.to_string(),
                extension.publisher,
                extension.created_at.to_string(),
            ]
        }));
        match page.next_cursor {
            Some(cursor) => query = PageQuery::most_after(Some(cursor)),
            None => break,
        }
    }
    Ok(output::table(["EXTENSION", "PUBLISHER", "SINCE"], &rows)?)
}

impl Show {
    async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        if let Some(version) = self.version {
            let ask = Ask::<ShowVersion>::of((self.extension, version));
            return Ok(output::json(&admin.ask(ask).await?)?);
        }
        Ok(output::json(&whole(admin, self.extension).await?)?)
    }
}

/// An extension with all its versions.
async fn whole(
    admin: &Administration,
    name: ExtensionName,
) -> Result<crate::admin::ExtensionBody, Refused> {
    let page = |cursor| Ask::<ShowExtension>::by(name.clone(), PageQuery::most_after(cursor));
    let mut whole = admin.ask(page(None)).await?;
    while let Some(cursor) = whole.next_cursor.take() {
        let next = admin.ask(page(Some(cursor))).await?;
        whole.versions.extend(next.versions);
        whole.next_cursor = next.next_cursor;
    }
    Ok(whole)
}
