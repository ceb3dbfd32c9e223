//! The switches of tenants, and what is set for them in general.

use alga_model::TenantId;
use alga_registry::{TenantEdit, TenantSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::AdminError;
use super::members::Members;
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, Touched, schema};

/// `GET /v1/tenants/{tenant_id}/switches`.
#[derive(Debug)]
pub struct ShowTenantSwitches;

/// `PUT /v1/tenants/{tenant_id}/switches`.
#[derive(Debug)]
pub struct ReplaceTenantSwitches;

/// The switches of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantSwitchesBody {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Whether its installs may use the storage, as far as the deployment lets any.
    pub storage: bool,
    /// The generation of the tenant's settings.
    pub generation: u64,
}

/// What the switches of a tenant shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplaceTenantSwitchesBody {
    /// Whether its installs may use the storage.
    pub storage: bool,
}

impl Operation for ShowTenantSwitches {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/tenants/{tenant_id}/switches";
    const SUMMARY: &'static str = "Shows whether the storage is switched on for a tenant";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = TenantId;
    type Query = ();
    type Body = ();
    type Answer = TenantSwitchesBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<TenantSwitchesBody, AdminError> {
        by.ensure_tenant(ask.target)?;
        Ok(admin.registry.tenant_settings(ask.target).await?.into())
    }
}

impl Operation for ReplaceTenantSwitches {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/tenants/{tenant_id}/switches";
    const SUMMARY: &'static str =
        "Switches the storage on or off for a tenant; what is stored stays";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST"), (404, "NOT_FOUND")];

    type Target = TenantId;
    type Query = ();
    type Body = ReplaceTenantSwitchesBody;
    type Answer = TenantSwitchesBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<TenantSwitchesBody, AdminError> {
        let edit = TenantEdit::Storage(ask.body.storage);
        let edited = admin.edit_tenant(by, ask.target, edit, ask.expected);
        Ok(edited.await?.into())
    }
}

impl Admin {
    /// Edits what is set for a tenant, as only somebody may who isn't limited.
    pub(super) async fn edit_tenant(
        &self,
        by: &Author,
        tenant: TenantId,
        edit: TenantEdit,
        expected: Option<u64>,
    ) -> Result<TenantSettings, AdminError> {
        by.ensure_tenant(tenant)?;
        by.ensure_operator()?;
        let edited = self.mutate(by, Touched::Everything, move |registry, change| {
            registry.edit_tenant(tenant, edit, expected, change)
        });
        edited.await
    }
}

impl From<TenantSettings> for TenantSwitchesBody {
    fn from(settings: TenantSettings) -> Self {
        Self {
            tenant_id: settings.tenant,
            storage: settings.storage,
            generation: settings.generation,
        }
    }
}

impl Parameters for ReplaceTenantSwitchesBody {
    fn read(members: &mut Members) -> Option<Self> {
        let storage = members.required("storage")?;
        Some(Self { storage })
    }

    fn schema() -> Value {
        schema::parameters(&[("storage", schema::truth())], &[])
    }
}

impl Answer for TenantSwitchesBody {
    const NAME: &'static str = "TenantSwitches";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("tenantId", schema::uuid()),
            ("storage", schema::truth()),
            ("generation", schema::count()),
        ])
    }
}
