//! The audit: one record of every mutation, committed together with it.

use std::fmt;
use std::str::FromStr;

use alga_model::{ExtensionName, InstallId, TenantId, Timestamp};
use serde_json::{Value, json};

use crate::bounds::ensure;
use crate::error::RegistryError;
use crate::extension::Extension;
use crate::install::{Install, InstallEdit};
use crate::switches::Switches;
use crate::tenant::{TenantEdit, TenantSettings};
use crate::version::{NewVersion, Registered, Version};

/// One mutation that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its place in the audit; grows with time and is never given twice.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Who asked for it.
    pub actor: String,
    /// The request it was asked for in.
    pub request_id: Option<String>,
    /// What was done, an [`AuditAction`]. Text, so that a release can read what a later one wrote.
    pub action: String,
    /// The tenant it was done to, or whose install.
    pub tenant: Option<TenantId>,
    /// The install it was done to.
    pub install: Option<InstallId>,
    /// The extension it was done to.
    pub extension: Option<ExtensionName>,
    /// What changed, a JSON object. Never holds a config value.
    pub details: Value,
}

/// What a mutation of the registry can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// A version was registered, and its extension if it was the first.
    VersionRegister,
    /// A version was removed.
    VersionRemove,
    /// An install was made.
    InstallCreate,
    /// An install was enabled, disabled or uninstalled.
    InstallState,
    /// An install was brought to another version, with the grants it has there.
    InstallUpgrade,
    /// An install went back to its former version and the grants it had there.
    InstallRollback,
    /// An install's grants were replaced.
    InstallGrants,
    /// An install's settings were replaced.
    InstallConfig,
    /// Whether an envelope's config counts was changed.
    InstallEnvelopeConfig,
    /// An install's limit overrides were replaced.
    InstallLimits,
    /// How many calls of an install run at once was changed.
    InstallConcurrency,
    /// The storage was turned on or off for all.
    SwitchesStorage,
    /// The list of allowed extensions was replaced.
    SwitchesExtensions,
    /// Both were changed at once.
    SwitchesAll,
    /// The storage was turned on or off for a tenant.
    TenantStorage,
    /// A tenant's limit overrides were replaced.
    TenantLimits,
}

impl AuditAction {
    const ALL: [Self; 16] = [
        Self::VersionRegister,
        Self::VersionRemove,
        Self::InstallCreate,
        Self::InstallState,
        Self::InstallUpgrade,
        Self::InstallRollback,
        Self::InstallGrants,
        Self::InstallConfig,
        Self::InstallEnvelopeConfig,
        Self::InstallLimits,
        Self::InstallConcurrency,
        Self::SwitchesStorage,
        Self::SwitchesExtensions,
        Self::SwitchesAll,
        Self::TenantStorage,
        Self::TenantLimits,
    ];

    /// The action's name in the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VersionRegister => "version.register",
            Self::VersionRemove => "version.remove",
            Self::InstallCreate => "install.create",
            Self::InstallState => "install.state",
            Self::InstallUpgrade => "install.upgrade",
            Self::InstallRollback => "install.rollback",
            Self::InstallGrants => "install.grants",
            Self::InstallConfig => "install.config",
            Self::InstallEnvelopeConfig => "install.envelope-config",
            Self::InstallLimits => "install.limits",
            Self::InstallConcurrency => "install.concurrency",
            Self::SwitchesStorage => "switches.storage",
            Self::SwitchesExtensions => "switches.extensions",
            Self::SwitchesAll => "switches.all",
            Self::TenantStorage => "tenant.storage",
            Self::TenantLimits => "tenant.limits",
        }
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not an [`AuditAction`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an audit action must be one such as version.register or install.grants")]
pub struct ParseAuditActionError;

impl FromStr for AuditAction {
    type Err = ParseAuditActionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or(ParseAuditActionError)
    }
}

/// Which records to read. What is `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only what was done to this tenant or its installs.
    pub tenant: Option<TenantId>,
    /// Only what was done to this install.
    pub install: Option<InstallId>,
    /// Only what was done to this extension or its installs.
    pub extension: Option<ExtensionName>,
    /// Only this.
    pub action: Option<AuditAction>,
    /// Only what happened at this time or later.
    pub since: Option<Timestamp>,
    /// Only what happened before this time.
    pub until: Option<Timestamp>,
    /// Where to begin.
    pub order: AuditOrder,
}

/// The direction the audit is read in.
///
/// Records stand in the order in which their mutations were committed. That is the order of their
/// times, but for mutations that waited for one another, so whoever keeps the last `seq` misses
/// nothing that is committed later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuditOrder {
    /// From the first record on, as an export does.
    #[default]
    OldestFirst,
    /// From the last record back, as people do.
    NewestFirst,
}

/// The most records one removal takes out. Bounds how long it keeps other mutations waiting.
pub const MAX_AUDIT_REMOVAL: u32 = 10_000;

pub(crate) fn ensure_removal_limit(limit: u32) -> Result<(), RegistryError> {
    let is_within = (1..=MAX_AUDIT_REMOVAL).contains(&limit);
    ensure(is_within, "limit", "1 to 10000")
}

