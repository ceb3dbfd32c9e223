//! What the process knows of installs: the registry, a moment old at most.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{
    ExtensionKey, Grants, Install, InstallFilter, InstallState, PageRequest, Registry,
    RegistryError, Switches, TenantSettings,
};
use alga_storage::{
    CAPABILITY, GrantSource, LimitOverrides, Limits, LimitsOf, Snapshot, StorageGrant,
};
use async_trait::async_trait;
use quick_cache::sync::Cache;
use serde_json::Value;

use crate::engine::{LastPrepared, Prepared};

/// How old what is known may be. A change made by another process bites within this time; the
/// contract allows a second.
const MAX_AGE: Duration = Duration::from_millis(500);
/// Installs that are remembered. One costs about a KiB.
const MAX_REMEMBERED: usize = 10_000;

/// Looks installs up, for invocations and for storage, together with what is set for their tenants
/// and for all.
#[derive(Debug)]
pub struct Installs {
    registry: Arc<dyn Registry>,
    limits: Limits,
    known: Cache<InstallId, Seen>,
    max_age: Duration,
    /// How many changes this process made.
    changes: AtomicU64,
}

/// What was seen of an install; nothing where there is none.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    /// The changes of this process that were counted before.
    changes: u64,
    install: Option<Arc<KnownInstall>>,
}

/// An install as it was a moment ago.
pub struct KnownInstall {
    /// The row of the registry, without its grants and limits.
    pub install: Install,
    /// Its version, shared with every invocation.
    pub version: Arc<str>,
    /// Its settings, shared with every invocation.
    pub config: Arc<BTreeMap<String, String>>,
    storage: Arc<Snapshot>,
    /// Its component, looked up once in all the time that this is known.
    prepared: OnceLock<LastPrepared>,
}

/// Without the settings, some of which are secrets; their names are in the row.
impl fmt::Debug for KnownInstall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownInstall")
            .field("install", &self.install)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

impl Installs {
    /// Looks into `registry`; `limits` are those of every install, unless it or its tenant has
    /// others.
    pub fn new(registry: Arc<dyn Registry>, limits: Limits) -> Self {
        Self::remembering(registry, limits, MAX_AGE)
    }

    /// The same, with what is known as old as `max_age` at most.
    pub(crate) fn remembering(
        registry: Arc<dyn Registry>,
        limits: Limits,
        max_age: Duration,
    ) -> Self {
        Self {
            registry,
            limits,
            known: Cache::new(MAX_REMEMBERED),
            max_age,
            changes: AtomicU64::new(0),
        }
    }

    /// Looks at everything once that a call looks at, so that the first one finds connections open
    /// and statements prepared.
    pub async fn warm_up(&self) -> Result<(), RegistryError> {
        self.registry.install(InstallId::generate()).await?;
        let (switches, tenant) = (
            self.registry.switches(),
            self.registry.tenant_settings(TenantId::generate()),
        );
        tokio::try_join!(switches, tenant)?;
        Ok(())
    }

    /// The install with this id, uninstalled ones left out.
    pub async fn find(&self, id: InstallId) -> Result<Option<Arc<KnownInstall>>, RegistryError> {
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(seen) = self.known.get(&id)
            && self.is_fresh(&seen, changes)
        {
            return Ok(seen.install);
        }
        // On the heap, as most calls find it.
        Box::pin(self.find_anew(id, changes)).await
    }

    async fn find_anew(
        &self,
        id: InstallId,
        changes: u64,
    ) -> Result<Option<Arc<KnownInstall>>, RegistryError> {
        loop {
            self.known
                .remove_if(&id, |seen| !self.is_fresh(seen, changes));
            // However many ask, one of them looks.
            let seen = self.known.get_or_insert_async(&id, self.look(id)).await?;
            // One that began before a change may have ended after it was forgotten. Changes are counted
            // for all installs together: they are rare, and looking is cheap.
            if seen.changes >= changes {
                return Ok(seen.install);
            }
        }
    }

