//! Where log events and metrics of the process go.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;

use alga_model::{Clock as _, SystemClock};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry};

use crate::config::{LogConfig, LogFormat};
use crate::engine::SHARED_CODE_OUTCOMES;
use crate::execute::WARMED;
use crate::idempotency;
use crate::uploads::{APPENDED, FINALIZED, UPLOADED};

/// Why log events or metrics have nowhere to go.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of log events can't be understood.
    #[error("cannot read the filter of log events")]
    Filter(#[from] ParseError),
    /// The process logs elsewhere already.
    #[error("cannot start the log")]
    Log(#[from] TryInitError),
    /// The process has other metrics already.
    #[error("cannot start the metrics")]
    Metrics(#[from] BuildError),
}

/// Sends the log events of the process, panics included, to standard error.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let terminal = io::stderr().is_terminal();
    subscriber(config, terminal, io::stderr)?.try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Collects the metrics of the process, which the handle renders for Prometheus. The handle's
/// `run_upkeep` must be called every few seconds, or histograms nobody fetches use up memory.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = prometheus()?.install_recorder()?;
    describe_metrics();
    register_counters();
    Ok(handle)
}

/// Makes the counters that everybody watches appear with 0: of one that begins with its first event,
/// nobody sees that event as an increase.
fn register_counters() {
    counter!("alga_http_accept_failures_total").absolute(0);
    counter!("alga_http_unknown_envelope_fields_total").absolute(0);
    counter!("alga_bundles_fetched_total").absolute(0);
    counter!("alga_bundles_fetch_retries_total").absolute(0);
    counter!("alga_bundles_integrity_failures_total").absolute(0);
    counter!("alga_bundles_evicted_total").absolute(0);
    counter!("alga_engine_code_cache_rejected_total").absolute(0);
    for outcome in SHARED_CODE_OUTCOMES {
        counter!("alga_engine_shared_code_total", "outcome" => outcome).absolute(0);
    }
    for outcome in WARMED {
        counter!("alga_engine_warmups_total", "outcome" => outcome).absolute(0);
    }
    for reason in ["install", "tenant", "process", "stopping"] {
        counter!("alga_admission_refusals_total", "reason" => reason).absolute(0);
    }
    for part in ["sweep", "quotas", "uploads", "listening", "run"] {
        counter!("alga_upkeep_failures_total", "part" => part).absolute(0);
    }
    for what in [UPLOADED, APPENDED, FINALIZED] {
        for outcome in what.outcomes {
            counter!(what.total, "outcome" => *outcome).absolute(0);
        }
    }
    for outcome in idempotency::OUTCOMES {
        counter!("alga_idempotency_requests_total", "outcome" => outcome).absolute(0);
    }
}

/// What each metric means. Its name ends with its unit.
fn describe_metrics() {
    describe_metrics_of_bundles();
    describe_metrics_of_uploads();
    describe_histogram!(
        "alga_http_request_duration_seconds",
        Unit::Seconds,
        "How long requests took to be answered, by method, route and status."
    );
    describe_histogram!(
        "alga_engine_invocation_duration_seconds",
        Unit::Seconds,
        "How long extensions took to answer, by outcome."
    );
    describe_gauge!("alga_admission_running", "Calls that run.");
    describe_gauge!(
        "alga_admission_waiting",
        "Calls that wait until they can run."
    );
    describe_histogram!(
        "alga_admission_wait_duration_seconds",
        Unit::Seconds,
        "How long calls waited that could not run at once and ran in the end."
    );
    describe_counter!(
        "alga_admission_refusals_total",
        "Calls that were refused, by whose calls were too many."
    );
    describe_counter!(
        "alga_idempotency_requests_total",
        "Execute requests with an idempotency key, by what became of the answer."
    );
    describe_histogram!(
        "alga_engine_compile_duration_seconds",
        Unit::Seconds,
        "How long compiling components took, by outcome."
    );
    describe_gauge!(
        "alga_engine_compilations_running",
        "Components that are being compiled."
    );
    describe_gauge!(
        "alga_engine_compilations_waiting",
        "Components that wait until they can be compiled."
    );
    describe_histogram!(
        "alga_storage_operation_duration_seconds",
        Unit::Seconds,
        "How long storage operations took, by operation and outcome."
    );
    describe_histogram!(
        "alga_upkeep_run_duration_seconds",
        Unit::Seconds,
        "How long it took to look after the databases once."
    );
    describe_counter!(
        "alga_upkeep_failures_total",
        "Parts of looking after the databases that failed, by part."
    );
    describe_counter!(
        "alga_storage_refusals_total",
        "Storage operations that did not happen, by operation, code and the quota or limit in the way."
    );
    describe_counter!(
        "alga_storage_bytes_total",
        Unit::Bytes,
        "Values and metadata that were read and written, by direction."
    );
    describe_counter!(
        "alga_storage_quota_alerts_total",
        "Writes that made the use of a quota reach a percentage worth an alert, by quota and percentage."
    );
    describe_counter!(
        "alga_storage_expired_removed_total",
        "Expired records that were removed, by writes on their way and by sweeps."
    );
    describe_counter!(
        "alga_storage_expired_removed_bytes_total",
        Unit::Bytes,
        "Values and metadata of expired records that were removed, by writes on their way and by sweeps."
    );
    describe_counter!(
        "alga_http_accept_failures_total",
        Unit::Count,
        "Connections that could not be accepted, most likely for want of file handles."
    );
    describe_counter!(
        "alga_engine_code_cache_rejected_total",
        "Compiled components on disk that were not what was written there."
    );
    describe_counter!(
        "alga_http_unknown_envelope_fields_total",
        "Fields of execute requests that mean nothing."
    );
}

/// What the metrics of bundles and of their code in the store mean.
fn describe_metrics_of_bundles() {
    describe_counter!(
        "alga_bundles_fetched_total",
        "Bundles that were brought from the store into the cache."
    );
    describe_counter!(
        "alga_bundles_fetch_retries_total",
        "Reads of the bundle store that were repeated, as it was unavailable or broke off."
    );
    describe_counter!(
        "alga_bundles_integrity_failures_total",
        "Fetches that ended as the bytes were not those of the bundle."
    );
    describe_counter!(
        "alga_bundles_evicted_total",
        "Bundles that were removed from the cache to make room."
    );
    describe_gauge!(
        "alga_bundles_cache_bytes",
        Unit::Bytes,
        "What unpacked bundles take, as of the last look."
    );
    describe_gauge!(
        "alga_bundles_store_up",
        "1 where the bundle store answers, 0 where it doesn't, as of the last look of a probe or of this page."
    );
    describe_gauge!(
        "alga_bundles_cache_up",
        "1 where the cache of bundles can be written, 0 where it can't, as of the last look."
    );
    describe_counter!(
        "alga_engine_warmups_total",
        "Versions that were to be made ready before anybody calls them, by what became of it."
    );
    describe_counter!(
        "alga_engine_shared_code_total",
        "Compiled components that were looked for or left in the bundle store, by what became of it."
    );
}

fn describe_metrics_of_uploads() {
    describe_counter!(
        UPLOADED.total,
        "Uploads of bundles that were received or not, by outcome."
    );
    describe_histogram!(
        UPLOADED.duration,
        Unit::Seconds,
        "How long it took to receive uploads, by outcome."
    );
    describe_histogram!(
        UPLOADED.bytes,
        Unit::Bytes,
        "How much came of uploads, by outcome."
    );
    describe_counter!(
        APPENDED.total,
        "Requests that added to uploads or not, by outcome."
    );
    describe_histogram!(
        APPENDED.duration,
        Unit::Seconds,
        "How long it took to add to uploads, by outcome."
    );
    describe_histogram!(
        APPENDED.bytes,
        Unit::Bytes,
        "How much was added to uploads at once, by outcome."
    );
    describe_counter!(
        FINALIZED.total,
        "Uploads that were published or not, by outcome."
    );
    describe_histogram!(
        FINALIZED.duration,
        Unit::Seconds,
        "How long it took to publish uploads, by outcome."
    );
    describe_histogram!(
        FINALIZED.bytes,
        Unit::Bytes,
        "How large the uploads to be published were, by outcome."
    );
}

/// From a cached read to the longest call, about three to a decade.
const DURATION_BUCKETS: [f64; 17] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];

