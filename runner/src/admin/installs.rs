//! Installs: listing, making, enabling and disabling, removing, and what else is set for one.

use std::collections::{BTreeMap, BTreeSet};

use alga_model::{ContentHash, ExtensionName, InstallId, TenantId, Timestamp};
use alga_registry::{
    Config, ExtensionKey, Grants, Install, InstallEdit, InstallFilter, InstallState,
    MAX_CONCURRENCY, NewInstall,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::grants::ensure_within;
use super::limits::parse_overrides;
use super::members::Members;
use super::mistakes::Name;
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::paging::{PageQuery, cursor};
use super::{Admin, Author, manifest, schema};
use crate::config::TokenScope;

/// What stands for a setting's value. Nothing says which settings are secrets, so all of them are.
pub(super) const MASKED: &str = "***";

/// `GET /v1/installs`.
#[derive(Debug)]
pub struct ListInstalls;

/// `POST /v1/installs`.
#[derive(Debug)]
pub struct CreateInstall;

/// `GET /v1/installs/{install_id}`.
#[derive(Debug)]
pub struct ShowInstall;

/// `PATCH /v1/installs/{install_id}`.
#[derive(Debug)]
pub struct EditInstall;

/// `DELETE /v1/installs/{install_id}`.
#[derive(Debug)]
pub struct Uninstall;

/// Which installs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InstallQuery {
    /// Only those of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Only those of this extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<ExtensionName>,
    /// Also those that are uninstalled.
    pub uninstalled: bool,
    /// Which part of them.
    #[serde(flatten)]
    pub page: PageQuery,
}

/// Some installs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallPage {
    /// The first made first, without those that the caller may not know of.
    pub items: Vec<InstallBody>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<String>,
}

/// An install, without the values of its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallBody {
    /// Its id.
    pub install_id: InstallId,
    /// Whom it is installed for.
    pub tenant_id: TenantId,
    /// The extension's name.
    pub extension: ExtensionName,
    /// The installed version.
    pub version: String,
    /// The installed version's bundle.
    pub content_hash: ContentHash,
    /// The version that a rollback would bring back.
    pub former_version: Option<String>,
    /// Whether it may run.
    pub state: InstallState,
    /// What it may do.
    pub grants: Grants,
    /// Its settings, masked.
    pub config: BTreeMap<String, String>,
    /// Whether the config of an envelope counts.
    pub allow_envelope_config: bool,
    /// Where its limits differ from its tenant's.
    pub limits: Option<Value>,
    /// How many of its calls run at once, where that is not what the configuration says.
    pub concurrency: Option<u32>,
    /// One more with every change.
    pub generation: u64,
    /// When it was installed.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An install to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateInstallBody {
    /// Whom it is for.
    pub tenant_id: TenantId,
    /// The extension's name.
    pub extension: ExtensionName,
    /// The version; the highest one where there is none.
    pub version: Option<String>,
    /// What it may do; what the manifest asks for where there are none.
    pub grants: Option<Grants>,
    /// The settings.
    pub config: BTreeMap<String, String>,
    /// Whether the config of an envelope counts.
    pub allow_envelope_config: bool,
    /// Where its limits differ from its tenant's.
    pub limits: Option<Value>,
}

/// What is to be changed of an install: one thing at a time, as every change is audited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EditInstallBody {
    /// Enabled or disabled.
    State(InstallState),
    /// How many of its calls run at once; as many as the configuration says where there is no number.
    Concurrency(Option<u32>),
    /// Whether the config of an envelope counts.
    AllowEnvelopeConfig(bool),
}

impl Operation for ListInstalls {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs";
    const SUMMARY: &'static str = "Lists installs, the first made first";
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST")];

    type Target = ();
    type Query = InstallQuery;
    type Body = ();
    type Answer = InstallPage;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InstallPage, AdminError> {
        let page = ask.query.page.request()?;
        let TokenScope { tenants, installs } = by.scope.clone();
        let asked = ask.query.tenant;
        let is_foreign = |asked| tenants.as_ref().is_some_and(|mine| !mine.contains(asked));
        if asked.as_ref().is_some_and(is_foreign) {
            // Nothing of others is read: how long it takes would tell of them.
            return Ok(InstallPage {
                items: Vec::new(),
                next_cursor: None,
            });
        }
        let only = tenants.as_ref().filter(|tenants| tenants.len() == 1);
        let tenant = asked.or(only.and_then(BTreeSet::first).copied());
        let filter = InstallFilter {
            // Of one tenant, a page is read in order; of several, all that they have. Where a page
            // ends tells of nobody else.
            tenants: tenants.filter(|_| tenant.is_none()),
            tenant,
            installs,
            extension: ask.query.extension.map(ExtensionKey::Name),
            include_uninstalled: ask.query.uninstalled,
        };
        let found = admin.registry.installs(&filter, page).await?;
        Ok(InstallPage {
            items: found.items.iter().map(Into::into).collect(),
            next_cursor: found.next.map(cursor),
        })
    }
}

