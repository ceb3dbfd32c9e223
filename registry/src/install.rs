//! Installs: one version of an extension, set up for one tenant.

use std::collections::BTreeSet;

use alga_model::{ContentHash, ExtensionName, InstallId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::bounds::ensure;
use crate::change::ensure_generation;
use crate::config::Config;
use crate::error::RegistryError;
use crate::extension::{Extension, ExtensionKey};
use crate::grant::{self, Grants};
use crate::limits;
use crate::version::Version;

/// An extension in one version, installed for one tenant. A tenant may install an extension more
/// than once.
#[derive(Debug, Clone, PartialEq)]
pub struct Install {
    /// Identifies the install for ever.
    pub id: InstallId,
    /// Who it is installed for; never changes.
    pub tenant: TenantId,
    /// The extension; never changes.
    pub extension_id: Uuid,
    /// The extension's name.
    pub extension_name: ExtensionName,
    /// The installed version.
    pub version_id: Uuid,
    /// The installed version's text.
    pub version: String,
    /// The installed version's bundle.
    pub content_hash: ContentHash,
    /// Whether it may run.
    pub state: InstallState,
    /// Whether the config of a request's envelope counts.
    pub allow_envelope_config: bool,
    /// The settings an administrator gave it.
    pub config: Config,
    /// What it may do.
    pub grants: Grants,
    /// Where its limits differ from its tenant's, as JSON that the storage understands.
    pub limits: Option<Value>,
    /// How many calls of it run at once, where that is not what the configuration says.
    pub concurrency: Option<u32>,
    /// What it was before its last upgrade; `None` if it never was upgraded, or went back.
    pub former: Option<FormerVersion>,
    /// 1 at first, one more with every change.
    pub generation: u64,
    /// When it was installed.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Install {
    /// The install that `new` asks for, of `version` of `extension`.
    pub(crate) fn create(
        new: &NewInstall,
        extension: Extension,
        version: Version,
        now: Timestamp,
    ) -> Self {
        Self {
            id: InstallId::generate(),
            tenant: new.tenant,
            extension_id: extension.id,
            extension_name: extension.name,
            version_id: version.id,
            version: version.version,
            content_hash: version.content_hash,
            state: InstallState::Enabled,
            allow_envelope_config: new.allow_envelope_config,
            config: new.config.clone(),
            grants: new.grants.clone(),
            limits: new.limits.clone(),
            concurrency: None,
            former: None,
            generation: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// This install after `edit`; `None` when the edit changes nothing.
    pub(crate) fn edited(
        &self,
        edit: &InstallEdit,
        expected_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        ensure_generation(self.generation, expected_generation)?;
        let mut after = self.clone();
        match edit.clone() {
            InstallEdit::State(state) => after.state = state,
            InstallEdit::Grants(grants) => after.grants = grants,
            InstallEdit::Config(config) => after.config = config,
            InstallEdit::AllowEnvelopeConfig(allow) => after.allow_envelope_config = allow,
            InstallEdit::Limits(limits) => after.limits = limits,
            InstallEdit::Concurrency(concurrency) => after.concurrency = concurrency,
        }
        self.ensure_followed_by(after, now)
    }

    /// What [`Registry::upgrade_install`](crate::Registry::upgrade_install) makes of this install;
    /// `None` when it is in that version already and has those grants.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn upgraded(
        &self,
        version: Version,
        grants: Grants,
        expected_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        ensure_generation(self.generation, expected_generation)?;
        ensure(
            version.extension_id == self.extension_id,
            "version",
            "one of the extension that is installed",
        )?;
        grant::ensure_valid(&grants)?;
        let mut after = self.clone();
        after.grants = grants;
        if version.id != self.version_id {
            after.former = Some(FormerVersion {
                version_id: self.version_id,
                version: self.version.clone(),
                content_hash: self.content_hash,
                grants: self.grants.clone(),
            });
            after.set_version(version.id, version.version, version.content_hash);
        }
        self.ensure_followed_by(after, now)
    }

    /// What [`Registry::roll_back_install`](crate::Registry::roll_back_install) makes of this install.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn rolled_back(
        &self,
        expected_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        ensure_generation(self.generation, expected_generation)?;
        let former = self.former.clone();
        let former = former.ok_or(RegistryError::NoFormerVersion)?;
        let mut after = self.clone();
        after.set_version(former.version_id, former.version, former.content_hash);
        after.grants = former.grants;
        after.former = None;
        self.ensure_followed_by(after, now)
    }

    fn set_version(&mut self, id: Uuid, version: String, content_hash: ContentHash) {
        self.version_id = id;
        self.version = version;
        self.content_hash = content_hash;
    }

    /// `after` as the next generation of this install; `None` where nothing is different.
    fn ensure_followed_by(
        &self,
        mut after: Self,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        if after == *self {
            return Ok(None);
        }
        if self.state == InstallState::Uninstalled {
            return Err(RegistryError::Uninstalled);
        }
        after.generation = self.generation.saturating_add(1);
        after.updated_at = now;
        Ok(Some(after))
    }
}

/// A version that an install can go back to, and what it was granted then.
#[derive(Debug, Clone, PartialEq)]
pub struct FormerVersion {
    /// The version.
    pub version_id: Uuid,
    /// The version's text.
    pub version: String,
    /// The version's bundle.
    pub content_hash: ContentHash,
    /// The grants.
    pub grants: Grants,
}

/// Whether an install may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstallState {
    /// It runs.
    Enabled,
    /// An administrator turned it off; it can be enabled again.
    Disabled,
    /// It is gone for everyone but who restores or purges it. No edit leads out of this state.
    Uninstalled,
}

