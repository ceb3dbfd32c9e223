//! The way of one call: install, bundle, engine, answer. It knows no HTTP server; the doors in
//! `http` and the command line come here alike.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_bundles::{BundleCache, FetchError};
use alga_host_api::{Invocation, Request, Response, Served};
use alga_model::{ContentHash, ErrorChain};
use alga_registry::{Install, Registry, RegistryError};
use alga_storage::{Actor, Caller, Gate};
use metrics::Histogram;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};
use uuid::{NoContext, Uuid};

use crate::activity::{Activity, Recording, Subject};
use crate::admission::{Admission, Permit, Reason, Refusal, Who};
use crate::deadline::within;
use crate::engine::{CompilerFailure, Engine, PrepareError, Prepared, Run, RunError, RunLimits};
use crate::headers;
use crate::installs::KnownInstall;
use crate::versions::{Runnable, RunnableVersions, UnknownVersion};

/// The names a caller may give the storage capability when it narrows what an extension may use.
const STORAGE_PROVIDERS: [&str; 3] = ["alga.storage", "storage.kv", "cap:storage.kv"];

/// How an invocation can have ended. A call that was never let in is none.
pub(crate) const OUTCOMES: [&str; 14] = [
    OK,
    CANCELLED,
    "TIMEOUT",
    "GUEST_TRAP",
    "GUEST_NONSENSE",
    "MEMORY_LIMIT",
    "HOST_CALL_LIMIT",
    "INVALID_COMPONENT",
    "BUNDLE_NOT_FOUND",
    "BUNDLE_DAMAGED",
    "BUNDLE_OFFLINE",
    "UNAVAILABLE",
    "OVERLOADED",
    INTERNAL,
];

/// What can become of a version that is made ready before anybody calls it.
pub(crate) const WARMED: [&str; 7] = [
    OK,
    "INVALID_COMPONENT",
    "BUNDLE_NOT_FOUND",
    "BUNDLE_DAMAGED",
    "BUNDLE_OFFLINE",
    "UNAVAILABLE",
    "OVERLOADED",
];

/// The outcome of an invocation that was answered.
pub(crate) const OK: &str = "OK";

/// The outcome of an invocation that was given up before it was answered.
const CANCELLED: &str = "CANCELLED";

/// The outcome of an invocation that is dropped before it is answered: it was given up, or the host has
/// a fault.
pub(crate) fn outcome_of_dropped() -> &'static str {
    if std::thread::panicking() {
        INTERNAL
    } else {
        CANCELLED
    }
}

const INTERNAL: &str = "INTERNAL";

/// Has extensions answer calls.
#[derive(Debug)]
pub struct Executor {
    activity: Activity,
    admission: Admission,
    bundles: Arc<BundleCache>,
    engine: Engine,
    gate: Gate,
    versions: RunnableVersions,
    /// How much is made ready that nobody called.
    warming: Semaphore,
    /// How long calls took that were answered; looked up once, as a recorder copies labels.
    answered: Histogram,
}

/// A call to an extension.
pub struct Call {
    /// Who is called.
    pub install: Arc<KnownInstall>,
    /// What it is asked.
    pub request: Request,
    /// How long the call may take, where that is less than the process allows.
    pub timeout: Option<Duration>,
    /// Narrower limits than the process has.
    pub limits: RunLimits,
    /// The only capabilities this call may use of those granted; all of them when absent.
    pub providers: Option<Vec<String>>,
    /// Settings for this call, above those of the install, where the install allows it.
    pub config: Option<BTreeMap<String, String>>,
    /// The id that joins the logs of all who take part.
    pub request_id: Arc<str>,
}

/// A call that may run, and holds its place until it has.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Admitted {
    call: Call,
    permit: Permit,
    deadline: Instant,
    begun: Begun,
}

