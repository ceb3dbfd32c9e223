//! What installs and tenants store.

use alga_model::{InstallId, TenantId};
use alga_registry::Install;
use alga_storage::{Actor, Holding, Limits, Quotas, QuotasBody, Scope, UsageBody};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::operation::{Answer, Ask, Method, Operation};
use super::{Admin, Author, schema};

/// `GET /v1/installs/{install_id}/usage`.
#[derive(Debug)]
pub struct ShowInstallUsage;

/// `GET /v1/tenants/{tenant_id}/usage`.
#[derive(Debug)]
pub struct ShowTenantUsage;

/// What the installs of a tenant store together and may store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantUsageBody {
    /// The bytes of all its installs.
    pub bytes: u64,
    /// What it may store.
    pub limits: QuotasBody,
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
    type Answer = UsageBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<UsageBody, AdminError> {
        let install = admin.find(by, ask.target).await?;
        let limits = admin.installs.install_limits(&install).await?;
        // Past the gate: what a disabled install stores must be seen as well.
        let usage = admin
            .storage
            .here()?
            .usage(&scope(by, install, limits))
            .await?;
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
        let holdings = admin.storage.here()?.holdings(ask.target).await?;
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
            limits: quotas.into(),
            per_install: per_install.collect(),
        }
    }
}

impl Answer for UsageBody {
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