impl InstallState {
    /// The state's name in JSON, the audit and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Uninstalled => "uninstalled",
        }
    }

    /// The state with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled, Self::Uninstalled]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// An install to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInstall {
    /// Who it is for.
    pub tenant: TenantId,
    /// The version to install.
    pub version_id: Uuid,
    /// Whether the config of a request's envelope counts.
    pub allow_envelope_config: bool,
    /// The settings.
    pub config: Config,
    /// What it may do. The registry doesn't compare this with what the manifest asks for.
    pub grants: Grants,
    /// Where its limits differ from its tenant's; at most 16 KiB of JSON.
    pub limits: Option<Value>,
}

impl NewInstall {
    /// An install without settings, grants or overrides.
    pub fn new(tenant: TenantId, version_id: Uuid) -> Self {
        Self {
            tenant,
            version_id,
            allow_envelope_config: false,
            config: Config::default(),
            grants: Grants::new(),
            limits: None,
        }
    }

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        self.config.ensure_valid()?;
        grant::ensure_valid(&self.grants)?;
        limits::ensure_valid(self.limits.as_ref())
    }
}

/// One change of an install. What it names is replaced as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum InstallEdit {
    /// Enables, disables or uninstalls it.
    State(InstallState),
    /// Replaces the grants.
    Grants(Grants),
    /// Replaces the settings.
    Config(Config),
    /// Says whether the config of a request's envelope counts.
    AllowEnvelopeConfig(bool),
    /// Replaces the limit overrides.
    Limits(Option<Value>),
    /// Says how many calls of it run at once, 1 to [`MAX_CONCURRENCY`]; without a number, as many as
    /// the configuration says.
    Concurrency(Option<u32>),
}

/// The most calls of an install that may be allowed to run at once.
pub const MAX_CONCURRENCY: u32 = 10_000;

impl InstallEdit {
    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        match self {
            Self::State(_) | Self::AllowEnvelopeConfig(_) => Ok(()),
            Self::Grants(grants) => grant::ensure_valid(grants),
            Self::Config(config) => config.ensure_valid(),
            Self::Limits(limits) => limits::ensure_valid(limits.as_ref()),
            Self::Concurrency(concurrency) => {
                let fits = concurrency.is_none_or(|most| (1..=MAX_CONCURRENCY).contains(&most));
                ensure(fits, "concurrency", "1 to 10000")
            }
        }
    }
}

/// Which installs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallFilter {
    /// Only those of this tenant.
    pub tenant: Option<TenantId>,
    /// Only those of these tenants.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// Only these.
    pub installs: Option<BTreeSet<InstallId>>,
    /// Only those of this extension.
    pub extension: Option<ExtensionKey>,
    /// Also those that are uninstalled.
    pub include_uninstalled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name() {
        for state in [
            InstallState::Enabled,
            InstallState::Disabled,
            InstallState::Uninstalled,
        ] {
            assert_eq!(InstallState::from_name(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(InstallState::from_name("Enabled"), None);
    }
}
