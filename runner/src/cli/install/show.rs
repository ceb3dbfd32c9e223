//! `alga-runner install show`.

use std::collections::BTreeMap;

use alga_model::{ContentHash, ExtensionName, InstallId, TenantId, Timestamp};
use alga_registry::{Grants, Install, InstallState};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::find;
use crate::app::Stores;
use crate::cli::output;

/// What stands for a setting's value. Nothing says which settings are secrets, so all of them are.
const MASKED: &str = "***";

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The install
    install: InstallId,
}

impl Show {
    pub(super) async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let install = find(stores, self.install).await?;
        Ok(output::json(&Shown::from(&install))?)
    }
}

/// An install, without the values of its settings.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'i> {
    install_id: InstallId,
    tenant_id: TenantId,
    extension: &'i ExtensionName,
    version: &'i str,
    content_hash: ContentHash,
    state: InstallState,
    grants: &'i Grants,
    config: BTreeMap<&'i str, &'static str>,
    allow_envelope_config: bool,
    limits: Option<&'i Value>,
    generation: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'i> From<&'i Install> for Shown<'i> {
    fn from(install: &'i Install) -> Self {
        let settings = install.config.as_map().keys();
        Self {
            install_id: install.id,
            tenant_id: install.tenant,
            extension: &install.extension_name,
            version: &install.version,
            content_hash: install.content_hash,
            state: install.state,
            grants: &install.grants,
            config: settings.map(|name| (name.as_str(), MASKED)).collect(),
            allow_envelope_config: install.allow_envelope_config,
            limits: install.limits.as_ref(),
            generation: install.generation,
            created_at: install.created_at,
            updated_at: install.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use alga_registry::{Config, Registry as _};
    use serde_json::json;

    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn an_install_is_shown_with_all_but_the_values_of_its_settings() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let config = Config::from(BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]));
        let limits = json!({"quotas": {"namespaces": 1}});
        let change = stage.change();
        let set = stage.registry.set_config(install.id, config, None, change);
        set.await.unwrap();
        let set = stage
            .registry
            .set_limits(install.id, Some(limits.clone()), None, change);
        let shown = serde_json::to_value(Shown::from(&set.await.unwrap())).unwrap();
        assert_eq!(
            shown,
            json!({
                "installId": install.id,
                "tenantId": install.tenant,
                "extension": "com.example.notes",
                "version": "1.0.0",
                "contentHash": install.content_hash,
                "state": "enabled",
                "grants": install.grants,
                "config": {"token": "***"},
                "allowEnvelopeConfig": false,
                "limits": limits,
                "generation": 3,
                "createdAt": change.now,
                "updatedAt": change.now,
            })
        );
    }
}