impl Operation for CreateInstall {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/installs";
    const SUMMARY: &'static str = "Installs an extension for a tenant";
    const STATUS: u16 = 201;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "EXTENSION_NOT_ALLOWED"),
    ];

    type Target = ();
    type Query = ();
    type Body = CreateInstallBody;
    type Answer = InstallBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InstallBody, AdminError> {
        let asked = ask.body;
        by.ensure_tenant(asked.tenant_id)?;
        if asked.limits.is_some() {
            by.ensure_operator()?;
        }
        let version = match asked.version {
            Some(version) => admin.version(&asked.extension, version).await?,
            None => admin.newest_version(&asked.extension).await?,
        };
        let manifest = manifest(&version)?;
        let grants = asked.grants.unwrap_or_else(|| manifest.capabilities());
        ensure_within(&grants, &manifest)?;
        let new = NewInstall {
            grants,
            config: Config::from(asked.config),
            allow_envelope_config: asked.allow_envelope_config,
            limits: parse_overrides(asked.limits, alga_storage::LimitsOf::Install)?,
            ..NewInstall::new(asked.tenant_id, version.id)
        };
        let change = by.change(admin);
        Ok((&admin.registry.create_install(&new, change).await?).into())
    }
}

impl Operation for ShowInstall {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}";
    const SUMMARY: &'static str =
        "Shows an install, in whatever state, without the values of its settings";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = InstallBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InstallBody, AdminError> {
        Ok((&admin.find(by, ask.target).await?).into())
    }
}

impl Operation for EditInstall {
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "/v1/installs/{install_id}";
    const SUMMARY: &'static str = "Enables or disables an install, or says how many of its calls run at once, or whether \
         the config of an envelope counts: one of these";
    const GUARD: Guard = Guard::Optional;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = EditInstallBody;
    type Answer = InstallBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InstallBody, AdminError> {
        if matches!(ask.body, EditInstallBody::Concurrency(_)) {
            // An install that the author may not know of stays unknown.
            admin.find(by, ask.target).await?;
            by.ensure_operator()?;
        }
        let edit = match ask.body {
            EditInstallBody::State(state) => InstallEdit::State(state),
            EditInstallBody::Concurrency(most) => InstallEdit::Concurrency(most),
            EditInstallBody::AllowEnvelopeConfig(allow) => InstallEdit::AllowEnvelopeConfig(allow),
        };
        let edited = admin.edit(by, ask.target, edit, ask.expected).await?;
        Ok((&edited).into())
    }
}

impl Operation for Uninstall {
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/installs/{install_id}";
    const SUMMARY: &'static str =
        "Uninstalls an install, whose data is kept but can't be reached; once more changes nothing";
    const GUARD: Guard = Guard::Optional;
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = InstallBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InstallBody, AdminError> {
        let edit = InstallEdit::State(InstallState::Uninstalled);
        let edited = admin.edit(by, ask.target, edit, ask.expected).await?;
        Ok((&edited).into())
    }
}

impl From<&Install> for InstallBody {
    fn from(install: &Install) -> Self {
        Self {
            install_id: install.id,
            tenant_id: install.tenant,
            extension: install.extension_name.clone(),
            version: install.version.clone(),
            content_hash: install.content_hash,
            former_version: install.former.as_ref().map(|former| former.version.clone()),
            state: install.state,
            grants: install.grants.clone(),
            config: masked(&install.config),
            allow_envelope_config: install.allow_envelope_config,
            limits: install.limits.clone(),
            concurrency: install.concurrency,
            generation: install.generation,
            created_at: install.created_at,
            updated_at: install.updated_at,
        }
    }
}

/// Settings without their values.
pub(super) fn masked(config: &Config) -> BTreeMap<String, String> {
    let names = config.as_map().keys();
    names
        .map(|name| (name.clone(), MASKED.to_owned()))
        .collect()
}

impl Parameters for InstallQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            tenant: members.text("tenant"),
            extension: members.text("extension"),
            uninstalled: members.text("uninstalled").unwrap_or_default(),
            page: PageQuery::read(members)?,
        })
    }

    fn schema() -> Value {
        let filter = [
            ("tenant", schema::uuid()),
            ("extension", schema::name()),
            (
                "uninstalled",
                json!({ "type": "boolean", "default": false }),
            ),
        ];
        schema::parameters(&[], &[&filter[..], &PageQuery::members()].concat())
    }
}

