//! What the process knows of installs: the registry, a moment old at most.
//!
//! A change that this process makes is seen at once, and so is one that it is told of.

mod changes;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use alga_host_api::Served;
use alga_model::{ExtensionName, InstallId, TenantId};
use alga_registry::{
    Changed, ExtensionKey, Grants, Install, InstallFilter, InstallState, PageRequest, Registry,
    RegistryError, Switches, TenantSettings,
};
use alga_storage::{
    CAPABILITY, GrantSource, LimitOverrides, Limits, LimitsOf, Snapshot, StorageGrant,
};
use async_trait::async_trait;
use quick_cache::sync::Cache;
use serde_json::Value;

use self::changes::Changes;
use crate::engine::{LastPrepared, Prepared};

/// How old what is known may be where nobody tells of changes. One made by another process bites within
/// this time.
const MAX_AGE: Duration = Duration::from_millis(500);
/// How old it may be where changes are told. The contract allows five seconds, should a message be lost.
const MAX_AGE_TOLD: Duration = Duration::from_secs(4);
/// Installs that are remembered. One costs about a KiB.
const MAX_REMEMBERED: usize = 10_000;

/// Looks installs up, for invocations and for storage, together with what is set for their tenants
/// and for all.
#[derive(Debug)]
pub struct Installs {
    registry: Arc<dyn Registry>,
    limits: Limits,
    known: Cache<InstallId, Seen>,
    /// How old it may be, and where changes are told.
    max_age: Duration,
    max_age_told: Duration,
    is_told: AtomicBool,
    changes: Changes,
}

/// What was seen of an install; nothing where there is none.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    /// The changes that were counted before: all, those of the install, those of its tenant.
    changes: u64,
    of_install: u64,
    of_tenant: u64,
    install: Option<Arc<KnownInstall>>,
}

