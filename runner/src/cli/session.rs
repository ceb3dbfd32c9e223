//! Whom a command of administration asks.

use anyhow::ensure;

use super::bundle::REGISTRY_ACTOR;
use crate::admin::{Administration, Author, Client};
use crate::app::Stores;
use crate::config::{ClientConfig, Config};
use crate::credentials;

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
        let ClientConfig {
            server_ca,
            token,
            token_file,
            ..
        } = &config.client;
        let authorities = credentials::authorities(server_ca.as_deref())?;
        let token = credentials::token(token.as_ref(), token_file.as_deref())?;
        let client = Client::new(url, authorities.as_deref(), token)?;
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