impl Parameters for CreateInstallBody {
    fn read(members: &mut Members) -> Option<Self> {
        let tenant_id = members.required("tenantId");
        let extension = members.required("extension");
        let settings = if members.has("config") {
            members.settings("config").unwrap_or_default()
        } else {
            BTreeMap::new()
        };
        let mut config = BTreeMap::new();
        for (name, value) in settings {
            match value {
                Some(value) => drop(config.insert(name, value)),
                None => members.mistake(format_args!("config.{}", Name(&name)), "expected text"),
            }
        }
        let body = Self {
            version: members.optional("version"),
            grants: members.optional("grants"),
            config,
            allow_envelope_config: members.optional("allowEnvelopeConfig").unwrap_or_default(),
            limits: members.optional("limits"),
            tenant_id: tenant_id?,
            extension: extension?,
        };
        Some(body)
    }

    fn schema() -> Value {
        schema::parameters(
            &[("tenantId", schema::uuid()), ("extension", schema::name())],
            &[
                ("version", schema::nullable(&schema::text())),
                ("grants", schema::nullable(&schema::grants())),
                ("config", schema::map(&schema::text())),
                ("allowEnvelopeConfig", schema::nullable(&schema::truth())),
                ("limits", schema::nullable(&schema::limits())),
            ],
        )
    }
}

impl EditInstallBody {
    const MEMBERS: [&'static str; 3] = ["state", "concurrency", "allowEnvelopeConfig"];
}

impl Parameters for EditInstallBody {
    fn read(members: &mut Members) -> Option<Self> {
        let named = Self::MEMBERS.map(|name| members.has(name));
        match named {
            [true, false, false] => match members.required("state")? {
                InstallState::Uninstalled => {
                    members.mistake("state", "enabled or disabled; DELETE uninstalls");
                    None
                }
                state @ (InstallState::Enabled | InstallState::Disabled) => {
                    Some(Self::State(state))
                }
            },
            [false, true, false] => {
                let most: Option<u32> = members.nullable("concurrency")?;
                if most.is_some_and(|most| !(1..=MAX_CONCURRENCY).contains(&most)) {
                    members.mistake("concurrency", "1 to 10000, or null");
                }
                Some(Self::Concurrency(most))
            }
            [false, false, true] => members
                .required("allowEnvelopeConfig")
                .map(Self::AllowEnvelopeConfig),
            _ => {
                for name in Self::MEMBERS {
                    members.ignore(name);
                }
                let names = Self::MEMBERS.map(|name| format!("`{name}`")).join(", ");
                members.mistake("the body", format!("it must have one of {names}"));
                None
            }
        }
    }

    fn schema() -> Value {
        let concurrency = json!({ "type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY });
        let members = [
            ("state", json!({ "enum": ["enabled", "disabled"] })),
            ("concurrency", schema::nullable(&concurrency)),
            ("allowEnvelopeConfig", schema::truth()),
        ];
        let mut schema = schema::parameters(&[], &members);
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("minProperties".to_owned(), 1.into());
            schema.insert("maxProperties".to_owned(), 1.into());
        }
        schema
    }
}

impl Answer for InstallPage {
    const NAME: &'static str = "InstallPage";

