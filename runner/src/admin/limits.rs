//! Limits that installs and tenants have of their own.

use alga_model::{InstallId, TenantId};
use alga_registry::{InstallEdit, TenantEdit};
use alga_storage::{LimitOverrides, Limits, LimitsOf, QuotasBody};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::members::Members;
use super::mistakes::Mistakes;
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, schema};

/// The most that overrides may be as JSON.
const MOST_BYTES: usize = 16 << 10;

/// `GET /v1/installs/{install_id}/quotas`.
#[derive(Debug)]
pub struct ShowInstallLimits;

/// `PUT /v1/installs/{install_id}/quotas`.
#[derive(Debug)]
pub struct ReplaceInstallLimits;

/// `GET /v1/tenants/{tenant_id}/limits`.
#[derive(Debug)]
pub struct ShowTenantLimits;

/// `PUT /v1/tenants/{tenant_id}/limits`.
#[derive(Debug)]
pub struct ReplaceTenantLimits;

/// The limits of an install, or of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsBody {
    /// Where they differ: an install's from its tenant's, a tenant's from the settings.
    pub overrides: Option<Value>,
    /// What applies.
    pub effective: Value,
    /// The generation of the install, or of the tenant's settings.
    pub generation: u64,
}

/// What the overrides shall be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplaceLimitsBody {
    /// The overrides; none of them where it is null.
    pub overrides: Option<Value>,
}

impl Operation for ShowInstallLimits {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/quotas";
    const SUMMARY: &'static str =
        "Shows how far an install's limits differ from its tenant's, and what applies";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = LimitsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<LimitsBody, AdminError> {
        let install = admin.find(by, ask.target).await?;
        admin.limits_of_install(install).await
    }
}

impl Operation for ReplaceInstallLimits {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/installs/{install_id}/quotas";
    const SUMMARY: &'static str = "Replaces how far an install's limits differ from its tenant's";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = ReplaceLimitsBody;
    type Answer = LimitsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<LimitsBody, AdminError> {
        admin.find(by, ask.target).await?;
        by.ensure_operator()?;
        let overrides = parse_overrides(ask.body.overrides, LimitsOf::Install)?;
        let edit = InstallEdit::Limits(overrides);
        let edited = admin.edit(by, ask.target, edit, ask.expected).await?;
        admin.limits_of_install(edited).await
    }
}

impl Operation for ShowTenantLimits {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/tenants/{tenant_id}/limits";
    const SUMMARY: &'static str =
        "Shows how far a tenant's limits differ from the settings, and what applies";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = TenantId;
    type Query = ();
    type Body = ();
    type Answer = LimitsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<LimitsBody, AdminError> {
        by.ensure_tenant(ask.target)?;
        admin.limits_of_tenant(ask.target).await
    }
}

impl Operation for ReplaceTenantLimits {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/tenants/{tenant_id}/limits";
    const SUMMARY: &'static str = "Replaces how far a tenant's limits differ from the settings";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST"), (404, "NOT_FOUND")];

    type Target = TenantId;
    type Query = ();
    type Body = ReplaceLimitsBody;
    type Answer = LimitsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<LimitsBody, AdminError> {
        let overrides = parse_overrides(ask.body.overrides, LimitsOf::Tenant)?;
        let edit = TenantEdit::Limits(overrides);
        admin
            .edit_tenant(by, ask.target, edit, ask.expected)
            .await?;
        admin.limits_of_tenant(ask.target).await
    }
}

impl Admin {
    async fn limits_of_install(
        &self,
        install: alga_registry::Install,
    ) -> Result<LimitsBody, AdminError> {
        let effective = self.installs.install_limits(&install).await?;
        Ok(LimitsBody {
            overrides: install.limits,
            effective: to_json(&effective),
            generation: install.generation,
        })
    }

    async fn limits_of_tenant(&self, tenant: TenantId) -> Result<LimitsBody, AdminError> {
        let settings = self.registry.tenant_settings(tenant).await?;
        let effective = self.installs.tenant_limits(tenant).await?;
        Ok(LimitsBody {
            overrides: settings.limits,
            effective: to_json(&effective),
            generation: settings.generation,
        })
    }
}

