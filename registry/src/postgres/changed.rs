//! What was changed, told from process to process.

use alga_model::{InstallId, TenantId};
use async_trait::async_trait;

use super::error::PostgresError;
use super::session::Session;
use crate::error::RegistryError;
use crate::listener::{Changed, Listener};

pub(super) const CHANNEL: &str = "alga_registry";

/// Sent when the transaction is committed, the same once.
const TELL: &str = "SELECT pg_notify('alga_registry', $1)";
const INSTALL: &str = "install";
const TENANT: &str = "tenant";
const ALL: &str = "all";

/// Tells all processes of a change, once the transaction that makes it is committed.
#[tracing::instrument(level = "debug", name = "db.changed.tell", skip_all)]
pub(super) async fn tell(session: &mut Session<'_>, changed: Changed) -> Result<(), PostgresError> {
    let tell = session.of(TELL).bind(text(changed));
    session.execute(tell).await?;
    Ok(())
}

/// Listens to what other processes, and this one, tell.
#[derive(Debug)]
pub(super) struct PostgresListener(pub(super) alga_postgres::Listener);

#[async_trait]
impl Listener for PostgresListener {
    async fn next(&mut self) -> Result<Changed, RegistryError> {
        Ok(parse(&self.0.next().await?))
    }
}

fn text(changed: Changed) -> String {
    match changed {
        Changed::Install(id) => format!("{INSTALL} {id}"),
        Changed::Tenant(id) => format!("{TENANT} {id}"),
        Changed::All => ALL.to_owned(),
    }
}

/// What nobody here says, a newer release may.
fn parse(text: &str) -> Changed {
    let changed = text.split_once(' ').and_then(|(what, id)| match what {
        INSTALL => Some(Changed::Install(id.parse::<InstallId>().ok()?)),
        TENANT => Some(Changed::Tenant(id.parse::<TenantId>().ok()?)),
        _ => None,
    });
    changed.unwrap_or(Changed::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        for changed in [
            Changed::Install(InstallId::generate()),
            Changed::Tenant(TenantId::generate()),
            Changed::All,
        ] {
            assert_eq!(parse(&text(changed)), changed);
        }
    }

    #[test]
    fn what_is_not_understood_may_be_anything() {
        let id = InstallId::generate();
        for told in ["", "install", "install ", "install x", "bundle 1", " all"] {
            assert_eq!(parse(told), Changed::All, "{told:?}");
        }
        assert_eq!(parse(&format!("version {id}")), Changed::All);
    }

    #[test]
    fn it_is_told_where_it_is_listened() {
        assert!(TELL.contains(&format!("'{CHANNEL}'")));
    }
}
