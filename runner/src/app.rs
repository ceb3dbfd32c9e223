//! Puts the parts together. The only place that makes the engine.

use std::sync::Arc;
use std::time::Duration;

use alga_bundles::{BundleCache, BundleStore, FetchOptions};
use alga_host_api::LogLimits;
use alga_model::{Clock, SystemClock};
use alga_registry::{AnswerQuota, AnswerQuotas, Registry, RegistryDatabase};
use alga_storage::{CursorKey, Gate, InvalidRemote, LocalService, RemoteOptions, RemoteService};
use anyhow::{Context as _, ensure};

use crate::activity::{Activity, ActivityLimits};
use crate::admin::Admin;
use crate::admission::{Admission, Caps, Limits};
use crate::bundle_store;
use crate::config::{Config, StorageApiConfig};
use crate::credentials;
use crate::databases::Databases;
use crate::engine::{CompileOptions, Compiler, Engine, EngineError, EngineOptions};
use crate::execute::Executor;
use crate::http::StorageApi;
use crate::idempotency::{Idempotency, IdempotencyLimits};
use crate::installs::Installs;
use crate::keys::{KeyUse, MasterKeys};
use crate::publishing::Versions;
use crate::storage_place::StoragePlace;
use crate::upkeep::{QuotaGauges, Upkeep};
use crate::uploads::{
    FollowLimits, Followers, Intake, IntakeLimits, PublishRules, Publisher, Recorder, Resumable,
    Uploads,
};

/// What outlives the process, open.
#[derive(Debug)]
pub struct Stores {
    /// Tells the time everywhere.
    pub clock: Arc<dyn Clock>,
    /// The keys of this deployment.
    pub keys: MasterKeys,
    /// Records, counters and audit.
    pub storage: StoragePlace,
    /// Extensions, installs and grants.
    pub registry: Arc<dyn RegistryDatabase>,
    /// Published bundles.
    pub bundles: Arc<dyn BundleStore>,
}