/// What may take minutes: to compile a component, to receive a bundle over a slow line, to judge one that
/// waits for its turn.
const LONG_BUCKETS: [f64; 13] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1_200.0,
];
const LONG: [&str; 3] = [
    "alga_engine_compile_duration_seconds",
    UPLOADED.duration,
    FINALIZED.duration,
];

/// From a small component to the largest bundle, four times as much from one to the next.
const SIZE_BUCKETS: [f64; 7] = [
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    209_715_200.0,
];

fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let sizes = Matcher::Suffix("_size_bytes".to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(durations, &DURATION_BUCKETS)?
        .set_buckets_for_metric(sizes, &SIZE_BUCKETS)?;
    // A full name wins over its end.
    LONG.into_iter().try_fold(builder, |builder, name| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &LONG_BUCKETS)
    })
}

fn subscriber<W>(
    config: &LogConfig,
    terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter: EnvFilter = config.filter.parse()?;
    let as_text = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_timer(UtcMillis::default());
    let layer = if as_text {
        layer.with_ansi(terminal && !config.no_color).boxed()
    } else {
        // The list of spans has the current one too.
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed()
    };
    Ok(Registry::default().with(layer).with(filter))
}

/// The time of an event as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Default)]
struct UtcMillis(SystemClock);

