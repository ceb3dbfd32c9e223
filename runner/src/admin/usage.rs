//! What installs and tenants store.

use alga_model::{InstallId, TenantId};
use alga_registry::Install;
use alga_storage::{Actor, Holding, Limits, Quotas, Scope, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::limits::quotas_json;
use super::operation::{Answer, Ask, Method, Operation};
use super::{Admin, Author, schema};

/// `GET /v1/installs/{install_id}/usage`.
#[derive(Debug)]
pub struct ShowInstallUsage;

/// `GET /v1/tenants/{tenant_id}/usage`.
#[derive(Debug)]
pub struct ShowTenantUsage;

/// What an install stores and may store, as the storage API says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallUsageBody {
    /// The bytes of its values and metadata.
    pub bytes: u64,
    /// Its records.
    pub keys: u64,
    /// Its namespaces that hold any.
    pub namespaces: usize,
    /// What is expired and still there; not counted above.
    pub expired_not_removed: ExpiredBody,
    /// What it may store.
    pub limits: Value,
    /// Each namespace.
    pub per_namespace: Vec<NamespaceUsageBody>,
}

/// What is expired and still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredBody {
    /// Its records.
    pub keys: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What is stored in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceUsageBody {
    /// The namespace.
    pub namespace: String,
    /// Its records.
    pub keys: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What the installs of a tenant store together and may store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantUsageBody {
    /// The bytes of all its installs.
    pub bytes: u64,
    /// What it may store.
    pub limits: Value,
    /// Each install that stores something.
    pub per_install: Vec<InstallHoldingBody>,
}

/// What an install stores, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallHoldingBody {
    /// The install.
    pub install_id: InstallId,
    /// Its bytes.
    pub bytes: u64,
    /// Its namespaces that hold any.
    pub namespaces: u64,
    /// The records of the namespace that has the most.
    pub keys_of_fullest_namespace: u64,
}

impl Operation for ShowInstallUsage {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/usage";
    const SUMMARY: &'static str = "Shows what an install stores and may store";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = InstallUsageBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<InstallUsageBody, AdminError> {
        let install = admin.find(by, ask.target).await?;
        let limits = admin.installs.install_limits(&install).await?;
        // Past the gate: what a disabled install stores must be seen as well.
        let usage = admin.storage.usage(&scope(by, install, limits)).await?;
        Ok((&usage).into())
    }
}

impl Operation for ShowTenantUsage {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/tenants/{tenant_id}/usage";
    const SUMMARY: &'static str =
        "Shows what the installs of a tenant store together and may store";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = TenantId;
    type Query = ();
    type Body = ();
    type Answer = TenantUsageBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<TenantUsageBody, AdminError> {
        by.ensure_tenant(ask.target)?;
        let limits = admin.installs.tenant_limits(ask.target).await?;
        let holdings = admin.storage.holdings(ask.target).await?;
        Ok(TenantUsageBody::new(&holdings, &limits.quotas))
    }
}

fn scope(by: &Author, install: Install, limits: Limits) -> Scope {
    Scope {
        tenant: install.tenant,
        install: install.id,
        extension: install.extension_name,
        limits,
        actor: Actor::Admin(by.actor.as_str().into()),
        request_id: by.request_id.clone().unwrap_or_default(),
        operation_id: None,
    }
}

impl From<&Usage> for InstallUsageBody {
    fn from(usage: &Usage) -> Self {
        let per_namespace = usage.per_namespace.iter().map(|of| NamespaceUsageBody {
            namespace: of.namespace.as_str().to_owned(),
            keys: of.keys,
            bytes: of.bytes,
        });
        Self {
            bytes: usage.bytes,
            keys: usage.keys,
            namespaces: usage.per_namespace.len(),
            expired_not_removed: ExpiredBody {
                keys: usage.expired_keys,
                bytes: usage.expired_bytes,
            },
            limits: quotas_json(&usage.quotas),
            per_namespace: per_namespace.collect(),
        }
    }
}

impl TenantUsageBody {
    fn new(holdings: &[Holding], quotas: &Quotas) -> Self {
        let per_install = holdings.iter().map(|holding| InstallHoldingBody {
            install_id: holding.install,
            bytes: holding.bytes,
            namespaces: holding.namespaces,
            keys_of_fullest_namespace: holding.keys_of_fullest,
        });
        Self {
            bytes: holdings.iter().map(|holding| holding.bytes).sum(),
            limits: quotas_json(quotas),
            per_install: per_install.collect(),
        }
    }
}

impl Answer for InstallUsageBody {
    const NAME: &'static str = "InstallUsage";

    fn schema() -> Value {
        let namespace = schema::answer(&[
            ("namespace", schema::text()),
            ("keys", schema::count()),
            ("bytes", schema::count()),
        ]);
        schema::answer(&[
            ("bytes", schema::count()),
            ("keys", schema::count()),
            ("namespaces", schema::count()),
            (
                "expiredNotRemoved",
                schema::answer(&[("keys", schema::count()), ("bytes", schema::count())]),
            ),
            ("limits", json!({ "type": "object" })),
            ("perNamespace", schema::list(&namespace)),
        ])
    }
}

impl Answer for TenantUsageBody {
    const NAME: &'static str = "TenantUsage";

    fn schema() -> Value {
        let install = schema::answer(&[
            ("installId", schema::uuid()),
            ("bytes", schema::count()),
            ("namespaces", schema::count()),
            ("keysOfFullestNamespace", schema::count()),
        ]);
        schema::answer(&[
            ("bytes", schema::count()),
            ("limits", json!({ "type": "object" })),
            ("perInstall", schema::list(&install)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use alga_storage::{Namespace, NamespaceUsage};

    use super::*;

    #[test]
    fn an_install_is_told_of_in_the_words_of_the_storage_api() {
        let usage = Usage {
            bytes: 5,
            keys: 2,
            expired_keys: 1,
            expired_bytes: 3,
            per_namespace: vec![NamespaceUsage {
                namespace: Namespace::parse("notes").unwrap(),
                keys: 2,
                bytes: 5,
            }],
            quotas: Quotas::default(),
        };
        assert_eq!(
            serde_json::to_value(InstallUsageBody::from(&usage)).unwrap(),
            json!({
                "bytes": 5,
                "keys": 2,
                "namespaces": 1,
                "expiredNotRemoved": {"keys": 1, "bytes": 3},
                "limits": quotas_json(&usage.quotas),
                "perNamespace": [{"namespace": "notes", "keys": 2, "bytes": 5}],
            })
        );
    }
}