/// An invocation, for the log.
#[derive(Debug)]
struct Begun {
    id: Uuid,
    at: Instant,
    span: Span,
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The install is disabled.
    #[error("the install is disabled")]
    Disabled,
    /// The bundle is not to be had.
    #[error("cannot get the bundle of the extension")]
    Bundle(#[source] Arc<FetchError>),
    /// The registry can't say what is to be run.
    #[error("cannot use the registry")]
    Registry(#[source] Arc<RegistryError>),
    /// The component of the bundle can't run here.
    #[error("the component of the extension can't run here: {0}")]
    Component(String),
    /// Nothing can be compiled at the moment.
    #[error("cannot compile the component of the extension")]
    Compiler(#[source] Arc<CompilerFailure>),
    /// There is no room for it now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The process is stopping.
    #[error("the runner is stopping")]
    Stopping,
    /// The extension failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Executor {
    /// How many versions are made ready at once that nobody called.
    pub const WARMED_AT_ONCE: usize = 4;

    /// Runs the versions of `registry` from `bundles` on `engine`, with storage behind `gate`,
    /// when `admission` lets them. What they do is remembered in `activity`.
    pub fn new(
        activity: Activity,
        admission: Admission,
        bundles: Arc<BundleCache>,
        engine: Engine,
        gate: Gate,
        registry: Arc<dyn Registry>,
    ) -> Self {
        Self {
            activity,
            admission,
            bundles,
            engine,
            gate,
            versions: RunnableVersions::new(registry),
            warming: Semaphore::new(Self::WARMED_AT_ONCE),
            answered: duration_of(OK),
        }
    }

    /// Refuses calls from now on. What runs or waits already goes on.
    pub fn close(&self) {
        self.admission.close();
    }

    /// Tells the metrics how many calls run and wait now.
    pub fn report_load(&self) {
        self.admission.report_load();
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The bundles that are at hand.
    pub const fn bundles(&self) -> &Arc<BundleCache> {
        &self.bundles
    }

    /// The gate of the storage.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Has the extension answer.
    pub async fn execute(&self, call: Call) -> Result<Response, ExecuteError> {
        let now = Instant::now();
        let deadline = self.engine.deadline(now, call.timeout);
        let begun = Begun::new(&call, now);
        let span = begun.span.clone();
        let answered = async {
            let permit = self.permit(&call, now, deadline).await?;
            let admitted = Admitted {
                call,
                permit,
                deadline,
                begun,
            };
            self.reported(admitted).await
        };
        answered.instrument(span).await
    }

    /// Waits until a call that came `now` may run. Dropped before that, the call has left nothing
    /// anywhere.
    pub async fn admit(
        &self,
        call: Call,
        now: Instant,
        deadline: Instant,
    ) -> Result<Admitted, ExecuteError> {
        let begun = Begun::new(&call, now);
        let permit = self
            .permit(&call, now, deadline)
            .instrument(begun.span.clone())
            .await?;
        Ok(Admitted {
            call,
            permit,
            deadline,
            begun,
        })
    }

    /// Has the extension answer a call that may run.
    pub async fn run(&self, admitted: Admitted) -> Result<Response, ExecuteError> {
        let span = admitted.begun.span.clone();
        self.reported(admitted).instrument(span).await
    }

    /// Brings the bundle of a version into the cache and makes its component ready, so that a call finds it so.
    /// However many are asked for, few are made ready at once, so that calls have most of the machine.
    pub async fn warm(&self, version: Uuid, bundle: ContentHash) -> Result<(), ExecuteError> {
        let _turn = self.warming.acquire().await;
        let warmed = self.make_ready(version, bundle).await;
        report_warmup(bundle, &warmed);
        warmed
    }

    async fn make_ready(&self, version: Uuid, bundle: ContentHash) -> Result<(), ExecuteError> {
        let version = self.versions.find(version, bundle).await?;
        // Where the component is ready, its bundle may be gone from the cache all the same.
        let bundle = version.fetch(&self.bundles).await;
        drop(bundle.map_err(|error| ExecuteError::Bundle(Arc::new(error)))?);
        self.ready(version).await.map(drop)
    }

    async fn permit(
        &self,
        call: &Call,
        now: Instant,
        deadline: Instant,
    ) -> Result<Permit, ExecuteError> {
        let unanswered = Unanswered(now);
        let most = call.install.install.concurrency;
        let permit = match call.ensure_enabled() {
            Ok(()) => {
                let permit = self.admission.admit(call.who(), most, now, deadline).await;
                permit.map_err(ExecuteError::from)
            }
            Err(disabled) => Err(disabled),
        };
        match &permit {
            Ok(_) => unanswered.goes_on(),
            Err(error) => report_failure(error, unanswered.ended()),
        }
        permit
    }

    async fn reported(&self, admitted: Admitted) -> Result<Response, ExecuteError> {
        let unanswered = Unanswered(admitted.begun.at);
        let mut recording = self.record(&admitted);
        let answer = self.answer(admitted, &mut recording).await;
        let duration = unanswered.ended();
        match &answer {
            Ok(response) => {
                recording.finish(OK, Some(response.status), duration);
                self.report(response, duration);
            }
            Err(error) => {
                recording.finish(error.code(), None, duration);
                report_failure(error, duration);
            }
        }
        answer
    }

    fn report(&self, response: &Response, duration: Duration) {
        self.answered.record(duration);
        tracing::info!(
            duration_ms = millis(duration),
            http.response.status_code = response.status,
            "the extension answered"
        );
    }

    /// Only of calls that may run: whoever is refused in a loop must not drive out what others want
    /// to see.
    fn record(&self, Admitted { call, begun, .. }: &Admitted) -> Recording {
        let subject = Subject {
            invocation: begun.id,
            request_id: Arc::clone(&call.request_id),
            version: Arc::clone(&call.install.served.version),
        };
        self.activity
            .record(call.install.install.id, subject, begun.at)
    }

    async fn answer(
        &self,
        admitted: Admitted,
        recording: &mut Recording,
    ) -> Result<Response, ExecuteError> {
        // It may have spent its time elsewhere since it was let in.
        if Instant::now() >= admitted.deadline {
            return Err(RunError::Timeout.into());
        }
        let known = &admitted.call.install;
        let prepared = match known.prepared() {
            Some(prepared) => prepared,
            None => Box::pin(self.prepare(known, admitted.deadline)).await?,
        };
        let run = admitted.into_run(recording);
        let finished = self.engine.run(&prepared, &self.gate, run).await;
        recording.used(finished.usage);
        let mut response = finished.answer?;
        response.headers = headers::from_guest(response.headers).map_err(RunError::Nonsense)?;
        Ok(response)
    }

    /// The component of an install. Its caller has a permit: fetching and compiling are to be had as
    /// little without bounds as running.
    async fn prepare(
        &self,
        known: &KnownInstall,
        deadline: Instant,
    ) -> Result<Prepared, ExecuteError> {
        // What is not ready by then goes on being made ready, for those who come later.
        let ready = async {
            let Install {
                version_id,
                content_hash,
                ..
            } = known.install;
            let version = self.versions.find(version_id, content_hash).await?;
            self.ready(version).await
        };
        let prepared = within(deadline, pin!(ready))
            .await
            .ok_or(RunError::Timeout)??;
        known.remember(&prepared);
        Ok(prepared)
    }

    /// The component of a version.
    async fn ready(&self, version: Runnable) -> Result<Prepared, ExecuteError> {
        let bundles = Arc::clone(&self.bundles);
        let load = async move { version.fetch(&bundles).await?.read_component().await };
        let prepared = self.engine.prepare(version.component, load).await;
        prepared.map_err(|error| match error {
            PrepareError::Load(error) => ExecuteError::Bundle(error),
            PrepareError::Invalid(invalid) => ExecuteError::Component(invalid.message),
            PrepareError::Compiler(failure) => ExecuteError::Compiler(failure),
            PrepareError::Stopped => ExecuteError::Stopping,
        })
    }
}

impl Admitted {
    fn into_run(self, recording: &Recording) -> Run {
        let Self {
            call,
            permit,
            deadline,
            begun,
        } = self;
        let install = &call.install.install;
        Run {
            permit,
            invocation: Invocation {
                request_id: Arc::clone(&call.request_id),
                served: served(&call),
            },
            caller: Caller {
                install: install.id,
                actor: Actor::Invocation(text(begun.id)),
                request_id: call.request_id,
                may_use_storage: may_use_storage(call.providers.as_deref()),
                operation_id: None,
            },
            request: Request {
                headers: headers::to_guest(call.request.headers),
                ..call.request
            },
            log_sink: Some(recording.sink()),
            deadline,
            limits: call.limits,
        }
    }
}

/// Without what the caller says, some of which are secrets.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.request.body.as_ref().map(Vec::len);
        let config = self.config.as_ref().map(BTreeMap::len);
        f.debug_struct("Call")
            .field("install", &self.install.install.id)
            .field("request_id", &self.request_id)
            .field("headers", &self.request.headers.len())
            .field("body_bytes", &body)
            .field("config", &config)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// Whose call it is.
    pub fn who(&self) -> Who {
        Who {
            tenant: self.install.install.tenant,
            install: self.install.install.id,
        }
    }

    /// Fails where the install was disabled when it was looked up.
    pub fn ensure_enabled(&self) -> Result<(), ExecuteError> {
        let enabled = self.install.is_enabled();
        enabled.then_some(()).ok_or(ExecuteError::Disabled)
    }
}

impl Begun {
    fn new(call: &Call, now: Instant) -> Self {
        let install = &call.install.install;
        let id = new_id();
        let span = tracing::info_span!(
            "engine.invoke",
            request.id = %call.request_id,
            invocation.id = %id,
            tenant.id = %install.tenant,
            install.id = %install.id,
            extension.id = %install.extension_name,
            extension.version = %install.version,
        );
        Self { id, at: now, span }
    }
}

/// An invocation until it is answered. Dropped before that, its caller has gone away or the process
/// stops; the guest is gone in any case.
struct Unanswered(Instant);

impl Unanswered {
    /// It is still to be answered, by somebody else.
    fn goes_on(self) {
        std::mem::forget(self);
    }

    /// It was; how long that took.
    fn ended(self) -> Duration {
        let duration = self.0.elapsed();
        std::mem::forget(self);
        duration
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let duration = self.0.elapsed();
        let outcome = outcome_of_dropped();
        duration_of(outcome).record(duration);
        let duration_ms = millis(duration);
        if outcome == CANCELLED {
            tracing::info!(
                duration_ms,
                error.code = outcome,
                "the call was given up before the extension answered"
            );
        } else {
            tracing::error!(
                duration_ms,
                error.code = outcome,
                error.blame = "host",
                "the call ended in a panic"
            );
        }
    }
}

fn duration_of(outcome: &'static str) -> Histogram {
    metrics::histogram!("alga_engine_invocation_duration_seconds", "outcome" => outcome)
}

/// A new id, which grows with time by the millisecond. Ids of one millisecond have no order: it would
/// take a counter that all threads share.
pub(crate) fn new_id() -> Uuid {
    Uuid::new_v7(uuid::Timestamp::now(NoContext))
}

/// An id as text, written where it stays.
pub(crate) fn text(id: Uuid) -> Arc<str> {
    let mut buffer = Uuid::encode_buffer();
    Arc::from(&*id.as_hyphenated().encode_lower(&mut buffer))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The only place where the failure of an invocation is logged, in one event. What a guest does wrong
/// is its author's business and wakes no operator.
fn report_failure(error: &ExecuteError, duration: Duration) {
    duration_of(error.code()).record(duration);
    let duration_ms = millis(duration);
    let (code, blame) = (error.code(), error.blame());
    let cause = ErrorChain(error);
    match error {
        // Whoever is refused in a loop must not fill the log; that it began is said elsewhere.
        ExecuteError::Refused(_) => {
            tracing::debug!(duration_ms, error.code = code, "the call was refused");
        }
        ExecuteError::Run(RunError::Trap { backtrace, .. }) => {
            tracing::info!(
                duration_ms,
                error.code = code,
                error.blame = blame,
                error = %cause,
                backtrace,
                "the extension trapped"
            );
        }
        _ if blame == "host" => {
            tracing::warn!(
                duration_ms,
                error.code = code,
                error.blame = blame,
                error = %cause,
                "the extension was not run"
            );
        }
        _ => {
            tracing::info!(
                duration_ms,
                error.code = code,
                error.blame = blame,
                error = %cause,
                "the extension gave no answer"
            );
        }
    }
}

/// Nobody else says why: the answer has no causes.
fn report_warmup(hash: ContentHash, warmed: &Result<(), ExecuteError>) {
    let outcome = warmed.as_ref().map_or_else(ExecuteError::code, |()| OK);
    metrics::counter!("alga_engine_warmups_total", "outcome" => outcome).increment(1);
    let Err(error) = warmed else {
        return;
    };
    let (blame, cause) = (error.blame(), ErrorChain(error));
    if blame == "host" {
        tracing::warn!(
            bundle = %hash,
            error.code = outcome,
            error.blame = blame,
            error = %cause,
            "a version was not made ready"
        );
    } else {
        tracing::debug!(
            bundle = %hash,
            error.code = outcome,
            error.blame = blame,
            error = %cause,
            "a version can't be made ready"
        );
    }
}

/// The install, with the settings of the call above its own where it allows that.
fn served(call: &Call) -> Arc<Served> {
    let mut served = Arc::clone(&call.install.served);
    if let Some(ours) = &call.config
        && call.install.install.allow_envelope_config
    {
        Arc::make_mut(&mut served).config.extend(ours.clone());
    }
    served
}

fn may_use_storage(providers: Option<&[String]>) -> bool {
    providers.is_none_or(|named| {
        named
            .iter()
            .any(|name| STORAGE_PROVIDERS.contains(&name.as_str()))
    })
}

impl From<UnknownVersion> for ExecuteError {
    fn from(error: UnknownVersion) -> Self {
        match error {
            UnknownVersion::Bundle(error) => Self::Bundle(Arc::new(error)),
            UnknownVersion::Registry(error) => Self::Registry(Arc::new(error)),
        }
    }
}

impl ExecuteError {
    /// The code that callers, logs and metrics know it by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "INSTALL_DISABLED",
            Self::Bundle(error) => match **error {
                FetchError::NotFound { .. } => "BUNDLE_NOT_FOUND",
                FetchError::Integrity { .. }
                | FetchError::ManifestIntegrity { .. }
                | FetchError::Archive { .. }
                | FetchError::Manifest { .. } => "BUNDLE_DAMAGED",
                FetchError::Offline { .. } => "BUNDLE_OFFLINE",
                FetchError::Store(_)
                | FetchError::Cache { .. }
                | FetchError::Changed { .. }
                | FetchError::Interrupted => "UNAVAILABLE",
            },
            Self::Component(_) => "INVALID_COMPONENT",
            Self::Registry(_) | Self::Compiler(_) => "UNAVAILABLE",
            Self::Refused(refusal) => match refusal.reason {
                Reason::Install | Reason::Tenant => "CONCURRENCY_LIMITED",
                Reason::Process | Reason::Closed => "OVERLOADED",
            },
            Self::Stopping => "OVERLOADED",
            Self::Run(RunError::Trap { .. }) => "GUEST_TRAP",
            Self::Run(RunError::Nonsense(_)) => "GUEST_NONSENSE",
            Self::Run(RunError::Timeout | RunError::OutOfFuel) => "TIMEOUT",
            Self::Run(RunError::MemoryLimit) => "MEMORY_LIMIT",
            Self::Run(RunError::HostCallLimit { .. }) => "HOST_CALL_LIMIT",
            Self::Run(RunError::Host(_)) => INTERNAL,
        }
    }

    const fn blame(&self) -> &'static str {
        match self {
            Self::Disabled => "caller",
            Self::Refused(refusal) => match refusal.reason {
                Reason::Install | Reason::Tenant => "caller",
                Reason::Process | Reason::Closed => "host",
            },
            Self::Component(_)
            | Self::Run(
                RunError::Trap { .. }
                | RunError::Nonsense(_)
                | RunError::Timeout
                | RunError::OutOfFuel
                | RunError::MemoryLimit
                | RunError::HostCallLimit { .. },
            ) => "guest",
            Self::Bundle(_)
            | Self::Registry(_)
            | Self::Compiler(_)
            | Self::Stopping
            | Self::Run(RunError::Host(_)) => "host",
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_panic_is_counted_as_a_fault_and_not_as_given_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            drop(Unanswered(Instant::now()));
            let panicked = std::panic::catch_unwind(|| {
                let _unanswered = Unanswered(Instant::now());
                panic!("of the host");
            });
            assert!(panicked.is_err());
        });
        let text = recorder.handle().render();
        for outcome in [CANCELLED, INTERNAL] {
            let count = format!("_count{{outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&count), "{count}\n{text}");
        }
    }

    #[test]
    fn providers_narrow_and_absence_does_not() {
        let may = |names: &[&str]| {
            may_use_storage(Some(
                &names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ))
        };
        assert!(may_use_storage(None));
        assert!(!may(&[]));
        assert!(!may(&["cap:http.fetch"]));
        assert!(may(&["cap:http.fetch", "cap:storage.kv"]));
        assert!(may(&["alga.storage"]));
    }
}