/// An install as it was a moment ago.
pub struct KnownInstall {
    /// The row of the registry, without its grants and limits.
    pub install: Install,
    /// What every invocation of it shares.
    pub served: Arc<Served>,
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
        Self {
            registry,
            limits,
            known: Cache::new(MAX_REMEMBERED),
            max_age: MAX_AGE,
            max_age_told: MAX_AGE_TOLD,
            is_told: AtomicBool::new(false),
            changes: Changes::new(),
        }
    }

    /// The same, with what is known as old as `max_age` at most.
    #[cfg(test)]
    pub(crate) fn remembering(
        registry: Arc<dyn Registry>,
        limits: Limits,
        max_age: Duration,
    ) -> Self {
        Self {
            max_age,
            max_age_told: max_age,
            ..Self::new(registry, limits)
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
        if let Some(seen) = self.known.get(&id)
            && self.is_fresh(id, &seen)
        {
            return Ok(seen.install);
        }
        // On the heap, as most calls find it.
        Box::pin(self.find_anew(id)).await
    }

    async fn find_anew(&self, id: InstallId) -> Result<Option<Arc<KnownInstall>>, RegistryError> {
        let changes = self.changes.of_all();
        loop {
            self.known.remove_if(&id, |seen| !self.is_fresh(id, seen));
            // However many ask, one of them looks.
            let seen = self.known.get_or_insert_async(&id, self.look(id)).await?;
            // Another one may have begun to look before a change. A look that began since can't have,
            // as far as this call is concerned, however many changes there are.
            if seen.changes >= changes || self.is_current(id, &seen) {
                return Ok(seen.install);
            }
        }
    }

    fn is_fresh(&self, id: InstallId, seen: &Seen) -> bool {
        self.is_current(id, seen) && seen.at.elapsed() < self.max_age()
    }

    fn max_age(&self) -> Duration {
        if self.is_told() {
            self.max_age_told
        } else {
            self.max_age
        }
    }

    /// Whether nothing was changed since it was seen, as far as this process knows.
    fn is_current(&self, id: InstallId, seen: &Seen) -> bool {
        let tenant = seen.install.as_ref().map(|known| known.install.tenant);
        seen.of_install == self.changes.of(id.as_uuid())
            && tenant.is_none_or(|tenant| seen.of_tenant == self.changes.of(tenant.as_uuid()))
    }

    async fn look(&self, id: InstallId) -> Result<Seen, RegistryError> {
        let mut seen = Seen {
            at: Instant::now(),
            changes: self.changes.of_all(),
            of_install: self.changes.of(id.as_uuid()),
            of_tenant: 0,
            install: None,
        };
        let install = self.registry.install(id).await?;
        if let Some(install) = install
            && install.state != InstallState::Uninstalled
        {
            // An install is its tenant's for ever, whose settings are only read from here on.
            seen.of_tenant = self.changes.of(install.tenant.as_uuid());
            seen.install = Some(self.with_settings(install).await?);
        }
        Ok(seen)
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

    /// Looks an install up again when it is next asked for.
    pub fn forget(&self, id: InstallId) {
        self.changes.count(id.as_uuid());
        self.known.remove(&id);
    }

    /// Looks every install up again.
    pub fn forget_all(&self) {
        self.changes.count_all();
        self.known.clear();
    }

    /// Looks up again what was changed.
    pub fn learn(&self, changed: Changed) {
        match changed {
            Changed::Install(id) => self.forget(id),
            Changed::Tenant(tenant) => self.changes.count(tenant.as_uuid()),
            Changed::All => self.forget_all(),
        }
    }

    /// Whether changes of other processes are told.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    /// How many changes it learned of.
    #[cfg(test)]
    pub(crate) fn changes_heard(&self) -> u64 {
        self.changes.of_all()
    }

    /// Says that this is told of every change from now on, for as long as what is returned lives. What is
    /// known may be older then.
    pub(crate) fn told(&self) -> Told<'_> {
        // What was changed before is not told.
        self.forget_all();
        self.is_told.store(true, Ordering::Release);
        Told(self)
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

/// As long as this is there, changes are told.
#[derive(Debug)]
#[must_use = "nobody is told any more when this is dropped"]
pub(crate) struct Told<'a>(&'a Installs);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.is_told.store(false, Ordering::Release);
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
            served: Arc::new(Served {
                tenant: install.tenant,
                install: install.id,
                extension: install.extension_name.clone(),
                version: install.version.as_str().into(),
                config: install.config.as_map().clone(),
            }),
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
    async fn what_is_known_may_be_older_while_changes_are_told() {
        let installs = Stage::open().await.installs_with(Limits::default());
        assert_eq!(installs.max_age(), MAX_AGE);
        let told = installs.told();
        assert_eq!(installs.max_age(), MAX_AGE_TOLD);
        drop(told);
        assert_eq!(installs.max_age(), MAX_AGE);
    }

    #[tokio::test]
    async fn what_was_changed_is_looked_up_again_and_little_else() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        let installs = stage.installs_that_last();
        let mut neighbours = Vec::new();
        for _ in 0..10 {
            neighbours.push(stage.install(TenantId::generate()).await.id);
        }
        let remembered = async |id, before: &Arc<KnownInstall>| {
            Arc::ptr_eq(&installs.find(id).await.unwrap().unwrap(), before)
        };
        for (changed, of_neighbours) in [
            (Changed::Install(install.id), true),
            (Changed::Tenant(install.tenant), true),
            (Changed::All, false),
        ] {
            let known = installs.find(install.id).await.unwrap().unwrap();
            let mut known_neighbours = Vec::new();
            for id in &neighbours {
                known_neighbours.push(installs.find(*id).await.unwrap().unwrap());
            }
            installs.learn(changed);
            assert!(!remembered(install.id, &known).await, "{changed:?}");
            let mut still = 0;
            for (id, known) in neighbours.iter().zip(&known_neighbours) {
                still += u32::from(remembered(*id, known).await);
            }
            // One in a thousand is looked up in vain.
            assert_eq!(still > 5, of_neighbours, "{changed:?}: {still} of 10");
        }
    }

    #[tokio::test]
    async fn that_there_is_no_install_is_remembered_until_there_is_one() {
        let stage = Stage::open().await;
        let installs = stage.installs_that_last();
        let id = InstallId::generate();
        assert!(installs.find(id).await.unwrap().is_none());
        let before = installs.known.get(&id).unwrap().at;
        assert!(installs.find(id).await.unwrap().is_none());
        assert_eq!(installs.known.get(&id).unwrap().at, before);
        installs.learn(Changed::Install(id));
        assert!(installs.find(id).await.unwrap().is_none());
        assert!(installs.known.get(&id).unwrap().at > before);
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
