//! Whom a command of administration asks.

use std::path::{Path, PathBuf};

use alga_model::Secret;
use anyhow::{Context as _, ensure};

use super::bundle::REGISTRY_ACTOR;
use crate::admin::{Administration, Author, Client};
use crate::app::Stores;
use crate::config::secret_file::{self, Readers};
use crate::config::{ClientConfig, Config};

/// Somebody to ask, until it is closed.
#[derive(Debug)]
pub(super) struct Session {
    /// Who is asked.
    pub(super) admin: Administration,
    stores: Option<Stores>,
}

impl Session {
    /// The server that is named, or else the data that is there.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let Some(url) = &config.client.server else {
            let stores = Stores::open_existing(config).await?;
            return Ok(Self {
                admin: here(&stores, config),
                stores: Some(stores),
            });
        };
        let client = Client::new(
            url,
            authorities(&config.client)?.as_deref(),
            token(&config.client)?,
        )?;
        Ok(Self {
            admin: Administration::There(client),
            stores: None,
        })
    }

    /// The server that is named, for what only a server knows.
    pub(super) async fn of_server(config: &Config, what: &str) -> anyhow::Result<Self> {
        ensure!(
            config.client.server.is_some(),
            "{what} are in the memory of the server that runs the install; name it with --server or ALGA_SERVER"
        );
        Self::open(config).await
    }

    /// Closes what was opened.
    pub(super) async fn close(self) {
        if let Some(stores) = self.stores {
            stores.close().await;
        }
    }
}

/// The administration of data that is open.
pub(super) fn here(stores: &Stores, config: &Config) -> Administration {
    let (installs, _) = stores.gate(config);
    Administration::Here {
        admin: Box::new(stores.admin(installs)),
        author: Author::operator(REGISTRY_ACTOR),
    }
}

/// The certificates that vouch for the server, where they aren't those of the system.
fn authorities(config: &ClientConfig) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |file: &PathBuf| {
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
    };
    config.server_ca.as_ref().map(read).transpose()
}

fn token(config: &ClientConfig) -> anyhow::Result<Option<Secret<String>>> {
    match &config.token_file {
        Some(file) => in_file(file).map(Some),
        None => Ok(config.token.clone()),
    }
}

fn in_file(file: &Path) -> anyhow::Result<Secret<String>> {
    let text = secret_file::read(file, Readers::Group)?;
    let token = text.expose().trim();
    ensure!(!token.is_empty(), "the file {} is empty", file.display());
    Ok(Secret::new(token.to_owned()))
}