/// What is to be stored of overrides: nothing where they override nothing.
pub(super) fn parse_overrides(
    overrides: Option<Value>,
    of: LimitsOf,
) -> Result<Option<Value>, AdminError> {
    let Some(json) = overrides else {
        return Ok(None);
    };
    // As much as the registry stores; each member of it may be a mistake.
    if json.to_string().len() > MOST_BYTES {
        let mistake = Mistakes::one("limits must be at most 16 KiB of JSON");
        return Err(AdminError::invalid("the limits are", mistake));
    }
    let parsed = LimitOverrides::parse(&json, of).map_err(|invalid| {
        let mut mistakes = Mistakes::default();
        mistakes.extend(invalid.mistakes());
        AdminError::invalid("the limits are", mistakes)
    })?;
    Ok((!parsed.is_empty()).then_some(json))
}

/// Limits in the shape of overrides.
fn to_json(limits: &Limits) -> Value {
    let Limits {
        request,
        quotas,
        rates,
    } = limits;
    let ((min_ttl, max_ttl), (max_page_items, default_page_items)) =
        (request.ttl, request.page_items);
    json!({
        "requests": {
            "valueBytes": request.value_bytes,
            "metadataBytes": request.metadata_bytes,
            "minTtlSeconds": min_ttl.as_secs(),
            "maxTtlSeconds": max_ttl.as_secs(),
            "bulkItems": request.bulk_items,
            "bulkBytes": request.bulk_bytes,
            "getManyKeys": request.keys,
            "maxPageItems": max_page_items,
            "defaultPageItems": default_page_items,
            "pageBytes": request.page_bytes,
        },
        "quotas": QuotasBody::from(quotas),
        "rates": {
            "readPerSecond": rates.read.per_second,
            "readBurst": rates.read.burst,
            "writePerSecond": rates.write.per_second,
            "writeBurst": rates.write.burst,
            "tenantReadPerSecond": rates.tenant_read.per_second,
            "tenantReadBurst": rates.tenant_read.burst,
            "tenantWritePerSecond": rates.tenant_write.per_second,
            "tenantWriteBurst": rates.tenant_write.burst,
        },
    })
}

impl Parameters for ReplaceLimitsBody {
    fn read(members: &mut Members) -> Option<Self> {
        let overrides = members.nullable("overrides")?;
        Some(Self { overrides })
    }

    fn schema() -> Value {
        schema::parameters(&[("overrides", schema::nullable(&schema::limits()))], &[])
    }
}

impl Answer for LimitsBody {
    const NAME: &'static str = "Limits";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("overrides", schema::nullable(&schema::limits())),
            ("effective", schema::limits()),
            ("generation", schema::count()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overriding_nothing_is_no_override() {
        for json in [json!({}), json!({"quotas": {}})] {
            assert_eq!(
                parse_overrides(Some(json), LimitsOf::Install).unwrap(),
                None
            );
        }
        let one = json!({"quotas": {"namespaces": 1}});
        let stored = parse_overrides(Some(one.clone()), LimitsOf::Install);
        assert_eq!(stored.unwrap(), Some(one));
    }

    #[test]
    fn what_is_no_set_of_limits_is_not_answered_at_its_length() {
        let said = |sections: Value| {
            let refused = parse_overrides(Some(sections), LimitsOf::Install).unwrap_err();
            refused.details()["mistakes"].clone()
        };
        let sheep =
            |count: u32| (0..count).map(|number| (format!("sheep{number}"), json!("hunter2")));
        let many = said(json!({"quotas": Value::Object(sheep(200).collect())}));
        assert_eq!(many.as_array().unwrap().len(), 101, "{many}");
        assert!(!many.to_string().contains("hunter2"), "{many}");
        let too_many = said(json!({"quotas": Value::Object(sheep(2_000).collect())}));
        assert_eq!(too_many, json!(["limits must be at most 16 KiB of JSON"]));
        let long = said(json!({"a".repeat(10_000): 1}));
        assert!(long.to_string().len() < 1_000, "{long}");
    }

    #[test]
    fn every_limit_is_printed_as_it_is_set() {
        // Each limit gets a value of its own, so that none can stand in another's place.
        let mut number = 0;
        let mut asked = to_json(&Limits::default());
        for section in asked.as_object_mut().unwrap().values_mut() {
            for limit in section.as_object_mut().unwrap().values_mut() {
                number += 1;
                *limit = json!(number);
            }
        }
        // Within its bounds, and not contradicting another.
        asked["requests"]["pageBytes"] = json!(2_000);
        asked["requests"]["maxTtlSeconds"] = json!(3_000);
        asked["requests"]["maxPageItems"] = json!(900);
        asked["quotas"]["criticalPercent"] = json!(99);
        let overrides = LimitOverrides::parse(&asked, LimitsOf::Tenant).unwrap();
        assert_eq!(to_json(&Limits::default().with([&overrides])), asked);
    }
}
