//! Tenants' settings: what an administrator sets for all installs of one tenant.

use alga_model::{TenantId, Timestamp};
use serde_json::Value;

use crate::change::ensure_generation;
use crate::error::RegistryError;
use crate::limits;

/// What applies to every install of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantSettings {
    /// Whose settings they are.
    pub tenant: TenantId,
    /// Whether the tenant's installs may use the storage, as far as the deployment lets any.
    pub storage: bool,
    /// Where the limits of all its installs differ from the defaults, as JSON that the storage
    /// understands.
    pub limits: Option<Value>,
    /// 0 at first, one more with every change.
    pub generation: u64,
    /// When they were last changed; `None` if never.
    pub updated_at: Option<Timestamp>,
}

impl TenantSettings {
    /// The settings of a tenant for whom nobody changed any.
    pub const fn unchanged(tenant: TenantId) -> Self {
        Self {
            tenant,
            storage: true,
            limits: None,
            generation: 0,
            updated_at: None,
        }
    }

    /// These settings after `edit`; `None` when the edit changes nothing.
    pub(crate) fn edited(
        &self,
        edit: &TenantEdit,
        expected_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        ensure_generation(self.generation, expected_generation)?;
        let mut after = self.clone();
        match edit.clone() {
            TenantEdit::Storage(storage) => after.storage = storage,
            TenantEdit::Limits(limits) => after.limits = limits,
        }
        if after == *self {
            return Ok(None);
        }
        after.generation = self.generation.saturating_add(1);
        after.updated_at = Some(now);
        Ok(Some(after))
    }
}

/// One change of a tenant's settings. What it names is replaced as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum TenantEdit {
    /// Turns the storage on or off for the tenant.
    Storage(bool),
    /// Replaces the limit overrides; at most 16 KiB of JSON.
    Limits(Option<Value>),
}

impl TenantEdit {
    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        match self {
            Self::Storage(_) => Ok(()),
            Self::Limits(limits) => limits::ensure_valid(limits.as_ref()),
        }
    }
}