/// What a mutation says of itself, for the record a backend writes.
#[derive(Debug)]
pub(crate) struct AuditEntry<'a> {
    pub(crate) action: AuditAction,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) install: Option<InstallId>,
    pub(crate) extension: Option<&'a ExtensionName>,
    pub(crate) details: Value,
}

impl<'a> AuditEntry<'a> {
    pub(crate) fn version_registered(new: &NewVersion, registered: &'a Registered) -> Self {
        Self {
            action: AuditAction::VersionRegister,
            tenant: None,
            install: None,
            extension: Some(&registered.extension.name),
            details: json!({
                "version": new.version,
                "contentHash": new.content_hash,
                "publisher": new.publisher,
                "size": new.size,
            }),
        }
    }

    pub(crate) fn version_removed(extension: &'a Extension, version: &Version) -> Self {
        Self {
            action: AuditAction::VersionRemove,
            tenant: None,
            install: None,
            extension: Some(&extension.name),
            details: json!({
                "version": version.version,
                "contentHash": version.content_hash,
                "size": version.size,
            }),
        }
    }

    pub(crate) fn install_created(install: &'a Install) -> Self {
        let details = json!({
            "version": install.version,
            "contentHash": install.content_hash,
            "grants": install.grants,
            "configKeys": install.config.as_map().keys().collect::<Vec<_>>(),
            "allowEnvelopeConfig": install.allow_envelope_config,
            "limits": install.limits,
        });
        Self::of_install(AuditAction::InstallCreate, install, details)
    }

    pub(crate) fn install_edited(edit: &InstallEdit, before: &Install, after: &'a Install) -> Self {
        let (action, details) = match edit {
            InstallEdit::State(_) => (
                AuditAction::InstallState,
                json!({ "before": before.state, "after": after.state, "generation": after.generation }),
            ),
            InstallEdit::Grants(_) => (
                AuditAction::InstallGrants,
                json!({ "before": before.grants, "after": after.grants, "generation": after.generation }),
            ),
            InstallEdit::Config(_) => (
                AuditAction::InstallConfig,
                json!({
                    "set": after.config.keys_set_since(&before.config),
                    "removed": after.config.keys_removed_since(&before.config),
                    "generation": after.generation,
                }),
            ),
            InstallEdit::AllowEnvelopeConfig(_) => (
                AuditAction::InstallEnvelopeConfig,
                json!({
                    "before": before.allow_envelope_config,
                    "after": after.allow_envelope_config,
                    "generation": after.generation,
                }),
            ),
            InstallEdit::Limits(_) => (
                AuditAction::InstallLimits,
                json!({ "before": before.limits, "after": after.limits, "generation": after.generation }),
            ),
            InstallEdit::Concurrency(_) => (
                AuditAction::InstallConcurrency,
                json!({
                    "before": before.concurrency,
                    "after": after.concurrency,
                    "generation": after.generation,
                }),
            ),
        };
        Self::of_install(action, after, details)
    }

    /// An upgrade, or a rollback: one version and its grants instead of another.
    pub(crate) fn version_changed(
        action: AuditAction,
        before: &Install,
        after: &'a Install,
    ) -> Self {
        let state = |of: &Install| json!({ "version": of.version, "contentHash": of.content_hash, "grants": of.grants });
        let details = json!({
            "before": state(before),
            "after": state(after),
            "generation": after.generation,
        });
        Self::of_install(action, after, details)
    }

    /// The action tells what is different, whichever edit made it so.
    pub(crate) fn switches_edited(before: &Switches, after: &Switches) -> Self {
        let storage = before.storage != after.storage;
        let extensions = before.allowed_extensions != after.allowed_extensions;
        let both = |of: &Switches| json!({ "storage": of.storage, "allowedExtensions": of.allowed_extensions });
        let (action, before, after_edit) = match (storage, extensions) {
            (true, true) => (AuditAction::SwitchesAll, both(before), both(after)),
            (true, false) => (
                AuditAction::SwitchesStorage,
                json!(before.storage),
                json!(after.storage),
            ),
            (false, _) => (
                AuditAction::SwitchesExtensions,
                json!(before.allowed_extensions),
                json!(after.allowed_extensions),
            ),
        };
        let details =
            json!({ "before": before, "after": after_edit, "generation": after.generation });
        Self {
            action,
            tenant: None,
            install: None,
            extension: None,
            details,
        }
    }

    pub(crate) fn tenant_edited(
        edit: &TenantEdit,
        before: &TenantSettings,
        after: &TenantSettings,
    ) -> Self {
        let (action, details) = match edit {
            TenantEdit::Storage(_) => (
                AuditAction::TenantStorage,
                json!({ "before": before.storage, "after": after.storage, "generation": after.generation }),
            ),
            TenantEdit::Limits(_) => (
                AuditAction::TenantLimits,
                json!({ "before": before.limits, "after": after.limits, "generation": after.generation }),
            ),
        };
        Self {
            action,
            tenant: Some(after.tenant),
            install: None,
            extension: None,
            details,
        }
    }

    fn of_install(action: AuditAction, install: &'a Install, details: Value) -> Self {
        Self {
            action,
            tenant: Some(install.tenant),
            install: Some(install.id),
            extension: Some(&install.extension_name),
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_survives_its_name() {
        for action in AuditAction::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!(
            "install.purge".parse::<AuditAction>(),
            Err(ParseAuditActionError)
        );
    }
}