impl Stores {
    /// Opens what `config` names and brings its schemas up to date. What is missing is made.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::open_with(config, true).await
    }

    /// Opens what is there, for commands on existing data: a mistyped folder is not made.
    pub async fn open_existing(config: &Config) -> anyhow::Result<Self> {
        ensure_data(config)?;
        Self::open(config).await
    }

    /// Opens what `config` names as it is, for the commands that migrate.
    pub async fn open_unmigrated(config: &Config) -> anyhow::Result<Self> {
        Self::open_with(config, false).await
    }

    async fn open_with(config: &Config, migrate_on_open: bool) -> anyhow::Result<Self> {
        let data = &config.data;
        // Where everything is elsewhere, a command needs no folder, and makes none by a typing error.
        let is_needed = config.database.url.is_none()
            || config.s3.bundles().is_none()
            || config.keys.current().is_none();
        if is_needed {
            create_data(config)?;
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let databases = Databases::open(config, &clock, migrate_on_open).await?;
        Ok(Self {
            keys: MasterKeys::open(&config.keys, &data.master_key())?,
            storage: match databases.storage {
                Some(database) => StoragePlace::Here(database),
                None => StoragePlace::Elsewhere(Arc::new(remote_storage(config)?)),
            },
            registry: databases.registry,
            bundles: bundle_store::open(config)?,
            clock,
        })
    }

    /// What is known of installs, and the storage behind its gate.
    pub fn gate(&self, config: &Config) -> (Arc<Installs>, Gate) {
        let registry = Arc::clone(&self.registry) as Arc<dyn Registry>;
        let installs = Arc::new(Installs::new(registry, config.storage_limits()));
        let grants = Arc::clone(&installs) as _;
        let gate = match &self.storage {
            StoragePlace::Here(database) => {
                let former = self.keys.former().map(|key| key.derive(KeyUse::Cursor));
                let cursor_key = CursorKey::new(self.keys.current().derive(KeyUse::Cursor), former);
                let database = Arc::clone(database) as _;
                let service = LocalService::new(database, cursor_key, config.storage.timeout);
                Gate::new(grants, Arc::new(service))
            }
            StoragePlace::Elsewhere(service) => {
                Gate::before_another(grants, Arc::clone(service) as _)
            }
        };
        (installs, gate)
    }

    /// What an administrator may ask for.
    pub fn admin(&self, installs: Arc<Installs>) -> Admin {
        Admin {
            registry: Arc::clone(&self.registry) as _,
            storage: self.storage.clone(),
            installs,
            activity: Some(Activity::new(
                Arc::clone(&self.clock),
                ActivityLimits::default(),
            )),
            uploads: None,
            extensions: None,
            clock: Arc::clone(&self.clock),
        }
    }

    /// What is done with bundles that come over the network, for `extensions` to run.
    pub fn uploads(&self, config: &Config, extensions: Arc<Extensions>) -> Uploads {
        let store = || Arc::clone(&self.bundles) as _;
        let versions = Versions {
            registry: Arc::clone(&self.registry) as _,
            clock: Arc::clone(&self.clock),
        };
        let recorder = Recorder::new(
            Arc::clone(&self.registry) as _,
            Arc::clone(&self.clock),
            config.bundles.upload_silence,
        );
        let intake = Intake::new(store(), recorder.clone(), intake_limits(config));
        let intake = Arc::new(intake);
        Uploads {
            resumable: Resumable::new(Arc::clone(&intake)),
            intake,
            publisher: Publisher::new(
                store(),
                recorder.clone(),
                extensions,
                versions,
                PublishRules {
                    signatures: config.bundles.signature_rules(),
                    at_once: size(config.bundles.finalizes_at_once.into()),
                    stall: config.bundles.stall,
                    trust_stream_hash: config.bundles.trust_stream_hash,
                },
            ),
            is_offline: config.bundles.offline,
            followers: Followers::new(recorder.clone(), FollowLimits::default()),
            recorder,
        }
    }

    /// What looks after the databases, not at work yet.
    pub fn upkeep(
        &self,
        config: &Config,
        installs: Arc<Installs>,
        activity: Option<Activity>,
    ) -> Upkeep {
        Upkeep {
            storage: self.storage.here().ok().cloned().map(|it| it as _),
            registry: Arc::clone(&self.registry) as _,
            bundles: (!config.bundles.offline).then(|| Arc::clone(&self.bundles) as _),
            installs,
            activity,
            clock: Arc::clone(&self.clock),
            interval: config.storage.sweep_interval,
            audit_retention: config.storage.audit_retention,
            quota_gauges: QuotaGauges::default(),
        }
    }

    /// An engine that keeps compiled code in the data folder.
    pub fn engine(&self, config: &Config) -> Result<Engine, EngineError> {
        let code_cache = (
            config.data.code_cache(),
            self.keys.current().derive(KeyUse::CodeCache),
        );
        Engine::new(EngineOptions {
            code_cache: Some(code_cache),
            shared_code: self.shared_code(config),
            ..engine_options(config)
        })
    }

    /// Where compiled code is left for other processes. A key that was made here is nobody else's, so
    /// that nobody could use it.
    fn shared_code(&self, config: &Config) -> Option<Arc<dyn BundleStore>> {
        let bundles = &config.bundles;
        let is_shared = bundles.share_code.unwrap_or(config.s3.bundles().is_some());
        let others_can_use_it = config.keys.current().is_some();
        let store = || Arc::clone(&self.bundles) as _;
        (is_shared && others_can_use_it && !bundles.offline).then(store)
    }

    /// Has extensions answer, with storage behind `gate`. What they do is remembered in `activity`.
    pub fn executor(
        &self,
        config: &Config,
        activity: Activity,
        gate: Gate,
    ) -> anyhow::Result<Executor> {
        let store = Arc::clone(&self.bundles);
        let bundles = BundleCache::new(config.data.bundle_cache(), store, fetch_options(config))?;
        let admission = Admission::new(admission_limits(config), config.admission.longest_wait);
        let engine = self.engine(config)?;
        let bundles = Arc::new(bundles);
        let registry = Arc::clone(&self.registry) as _;
        Ok(Executor::new(
            activity, admission, bundles, engine, gate, registry,
        ))
    }

    /// Writes out what is under way and closes the databases.
    pub async fn close(&self) {
        if let StoragePlace::Here(storage) = &self.storage {
            storage.database().close().await;
        }
        self.registry.database().close().await;
    }
}

/// Everything that serves requests.
#[derive(Debug)]
pub struct App {
    /// What outlives the process.
    pub stores: Stores,
    /// What is known of installs.
    pub installs: Arc<Installs>,
    /// Does what administrators ask for.
    pub admin: Admin,
    /// Has extensions answer, in a process that runs them.
    pub extensions: Option<Arc<Extensions>>,
    /// Serves their storage to other processes, where it is kept here.
    pub storage: Option<StorageApi>,
    /// Looks after the databases once it is started.
    pub upkeep: Arc<Upkeep>,
}

/// Has extensions answer.
#[derive(Debug)]
pub struct Extensions {
    /// Answers calls.
    pub executor: Executor,
    /// Has requests with a key answered once.
    pub idempotency: Idempotency,
}

