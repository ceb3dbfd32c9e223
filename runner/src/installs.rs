//! What the process knows of installs: the registry, a moment old at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{
    ExtensionKey, Install, InstallFilter, InstallState, PageRequest, Registry, RegistryError,
};
use alga_storage::{CAPABILITY, GrantSource, Limits, Snapshot, StorageGrant};
use async_trait::async_trait;
use moka::future::Cache;

/// How old what is known may be. A change made by another process bites within this time; the
/// contract allows a second.
const MAX_AGE: Duration = Duration::from_millis(500);
/// Installs that are remembered. One costs about a KiB.
const MAX_REMEMBERED: u64 = 10_000;

/// Looks installs up, for invocations and for storage.
#[derive(Debug)]
pub struct Installs {
    registry: Arc<dyn Registry>,
    limits: Limits,
    known: Cache<InstallId, Option<Arc<KnownInstall>>>,
}

/// An install as it was a moment ago.
#[derive(Debug)]
pub struct KnownInstall {
    /// The row of the registry.
    pub install: Install,
    /// Its version, shared with every invocation.
    pub version: Arc<str>,
    /// Its settings, shared with every invocation.
    pub config: Arc<BTreeMap<String, String>>,
    storage: Arc<Snapshot>,
}

impl Installs {
    /// Looks into `registry`; `limits` are those of every install.
    pub fn new(registry: Arc<dyn Registry>, limits: Limits) -> Self {
        let known = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .time_to_live(MAX_AGE)
            .build();
        Self {
            registry,
            limits,
            known,
        }
    }

    /// The install with this id, uninstalled ones left out.
    pub async fn find(
        &self,
        id: InstallId,
    ) -> Result<Option<Arc<KnownInstall>>, Arc<RegistryError>> {
        self.known.try_get_with(id, self.look_up(id)).await
    }

    /// The one install of an extension for a tenant.
    ///
    /// # Errors
    /// [`Ambiguous::None`] and [`Ambiguous::Several`] where there is not exactly one.
    pub async fn only(
        &self,
        tenant: TenantId,
        extension: ExtensionKey,
    ) -> Result<Result<Arc<KnownInstall>, Ambiguous>, Arc<RegistryError>> {
        let filter = InstallFilter {
            tenant: Some(tenant),
            extension: Some(extension),
            ..InstallFilter::default()
        };
        let mut found = self
            .registry
            .installs(&filter, PageRequest::first(2))
            .await?
            .items;
        Ok(match (found.pop(), found.pop()) {
            (None, _) => Err(Ambiguous::None),
            (Some(_), Some(_)) => Err(Ambiguous::Several),
            (Some(install), None) => Ok(Arc::new(KnownInstall::new(install, self.limits))),
        })
    }

    async fn look_up(&self, id: InstallId) -> Result<Option<Arc<KnownInstall>>, RegistryError> {
        let install = self.registry.install(id).await?;
        Ok(install
            .filter(|install| install.state != InstallState::Uninstalled)
            .map(|install| Arc::new(KnownInstall::new(install, self.limits))))
    }
}

/// Not exactly one install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// There is none.
    None,
    /// There are several.
    Several,
}

impl KnownInstall {
    fn new(install: Install, limits: Limits) -> Self {
        let storage = Snapshot {
            tenant: install.tenant,
            extension: install.extension_name.clone(),
            grant: storage_grant(&install),
            limits,
            active: install.state == InstallState::Enabled,
        };
        Self {
            version: install.version.as_str().into(),
            config: Arc::new(install.config.as_map().clone()),
            storage: Arc::new(storage),
            install,
        }
    }

    /// Whether this is the extension that a caller means, by name or by id.
    pub fn is_of(&self, extension: &ExtensionKey) -> bool {
        match extension {
            ExtensionKey::Id(id) => *id == self.install.extension_id,
            ExtensionKey::Name(name) => *name == self.install.extension_name,
        }
    }

    /// The name of the extension.
    pub fn extension(&self) -> &ExtensionName {
        &self.install.extension_name
    }
}

/// A grant that can't be read grants nothing.
fn storage_grant(install: &Install) -> Option<StorageGrant> {
    let grant = install.grants.get(CAPABILITY)?;
    StorageGrant::parse(grant)
        .inspect_err(|error| tracing::error!(install.id = %install.id, %error, "a stored grant is not valid"))
        .ok()
}

#[async_trait]
impl GrantSource for Installs {
    async fn snapshot(
        &self,
        install: InstallId,
    ) -> Result<Option<Arc<Snapshot>>, alga_storage::Error> {
        let known = self.find(install).await.map_err(|error| match *error {
            RegistryError::Unavailable { .. } => alga_storage::Error::Unavailable(error.into()),
            _ => alga_storage::Error::Internal(error.into()),
        })?;
        Ok(known.map(|known| Arc::clone(&known.storage)))
    }
}
