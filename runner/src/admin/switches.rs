//! What is switched for the whole deployment.

use std::collections::BTreeSet;

use alga_model::{ExtensionName, TenantId, Timestamp};
use alga_registry::{MAX_PAGE_ITEMS, PageRequest, Switches, SwitchesEdit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::AdminError;
use super::members::Members;
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, Touched, schema};

/// `GET /v1/switches`.
#[derive(Debug)]
pub struct ShowSwitches;

/// `PUT /v1/switches`.
#[derive(Debug)]
pub struct ReplaceSwitches;

/// The switches as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchesBody {
    /// Whether the storage may be used.
    pub storage: bool,
    /// The extensions that may use it and be installed; null where all may.
    pub allowed_extensions: Option<BTreeSet<ExtensionName>>,
    /// The tenants for which it is switched off.
    pub storage_off_for_tenants: Vec<TenantId>,
    /// When the switches were last changed, those of tenants left out.
    pub updated_at: Option<Timestamp>,
    /// One more with every change, those of tenants left out.
    pub generation: u64,
}

/// What the switches shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaceSwitchesBody {
    /// Whether the storage may be used.
    pub storage: bool,
    /// The extensions that may use it and be installed; null where all may.
    pub allowed_extensions: Option<BTreeSet<ExtensionName>>,
}

impl Operation for ShowSwitches {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/switches";
    const SUMMARY: &'static str = "Shows whether the storage may be used, by which extensions, and for which tenants it is off";

    type Target = ();
    type Query = ();
    type Body = ();
    type Answer = SwitchesBody;

    async fn run(admin: &Admin, by: &Author, _: Ask<Self>) -> Result<SwitchesBody, AdminError> {
        by.ensure_unlimited()?;
        let switches = admin.registry.switches().await?;
        admin.with_tenants(switches).await
    }
}

impl Operation for ReplaceSwitches {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/switches";
    const SUMMARY: &'static str = "Switches the storage on or off for everybody, and says which extensions may use it and be installed; what is stored stays";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST")];

    type Target = ();
    type Query = ();
    type Body = ReplaceSwitchesBody;
    type Answer = SwitchesBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<SwitchesBody, AdminError> {
        by.ensure_unlimited()?;
        let edit = SwitchesEdit::All {
            storage: ask.body.storage,
            allowed_extensions: ask.body.allowed_extensions,
        };
        let edited = admin.mutate(by, Touched::Everything, move |registry, change| {
            registry.edit_switches(edit, ask.expected, change)
        });
        admin.with_tenants(edited.await?).await
    }
}

impl Admin {
    async fn with_tenants(&self, switches: Switches) -> Result<SwitchesBody, AdminError> {
        let mut off = Vec::new();
        let mut page = PageRequest::first(MAX_PAGE_ITEMS);
        loop {
            let found = self.registry.tenants_with_settings(page).await?;
            let switched_off = found.items.iter().filter(|tenant| !tenant.storage);
            off.extend(switched_off.map(|tenant| tenant.tenant));
            match found.next {
                Some(next) => page = PageRequest::after(next, MAX_PAGE_ITEMS),
                None => break,
            }
        }
        Ok(SwitchesBody {
            storage: switches.storage,
            allowed_extensions: switches.allowed_extensions,
            storage_off_for_tenants: off,
            updated_at: switches.updated_at,
            generation: switches.generation,
        })
    }
}

impl Parameters for ReplaceSwitchesBody {
    fn read(members: &mut Members) -> Option<Self> {
        let storage = members.required("storage");
        let allowed_extensions = members.nullable("allowedExtensions");
        Some(Self {
            storage: storage?,
            allowed_extensions: allowed_extensions?,
        })
    }

    fn schema() -> Value {
        schema::parameters(
            &[
                ("storage", schema::truth()),
                (
                    "allowedExtensions",
                    schema::nullable(&schema::list(&schema::name())),
                ),
            ],
            &[],
        )
    }
}

impl Answer for SwitchesBody {
    const NAME: &'static str = "Switches";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("storage", schema::truth()),
            (
                "allowedExtensions",
                schema::nullable(&schema::list(&schema::name())),
            ),
            ("storageOffForTenants", schema::list(&schema::uuid())),
            ("updatedAt", schema::nullable(&schema::time())),
            ("generation", schema::count()),
        ])
    }
}