impl App {
    /// Opens and connects everything that `config` describes.
    pub async fn build(config: &Config) -> anyhow::Result<Self> {
        let role = config.role();
        // Caches, and tokens where none are configured.
        create_data(config)?;
        let stores = Stores::open(config).await?;
        if role.runs_extensions() && !config.bundles.offline {
            bundle_store::try_out(&*stores.bundles, &*stores.registry, config).await?;
        }
        let (installs, gate) = stores.gate(config);
        installs
            .warm_up()
            .await
            .context("cannot use the registry")?;
        let mut admin = stores.admin(Arc::clone(&installs));
        // What nothing happens in would look like one in which nothing happened.
        admin.activity = admin.activity.filter(|_| role.runs_extensions());
        let activity = admin.activity.clone();
        let upkeep = stores.upkeep(config, Arc::clone(&installs), activity.clone());
        let storage = role
            .keeps_storage()
            .then(|| StorageApi::new(gate.clone(), Arc::clone(&installs) as _));
        let extensions = activity.map(|activity| {
            let idempotency = Idempotency::new(
                Arc::clone(&stores.registry) as _,
                Arc::clone(&installs),
                Arc::clone(&stores.clock),
                idempotency_limits(config),
            );
            let executor = stores.executor(config, activity, gate)?;
            anyhow::Ok(Arc::new(Extensions {
                executor,
                idempotency,
            }))
        });
        let extensions = extensions.transpose()?;
        admin.extensions.clone_from(&extensions);
        let uploads = extensions.clone().map(|it| stores.uploads(config, it));
        admin.uploads = uploads.map(Arc::new);
        Ok(Self {
            extensions,
            stores,
            installs,
            admin,
            storage,
            upkeep: Arc::new(upkeep),
        })
    }

    /// What has extensions answer.
    ///
    /// # Errors
    /// In a process with the role of serving their storage alone.
    pub fn extensions(&self) -> anyhow::Result<&Arc<Extensions>> {
        let extensions = self.extensions.as_ref();
        extensions.context("the role of this process is not to run extensions")
    }
}

fn create_data(config: &Config) -> anyhow::Result<()> {
    let created = config.data.create();
    created.context("cannot make the data folder")
}

/// How much longer an operation may take where another process does it.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// The storage that another process serves, as `config` describes it.
fn remote_storage(config: &Config) -> anyhow::Result<RemoteService> {
    let api = &config.storage_api;
    let (Some(url), Some(token)) = (
        &api.url,
        credentials::token(api.token.as_ref(), api.token_file.as_deref())?,
    ) else {
        anyhow::bail!("`storage.api.url` and `storage.api.token` must be set");
    };
    let options = RemoteOptions {
        url: url.parse().context("`storage.api.url` is no URL")?,
        token,
        authorities: credentials::authorities(api.ca.as_deref())?,
        max_in_flight: api.max_in_flight,
        // The service gives up first, and says why.
        timeout: config.storage.timeout + ON_THE_WAY,
        http2_without_tls: api.http2,
    };
    RemoteService::new(&options).map_err(|error| {
        let setting = config.named(invalid_setting(&error, api));
        anyhow::Error::new(error).context(format!("cannot use {setting}"))
    })
}

/// The setting that no client can be made of.
const fn invalid_setting(error: &InvalidRemote, api: &StorageApiConfig) -> &'static str {
    match error {
        InvalidRemote::Token if api.token_file.is_some() => "storage.api.token_file",
        InvalidRemote::Token => "storage.api.token",
        InvalidRemote::Authorities(_) => "storage.api.ca",
        // What is in PEM is only then read as certificates.
        InvalidRemote::Client(_) if api.ca.is_some() => "storage.api.ca",
        InvalidRemote::Client(_) => "storage.api.url",
    }
}

/// What may run and wait at once as `config` describes it: as many run as the engine has slots.
fn admission_limits(config: &Config) -> Limits {
    let admission = &config.admission;
    let caps = |running: u32, waiting: u32| Caps {
        running: size(running.into()),
        waiting: size(waiting.into()),
    };
    Limits {
        process: caps(config.engine.max_instances, admission.queue),
        reserve: size(reserve(config).into()),
        tenant: caps(admission.tenant_concurrency, admission.tenant_queue),
        install: caps(admission.install_concurrency, admission.install_queue),
    }
}

/// How many places are for tenants of whom nothing runs. Where there are two, one is.
fn reserve(config: &Config) -> u32 {
    let places = config.engine.max_instances;
    let part = places * u32::from(config.admission.reserve_percent);
    part.div_ceil(100).min(places - 1)
}

/// How bundles are fetched as `config` describes it.
fn fetch_options(config: &Config) -> FetchOptions {
    FetchOptions {
        stall: config.bundles.stall,
        offline: config.bundles.offline,
        budget: config.bundles.cache_bytes,
        ..FetchOptions::default()
    }
}

/// What bounds uploads as `config` describes it.
fn intake_limits(config: &Config) -> IntakeLimits {
    let bundles = &config.bundles;
    IntakeLimits {
        per_minute: size(bundles.uploads_per_minute.into()),
        at_once: bundles.uploads_at_once,
        silence: bundles.upload_silence,
        ..IntakeLimits::default()
    }
}