impl FormatTime for UtcMillis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.now())
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    tracing::error!(
        panic.message = panic.payload_as_str(),
        panic.location = location,
        thread.name = std::thread::current().name(),
        "a thread panicked, which is a defect of the runner"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use alga_model::TenantId;
    use alga_registry::Install;
    use serde_json::{Value, json};
    use tracing::subscriber::with_default;

    use super::*;
    use crate::stage::Stage;

    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What is logged by `work`.
    fn logged(config: &LogConfig, terminal: bool, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(config, terminal, move || writer.clone()).unwrap();
        with_default(subscriber, work);
        lines.text()
    }

    fn config(format: LogFormat) -> LogConfig {
        LogConfig {
            format,
            ..LogConfig::default()
        }
    }

    #[test]
    fn an_event_in_json_has_its_fields_on_top_and_its_spans_beside_it() {
        let text = logged(&config(LogFormat::Json), true, || {
            let _span = tracing::info_span!("request", request.id = "r1").entered();
            tracing::warn!(
                error.code = "TIMEOUT",
                duration_ms = 7,
                "a request failed\nbadly"
            );
        });
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], "a request failed\nbadly");
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["error.code"], "TIMEOUT");
        assert_eq!(event["duration_ms"], 7);
        assert_eq!(event["spans"][0]["name"], "request");
        assert_eq!(event["spans"][0]["request.id"], "r1");
        let time = event["timestamp"].as_str().unwrap();
        assert_eq!(time.len(), "2026-11-21T18:49:41.000Z".len());
        assert!(time.parse::<alga_model::Timestamp>().is_ok(), "{time}");
    }

    #[test]
    fn the_automatic_format_is_text_on_a_terminal_and_json_elsewhere() {
        let is_json = |terminal| {
            logged(&config(LogFormat::Auto), terminal, || {
                tracing::info!("hello");
            })
            .starts_with('{')
        };
        assert!(!is_json(true));
        assert!(is_json(false));
    }

    #[test]
    fn text_has_colours_on_a_terminal_only_and_not_where_they_are_unwanted() {
        let has_colours = |terminal, no_color| {
            let config = LogConfig {
                no_color,
                ..config(LogFormat::Text)
            };
            logged(&config, terminal, || tracing::info!("hello")).contains('\u{1b}')
        };
        assert!(has_colours(true, false));
        assert!(!has_colours(true, true));
        assert!(!has_colours(false, false));
    }

    #[test]
    fn a_guest_cannot_send_control_sequences_to_the_terminal() {
        let text = logged(&config(LogFormat::Text), false, || {
            tracing::info!(line = "\u{1b}[2Jgone", "{}", "\u{1b}]0;title\u{7}");
        });
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{7}'),
            "{text:?}"
        );
    }

    #[test]
    fn the_filter_decides_which_events_are_written() {
        let config = LogConfig {
            filter: "warn,chatty=debug".to_owned(),
            ..config(LogFormat::Json)
        };
        let text = logged(&config, false, || {
            tracing::info!("quiet");
            tracing::debug!(target: "chatty", "loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }

    /// What is logged while a record is written twice, and whose record it is.
    fn audited(filter: &str) -> (String, Install) {
        let config = LogConfig {
            filter: filter.to_owned(),
            ..config(LogFormat::Json)
        };
        let mut written = None;
        let text = logged(&config, false, || {
            written = Some(runtime().block_on(async {
                let stage = Stage::open().await;
                let install = stage.install(TenantId::generate()).await;
                for value in [r#""the secret""#, r#""another secret""#] {
                    stage.put(install.id, "welcome", value, None).await;
                }
                install
            }));
        });
        (text, written.unwrap())
    }

    /// A runtime on whose threads the same is heard as on this one.
    fn runtime() -> tokio::runtime::Runtime {
        let heard_here = tracing::dispatcher::get_default(Clone::clone);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_start(move || {
                std::mem::forget(tracing::dispatcher::set_default(&heard_here));
            })
            .build()
            .unwrap()
    }

    #[test]
    fn the_audit_is_one_line_of_json_a_change_and_has_no_value() {
        let (text, install) = audited("info,audit=debug");
        assert!(!text.contains("secret"), "{text}");
        let [first, second] = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["target"] == "audit")
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let timestamp = |event: &Value| event["timestamp"].clone();
        let expected = |timestamp, revision_before: Option<u64>, revision_after, bytes| {
            let mut event = json!({
                "timestamp": timestamp,
                "level": "DEBUG",
                "target": "audit",
                "message": "a record was changed",
                "time": "2027-01-15T08:00:00.000Z",
                "tenant.id": install.tenant,
                "install.id": install.id,
                "extension.id": "com.example.notes",
                "namespace": "notes",
                "key": "welcome",
                "operation": "put",
                "revision_after": revision_after,
                "bytes": bytes,
                "actor": "invocation:run-1",
                "request.id": "req-1",
            });
            if let Some(revision) = revision_before {
                event["revision_before"] = revision.into();
            }
            event
        };
        assert_eq!(first, expected(timestamp(&first), None, 1, 14));
        assert_eq!(second, expected(timestamp(&second), Some(1), 2, 18));
    }

    #[test]
    fn the_audit_is_not_logged_unless_it_is_asked_for() {
        for filter in [LogConfig::default().filter.as_str(), "debug,audit=off"] {
            let (text, _) = audited(filter);
            assert!(text.contains("applied migrations"), "{filter}: {text}");
            assert!(!text.contains("welcome"), "{filter}: {text}");
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place() {
        let text = logged(&config(LogFormat::Json), false, || {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let caught = std::panic::catch_unwind(|| panic!("out of cheese"));
            std::panic::set_hook(hook);
            assert!(caught.is_err());
        });
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["level"], "ERROR");
        assert_eq!(event["panic.message"], "out of cheese");
        assert!(
            event["panic.location"]
                .as_str()
                .unwrap()
                .contains("telemetry.rs")
        );
    }

    #[test]
    fn counters_are_there_before_their_first_event() {
        let recorder = prometheus().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            counter!("alga_http_accept_failures_total").increment(1);
            register_counters();
        });
        let text = recorder.handle().render();
        for line in [
            "alga_admission_refusals_total{reason=\"process\"} 0",
            "alga_idempotency_requests_total{outcome=\"late\"} 0",
            "alga_upkeep_failures_total{part=\"run\"} 0",
            "alga_http_accept_failures_total 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn durations_are_counted_in_buckets_and_described() {
        let recorder = prometheus().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe_metrics();
            metrics::histogram!("alga_storage_operation_duration_seconds", "operation" => "get")
                .record(0.003);
            metrics::histogram!(FINALIZED.duration).record(119.0);
        });
        let text = handle.render();
        for line in [
            "# HELP alga_storage_operation_duration_seconds How long",
            "alga_storage_operation_duration_seconds_bucket{operation=\"get\",le=\"0.0025\"} 0",
            "alga_storage_operation_duration_seconds_bucket{operation=\"get\",le=\"0.005\"} 1",
            "alga_bundle_finalize_duration_seconds_bucket{le=\"60\"} 0",
            "alga_bundle_finalize_duration_seconds_bucket{le=\"120\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
