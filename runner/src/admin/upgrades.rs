//! Bringing an install to another version, and back.

use alga_model::InstallId;
use alga_registry::{Grants, Install};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::grants::{Difference, carried_over, difference_schema, ensure_within};
use super::installs::InstallBody;
use super::members::Members;
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, Touched, manifest, schema};

/// `POST /v1/installs/{install_id}/upgrade`.
#[derive(Debug)]
pub struct Upgrade;

/// `POST /v1/installs/{install_id}/rollback`.
#[derive(Debug)]
pub struct Rollback;

/// Where an install shall be brought.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeBody {
    /// The version; the highest one where there is none.
    pub version: Option<String>,
    /// What it may do then. Where there are none: what the version asks for, but for what the
    /// present one asks for as well and was not given.
    pub grants: Option<Grants>,
    /// Whether wider grants are approved.
    pub approve: bool,
    /// Whether only to tell what would be different, where it could be done.
    pub dry_run: bool,
}

/// How an install shall be brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackBody {
    /// Whether wider grants are approved.
    pub approve: bool,
    /// Whether only to tell what would be different.
    pub dry_run: bool,
}

/// What an upgrade or a rollback changed, or would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeAnswer {
    /// The version before.
    pub from: String,
    /// The version after.
    pub to: String,
    /// How far the grants differ.
    pub difference: Difference,
    /// Whether it was done.
    pub done: bool,
    /// The install as it is now.
    pub install: InstallBody,
}

impl Operation for Upgrade {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/installs/{install_id}/upgrade";
    const SUMMARY: &'static str = "Brings an install to another version, and tells how far its grants differ; wider ones must be approved";
    const GUARD: Guard = Guard::Optional;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "APPROVAL_NEEDED"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = UpgradeBody;
    type Answer = UpgradeAnswer;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<UpgradeAnswer, AdminError> {
        let before = admin.seen(by, ask.target, ask.expected).await?;
        let name = &before.extension_name;
        let version = match ask.body.version {
            Some(version) => admin.version(name, version).await?,
            None => admin.newest_version(name).await?,
        };
        let next = manifest(&version)?;
        let grants = if let Some(grants) = ask.body.grants {
            grants
        } else {
            let present = manifest(&admin.version_of(&before).await?)?;
            carried_over(&before.grants, &present, &next)
        };
        ensure_within(&grants, &next)?;
        let difference = Difference::between(&before.grants, &grants);
        let (id, to) = (version.id, version.version.clone());
        // All that can be wrong is looked at before anything is done, so that it is the same for both.
        before.upgraded(version, grants.clone(), None, admin.clock.now())?;
        difference.ensure_approved(ask.body.approve)?;
        if ask.body.dry_run {
            return Ok(UpgradeAnswer::not_done(&before, to, difference));
        }
        let (install, expected) = (before.id, Some(before.generation));
        let after = admin.mutate(by, Touched::Install(install), move |registry, change| {
            registry.upgrade_install(install, id, grants, expected, change)
        });
        let after = after.await?;
        Ok(UpgradeAnswer::done(before, &after, difference))
    }
}

impl Operation for Rollback {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/installs/{install_id}/rollback";
    const SUMMARY: &'static str = "Brings an install back to the version and the grants it had before its last upgrade; wider ones must be approved";
    const GUARD: Guard = Guard::Optional;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "NOTHING_TO_ROLL_BACK"),
        (409, "APPROVAL_NEEDED"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = RollbackBody;
    type Answer = UpgradeAnswer;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<UpgradeAnswer, AdminError> {
        let before = admin.seen(by, ask.target, ask.expected).await?;
        let former = before.former.as_ref();
        let former = former.ok_or(AdminError::NothingToRollBack)?;
        // What was taken away since the upgrade must not come back unseen.
        let difference = Difference::between(&before.grants, &former.grants);
        before.rolled_back(None, admin.clock.now())?;
        difference.ensure_approved(ask.body.approve)?;
        if ask.body.dry_run {
            let to = former.version.clone();
            return Ok(UpgradeAnswer::not_done(&before, to, difference));
        }
        let (install, expected) = (before.id, Some(before.generation));
        let after = admin.mutate(by, Touched::Install(install), move |registry, change| {
            registry.roll_back_install(install, expected, change)
        });
        let after = after.await?;
        Ok(UpgradeAnswer::done(before, &after, difference))
    }
}

impl Admin {
    /// An install that is to be judged as it is, so that it must still be so when it is changed.
    async fn seen(
        &self,
        by: &Author,
        id: InstallId,
        expected: Option<u64>,
    ) -> Result<Install, AdminError> {
        let install = self.find(by, id).await?;
        match expected {
            Some(expected) if expected != install.generation => Err(AdminError::Changed {
                expected,
                actual: install.generation,
            }),
            _ => Ok(install),
        }
    }
}

impl UpgradeAnswer {
    fn done(before: Install, after: &Install, difference: Difference) -> Self {
        Self {
            from: before.version,
            to: after.version.clone(),
            difference,
            done: true,
            install: after.into(),
        }
    }

    fn not_done(install: &Install, to: String, difference: Difference) -> Self {
        Self {
            from: install.version.clone(),
            to,
            difference,
            done: false,
            install: install.into(),
        }
    }
}

impl Parameters for UpgradeBody {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            version: members.optional("version"),
            grants: members.optional("grants"),
            approve: members.optional("approve").unwrap_or_default(),
            dry_run: members.optional("dryRun").unwrap_or_default(),
        })
    }

    fn schema() -> Value {
        schema::parameters(
            &[],
            &[
                ("version", schema::nullable(&schema::text())),
                ("grants", schema::nullable(&schema::grants())),
                ("approve", schema::nullable(&schema::truth())),
                ("dryRun", schema::nullable(&schema::truth())),
            ],
        )
    }
}

impl Parameters for RollbackBody {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            approve: members.optional("approve").unwrap_or_default(),
            dry_run: members.optional("dryRun").unwrap_or_default(),
        })
    }

    fn schema() -> Value {
        schema::parameters(
            &[],
            &[
                ("approve", schema::nullable(&schema::truth())),
                ("dryRun", schema::nullable(&schema::truth())),
            ],
        )
    }
}

impl Answer for UpgradeAnswer {
    const NAME: &'static str = "Upgrade";

    fn generation(&self) -> Option<u64> {
        Some(self.install.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("from", schema::text()),
            ("to", schema::text()),
            ("difference", difference_schema()),
            ("done", schema::truth()),
            ("install", json!({ "$ref": "#/components/schemas/Install" })),
        ])
    }
}