    fn is_fresh(&self, seen: &Seen, changes: u64) -> bool {
        seen.changes >= changes && seen.at.elapsed() < self.max_age
    }

    async fn look(&self, id: InstallId) -> Result<Seen, RegistryError> {
        Ok(Seen {
            at: Instant::now(),
            changes: self.changes.load(Ordering::Acquire),
            install: self.look_up(id).await?,
        })
    }

    /// The one install of an extension for a tenant.
    ///
    /// # Errors
    /// [`Ambiguous::None`] and [`Ambiguous::Several`] where there is not exactly one.
    pub async fn only(
        &self,
        tenant: TenantId,
        extension: ExtensionKey,
    ) -> Result<Result<Arc<KnownInstall>, Ambiguous>, RegistryError> {
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
            (Some(install), None) => Ok(self.with_settings(install).await?),
        })
    }

    /// What applies to the installs of a tenant that have no limits of their own, and to all of
    /// them together.
    pub async fn tenant_limits(&self, tenant: TenantId) -> Result<Limits, RegistryError> {
        let settings = self.registry.tenant_settings(tenant).await?;
        Ok(self.limits_of_tenant(&settings))
    }

    /// What applies to an install, as the registry has it now.
    pub async fn install_limits(&self, install: &Install) -> Result<Limits, RegistryError> {
        let tenant = self.registry.tenant_settings(install.tenant).await?;
        Ok(self.limits_of_install(&tenant, install))
    }

    /// Looks an install up again when it is next asked for: it was changed by this process.
    pub fn forget(&self, id: InstallId) {
        self.changes.fetch_add(1, Ordering::Release);
        self.known.remove(&id);
    }

    /// Looks every install up again.
    pub fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.known.clear();
    }

    async fn look_up(&self, id: InstallId) -> Result<Option<Arc<KnownInstall>>, RegistryError> {
        match self.registry.install(id).await? {
            Some(install) if install.state != InstallState::Uninstalled => {
                self.with_settings(install).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Adds what is set for all and for the tenant at this moment.
    async fn with_settings(&self, install: Install) -> Result<Arc<KnownInstall>, RegistryError> {
        let (switches, tenant) = tokio::try_join!(
            self.registry.switches(),
            self.registry.tenant_settings(install.tenant)
        )?;
        let storage = Snapshot {
            tenant: install.tenant,
            extension: install.extension_name.clone(),
            grant: storage_grant(&install),
            limits: self.limits_of_install(&tenant, &install),
            active: install.state == InstallState::Enabled,
            switched_on: is_switched_on(&switches, &tenant, &install),
        };
        Ok(Arc::new(KnownInstall::new(install, storage)))
    }

    fn limits_of_install(&self, tenant: &TenantSettings, install: &Install) -> Limits {
        let overrides = [&overrides_of_tenant(tenant), &overrides_of_install(install)];
        self.limits.with(overrides)
    }

    fn limits_of_tenant(&self, tenant: &TenantSettings) -> Limits {
        self.limits.with([&overrides_of_tenant(tenant)])
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
    fn new(mut install: Install, storage: Snapshot) -> Self {
        // What they mean is in the snapshot; as JSON they are most of what an install takes.
        install.grants = Grants::new();
        install.limits = None;
        Self {
            version: install.version.as_str().into(),
            config: Arc::new(install.config.as_map().clone()),
            storage: Arc::new(storage),
            prepared: OnceLock::new(),
            install,
        }
    }

    /// Its component, if that was looked up a moment ago and is still in memory.
    pub fn prepared(&self) -> Option<Prepared> {
        self.prepared.get()?.upgrade()
    }

    /// Remembers its component for the next call, without keeping it in memory.
    pub fn remember(&self, prepared: &Prepared) {
        // Fails where another call was faster, or where one that was remembered is gone from memory:
        // then each call looks it up, for as long as this is known.
        drop(self.prepared.set(prepared.downgrade()));
    }

    /// Whether it may run.
    pub fn is_enabled(&self) -> bool {
        self.install.state == InstallState::Enabled
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

fn is_switched_on(switches: &Switches, tenant: &TenantSettings, install: &Install) -> bool {
    switches.storage && tenant.storage && switches.allows(&install.extension_name)
}

fn overrides_of_tenant(tenant: &TenantSettings) -> LimitOverrides {
    overrides(tenant.limits.as_ref(), LimitsOf::Tenant, |error| {
        tracing::error!(tenant.id = %tenant.tenant, %error, "stored limits of a tenant are not valid");
    })
}

fn overrides_of_install(install: &Install) -> LimitOverrides {
    overrides(install.limits.as_ref(), LimitsOf::Install, |error| {
        tracing::error!(install.id = %install.id, %error, "stored limits of an install are not valid");
    })
}

/// Overrides that can't be read override nothing.
fn overrides(
    stored: Option<&Value>,
    of: LimitsOf,
    report: impl FnOnce(&alga_storage::InvalidLimits),
) -> LimitOverrides {
    stored
        .map(|stored| LimitOverrides::parse(stored, of))
        .transpose()
        .inspect_err(report)
        .ok()
        .flatten()
        .unwrap_or_default()
}

#[async_trait]
impl GrantSource for Installs {
    async fn snapshot(
        &self,
        install: InstallId,
    ) -> Result<Option<Arc<Snapshot>>, alga_storage::Error> {
        let known = self.find(install).await.map_err(|error| match error {
            RegistryError::Unavailable { .. } => alga_storage::Error::Unavailable(error.into()),
            _ => alga_storage::Error::Internal(error.into()),
        })?;
        Ok(known.map(|known| Arc::clone(&known.storage)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use alga_registry::{InstallEdit, SwitchesEdit, TenantEdit};
    use serde_json::json;

    use super::*;
    use crate::stage::Stage;

    /// What is known of an install by somebody who looks for the first time.
    async fn seen(stage: &Stage, install: &Install) -> Arc<Snapshot> {
        let installs = stage.installs_with(Limits::default());
        installs.snapshot(install.id).await.unwrap().unwrap()
    }

    async fn switch(stage: &Stage, edit: SwitchesEdit) {
        let edited = stage.registry.edit_switches(edit, None, stage.change());
        edited.await.unwrap();
    }

    async fn set_for_tenant(stage: &Stage, tenant: TenantId, edit: TenantEdit) {
        let edited = stage
            .registry
            .edit_tenant(tenant, edit, None, stage.change());
        edited.await.unwrap();
    }

    async fn set_limits(stage: &Stage, install: &Install, limits: Option<Value>) {
        let edit = InstallEdit::Limits(limits);
        let edited = stage
            .registry
            .edit_install(install.id, edit, None, stage.change());
        edited.await.unwrap();
    }

    #[tokio::test]
    async fn the_switch_for_all_turns_storage_off_and_on_again() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        assert!(seen(&stage, &install).await.switched_on);
        for on in [false, true] {
            switch(&stage, SwitchesEdit::Storage(on)).await;
            assert_eq!(seen(&stage, &install).await.switched_on, on);
        }
    }

    #[tokio::test]
    async fn the_switch_of_a_tenant_turns_its_storage_off_and_no_other() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let neighbour = stage.install(TenantId::generate()).await;
        for on in [false, true] {
            set_for_tenant(&stage, install.tenant, TenantEdit::Storage(on)).await;
            assert_eq!(seen(&stage, &install).await.switched_on, on);
            assert!(seen(&stage, &neighbour).await.switched_on);
        }
    }

    #[tokio::test]
    async fn one_switch_does_not_undo_another() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        switch(&stage, SwitchesEdit::Storage(false)).await;
        set_for_tenant(&stage, install.tenant, TenantEdit::Storage(false)).await;
        set_for_tenant(&stage, install.tenant, TenantEdit::Storage(true)).await;
        assert!(!seen(&stage, &install).await.switched_on);
    }

    #[tokio::test]
    async fn only_extensions_on_the_list_may_use_storage_where_there_is_one() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let notes = install.extension_name.clone();
        let other: ExtensionName = "com.example.other".parse().unwrap();
        for (allowed, on) in [
            (Some(BTreeSet::new()), false),
            (Some(BTreeSet::from([other.clone()])), false),
            (Some(BTreeSet::from([notes, other])), true),
            (None, true),
        ] {
            switch(&stage, SwitchesEdit::AllowedExtensions(allowed.clone())).await;
            assert_eq!(seen(&stage, &install).await.switched_on, on, "{allowed:?}");
        }
    }

    #[tokio::test]
    async fn a_disabled_install_is_not_switched_off() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let disabled = InstallState::Disabled;
        let edited = stage
            .registry
            .set_state(install.id, disabled, None, stage.change());
        edited.await.unwrap();
        let seen = seen(&stage, &install).await;
        assert_eq!((seen.active, seen.switched_on), (false, true));
    }

    #[tokio::test]
    async fn limits_of_an_install_are_stronger_than_its_tenants_and_those_than_the_configured() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let neighbour = stage.install(install.tenant).await;
        let stranger = stage.install(TenantId::generate()).await;
        let of_tenant = json!({"quotas": {"namespaces": 7, "keysPerNamespace": 70}});
        set_for_tenant(&stage, install.tenant, TenantEdit::Limits(Some(of_tenant))).await;
        set_limits(
            &stage,
            &install,
            Some(json!({"quotas": {"keysPerNamespace": 71}})),
        )
        .await;

        let quotas = async |install| {
            let quotas = seen(&stage, install).await.limits.quotas;
            (
                quotas.namespaces,
                quotas.keys_per_namespace,
                quotas.bytes_per_install,
            )
        };
        assert_eq!(quotas(&install).await, (7, 71, 256 << 20));
        assert_eq!(quotas(&neighbour).await, (7, 70, 256 << 20));
        assert_eq!(quotas(&stranger).await, (32, 5_120, 256 << 20));
        set_limits(&stage, &install, None).await;
        assert_eq!(quotas(&install).await, (7, 70, 256 << 20));
    }

    #[tokio::test]
    async fn limits_that_cannot_be_read_override_nothing() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let unknown = json!({"quotas": {"namespaces": 7, "sheep": 1}});
        set_for_tenant(&stage, install.tenant, TenantEdit::Limits(Some(unknown))).await;
        // What only a tenant may have.
        set_limits(
            &stage,
            &install,
            Some(json!({"quotas": {"bytesPerTenant": 1}})),
        )
        .await;
        assert_eq!(seen(&stage, &install).await.limits, Limits::default());
    }

    #[tokio::test]
    async fn the_only_install_of_an_extension_is_known_with_its_settings() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        set_for_tenant(&stage, install.tenant, TenantEdit::Storage(false)).await;
        let installs = stage.installs_with(Limits::default());
        let key = ExtensionKey::Name(install.extension_name.clone());
        let known = installs.only(install.tenant, key).await.unwrap().unwrap();
        assert!(!known.storage.switched_on);
    }

    #[tokio::test]
    async fn a_change_is_seen_before_what_is_known_is_too_old() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let installs = stage.installs_with(Limits::default());
        assert!(
            installs
                .snapshot(install.id)
                .await
                .unwrap()
                .unwrap()
                .switched_on
        );
        let known_since = Instant::now();
        switch(&stage, SwitchesEdit::Storage(false)).await;
        loop {
            let is_too_old = known_since.elapsed() > MAX_AGE;
            let snapshot = installs.snapshot(install.id).await.unwrap().unwrap();
            if !snapshot.switched_on {
                break;
            }
            assert!(!is_too_old, "the change was not seen");
            tokio::task::yield_now().await;
        }
    }
}