    fn schema() -> Value {
        let install = json!({ "$ref": "#/components/schemas/Install" });
        schema::answer(&[
            ("items", schema::list(&install)),
            ("nextCursor", schema::nullable(&schema::text())),
        ])
    }
}

impl Answer for InstallBody {
    const NAME: &'static str = "Install";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("installId", schema::uuid()),
            ("tenantId", schema::uuid()),
            ("extension", schema::name()),
            ("version", schema::text()),
            ("contentHash", schema::hash()),
            ("formerVersion", schema::nullable(&schema::text())),
            (
                "state",
                json!({ "enum": ["enabled", "disabled", "uninstalled"] }),
            ),
            ("grants", schema::grants()),
            ("config", schema::map(&json!({ "const": MASKED }))),
            ("allowEnvelopeConfig", schema::truth()),
            ("limits", schema::nullable(&schema::limits())),
            ("concurrency", schema::nullable(&schema::count())),
            ("generation", schema::count()),
            ("createdAt", schema::time()),
            ("updatedAt", schema::time()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use alga_registry::Registry as _;

    use super::*;
    use crate::stage::Stage;

    /// The ids that are listed for somebody of this scope, a page of one after another.
    async fn listed(stage: &Stage, scope: &TokenScope, tenant: Option<TenantId>) -> Vec<InstallId> {
        let mut by = Author::operator("somebody");
        by.scope = scope.clone();
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let query = InstallQuery {
                tenant,
                page: PageQuery {
                    limit: Some(1),
                    cursor,
                },
                ..InstallQuery::default()
            };
            let ask = Ask {
                target: (),
                query,
                body: (),
                expected: None,
            };
            let page = ListInstalls::run(&stage.admin(), &by, ask).await.unwrap();
            ids.extend(page.items.iter().map(|install| install.install_id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return ids;
            }
            assert_eq!(
                page.items.len(),
                1,
                "a page that is not the last one is full"
            );
        }
    }

    #[tokio::test]
    async fn who_is_limited_is_listed_their_own_in_full_pages() {
        let stage = Stage::open().await;
        let tenants: [TenantId; 3] = std::array::from_fn(|_| TenantId::generate());
        let [one, two, foreign] = tenants;
        let mut made = Vec::new();
        for tenant in [one, foreign, two, foreign, one] {
            made.push(stage.install(tenant).await.id);
        }
        let of = |tenants: &[TenantId]| TokenScope {
            tenants: Some(tenants.iter().copied().collect()),
            installs: None,
        };
        let all = TokenScope::default();
        let listed_one = TokenScope {
            installs: Some([made[2], made[3]].into()),
            ..of(&[two])
        };
        for (scope, tenant, expected) in [
            (&all, None, &made[..]),
            (&all, Some(two), &[made[2]]),
            (&of(&[one]), None, &[made[0], made[4]]),
            (&of(&[one, two]), None, &[made[0], made[2], made[4]]),
            (&of(&[one, two]), Some(two), &[made[2]]),
            (&of(&[one, two]), Some(foreign), &[]),
            (&of(&[one]), Some(foreign), &[]),
            (&of(&[]), None, &[]),
            (&listed_one, None, &[made[2]]),
        ] {
            assert_eq!(listed(&stage, scope, tenant).await, expected, "{scope:?}");
        }
    }

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
        let shown = serde_json::to_value(InstallBody::from(&set.await.unwrap())).unwrap();
        assert_eq!(
            shown,
            json!({
                "installId": install.id,
                "tenantId": install.tenant,
                "extension": "com.example.notes",
                "version": "1.0.0",
                "contentHash": install.content_hash,
                "formerVersion": null,
                "state": "enabled",
                "grants": install.grants,
                "config": {"token": "***"},
                "allowEnvelopeConfig": false,
                "limits": limits,
                "concurrency": null,
                "generation": 3,
                "createdAt": change.now,
                "updatedAt": change.now,
            })
        );
    }

    /// All pages, one install each, as somebody limited to some tenants or to none gets them; and every
    /// id that a cursor holds.
    async fn pages(stage: &Stage, tenants: Option<&[TenantId]>) -> (Vec<InstallId>, Vec<String>) {
        let mut author = Author::operator("somebody");
        author.scope.tenants = tenants.map(|tenants| tenants.iter().copied().collect());
        let (mut seen, mut cursors) = (Vec::new(), Vec::new());
        let mut cursor = None;
        loop {
            let mut ask = Ask::<ListInstalls>::of(());
            ask.query.page.limit = Some(1);
            ask.query.page.cursor = cursor;
            let page = ListInstalls::run(&stage.admin(), &author, ask)
                .await
                .unwrap();
            seen.extend(page.items.iter().map(|install| install.install_id));
            cursor = page.next_cursor;
            match &cursor {
                Some(cursor) => cursors.push(cursor.clone()),
                None => return (seen, cursors),
            }
        }
    }

    #[tokio::test]
    async fn neither_items_nor_cursors_tell_of_installs_of_others() {
        let stage = Stage::open().await;
        let (ours, theirs) = (TenantId::generate(), TenantId::generate());
        let mut installs = Vec::new();
        for tenant in [theirs, ours, theirs, ours, theirs] {
            installs.push(stage.install(tenant).await.id);
        }
        let (seen, cursors) = pages(&stage, Some(&[ours])).await;
        assert_eq!(seen, [installs[1], installs[3]]);
        assert_eq!(cursors, [cursor(installs[1])]);
        let (seen, cursors) = pages(&stage, Some(&[])).await;
        assert!(seen.is_empty() && cursors.is_empty());
        let (seen, cursors) = pages(&stage, None).await;
        assert_eq!((seen, cursors.len()), (installs, 4));
    }
}