/// What bounds requests with a key as `config` describes it.
fn idempotency_limits(config: &Config) -> IdempotencyLimits {
    let kept = &config.idempotency;
    let quota = |answers, bytes| AnswerQuota { answers, bytes };
    IdempotencyLimits {
        longest_call: config.engine.timeout,
        calls: admission_limits(config),
        longest_wait: config.admission.longest_wait,
        quotas: AnswerQuotas {
            install: quota(kept.answers_per_install, kept.bytes_per_install),
            tenant: quota(kept.answers_per_tenant, kept.bytes_per_tenant),
        },
    }
}

/// The engine as `config` describes it, without a code cache. It compiles in processes of this program,
/// which therefore must be alga-runner; see [`Compiler::this_program`].
pub fn engine_options(config: &Config) -> EngineOptions {
    let engine = &config.engine;
    EngineOptions {
        max_instances: engine.max_instances,
        timeout: engine.timeout,
        memory_bytes: size(engine.memory_bytes),
        fuel: engine.fuel,
        host_calls: engine.host_calls,
        response_bytes: size(engine.response_bytes),
        log: LogLimits {
            lines: size(engine.log_lines.into()),
            bytes: size(engine.log_bytes),
            line_bytes: size(engine.log_line_bytes),
        },
        component_bytes: engine.components_bytes,
        code_cache: None,
        code_cache_bytes: engine.code_cache_bytes,
        shared_code: None,
        compile: CompileOptions {
            compiler: Compiler::this_program(),
            timeout: engine.compile_timeout,
            memory_bytes: engine.compile_memory_bytes,
            at_once: engine.compile_at_once,
        },
    }
}

/// Fails where no runner has kept data yet.
pub fn ensure_data(config: &Config) -> anyhow::Result<()> {
    let data = &config.data;
    ensure!(
        config.database.url.is_some() || data.registry_database().exists(),
        "there is no data in {}; name another folder with --data-dir, or start with `bundle add` or `serve`",
        data.dir.display()
    );
    Ok(())
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_uploads_reaches_its_limits() {
        let mut config = Config::default();
        let default = intake_limits(&config);
        let expected = IntakeLimits::default();
        assert_eq!(
            (default.per_minute, default.at_once, default.silence),
            (expected.per_minute, expected.at_once, expected.silence)
        );
        config.bundles.uploads_per_minute = 1;
        config.bundles.uploads_at_once = 2;
        config.bundles.upload_silence = Duration::from_secs(3);
        let limits = intake_limits(&config);
        assert_eq!((limits.per_minute, limits.at_once), (1, 2));
        assert_eq!(limits.silence, Duration::from_secs(3));
    }

    #[test]
    fn every_setting_of_the_admission_reaches_its_limits() {
        let mut config = Config::default();
        config.engine.max_instances = 1;
        config.admission.queue = 2;
        config.admission.tenant_concurrency = 3;
        config.admission.tenant_queue = 4;
        config.admission.install_concurrency = 5;
        config.admission.install_queue = 6;
        config.admission.reserve_percent = 90;
        let caps = |running, waiting| Caps { running, waiting };
        let expected = Limits {
            process: caps(1, 2),
            reserve: 0,
            tenant: caps(3, 4),
            install: caps(5, 6),
        };
        assert_eq!(admission_limits(&config), expected);
    }

    #[test]
    fn a_part_of_the_places_is_reserved_but_never_all() {
        let mut config = Config::default();
        for (places, percent, reserved) in [
            (256, 25, 64),
            (256, 0, 0),
            (1, 25, 0),
            (2, 25, 1),
            (4, 25, 1),
            (5, 25, 2),
            (2, 90, 1),
            (10_000, 90, 9_000),
        ] {
            config.engine.max_instances = places;
            config.admission.reserve_percent = percent;
            assert_eq!(reserve(&config), reserved, "{percent} % of {places}");
        }
    }

    #[test]
    fn two_tenants_with_all_they_may_have_leave_room_for_a_third() {
        let config = Config::default();
        let Limits {
            process,
            reserve,
            tenant,
            ..
        } = admission_limits(&config);
        assert!((2 * tenant.running).min(process.running - reserve) < process.running);
    }

    #[test]
    fn every_setting_of_the_answers_reaches_its_quota() {
        let mut config = Config::default();
        config.idempotency.answers_per_install = 1;
        config.idempotency.bytes_per_install = 2;
        config.idempotency.answers_per_tenant = 3;
        config.idempotency.bytes_per_tenant = 4;
        let quota = |answers, bytes| AnswerQuota { answers, bytes };
        let expected = AnswerQuotas {
            install: quota(1, 2),
            tenant: quota(3, 4),
        };
        assert_eq!(idempotency_limits(&config).quotas, expected);
    }
}
