//! What a server does beside answering: from time to time it sees that its databases and its memory don't
//! fill up with what nobody can see any more, and that its operators learn which quotas are nearly used
//! up; and all the time it listens to what other processes change.

mod listening;
mod quotas;
mod sweep;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_bundles::BundleStore;
use alga_model::{Clock, ErrorChain};
use alga_registry::RegistryDatabase;
use alga_storage::Maintenance;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use crate::activity::Activity;
use crate::bundle_care::{SweptUploads, UPLOADS_KEPT, sweep_uploads};
use crate::installs::Installs;

pub use quotas::QuotaGauges;
pub use sweep::{Swept, sweep};

/// How long to wait until the first look for uploads that nobody published: a process may not live for
/// an hour.
const FIRST_LOOK: Duration = Duration::from_mins(1);
/// How long to wait between two looks.
const UPLOADS_INTERVAL: Duration = Duration::from_hours(1);

/// Looks after the databases, and after uploads that nobody published.
///
/// Several processes may look after the same ones: each batch is a transaction of its own, and what is
/// removed from the store may be gone already.
#[derive(Debug)]
pub struct Upkeep {
    /// The records, where they are kept here.
    pub storage: Option<Arc<dyn Maintenance>>,
    /// The registry.
    pub registry: Arc<dyn RegistryDatabase>,
    /// Where bundles are kept, if that may be asked.
    pub bundles: Option<Arc<dyn BundleStore>>,
    /// What is known of installs, their limits among it.
    pub installs: Arc<Installs>,
    /// What installs did a moment ago, where they run here.
    pub activity: Option<Activity>,
    /// Tells what is past its retention.
    pub clock: Arc<dyn Clock>,
    /// How long to wait between two runs.
    pub interval: Duration,
    /// How long audit records are kept.
    pub audit_retention: Duration,
    /// What the last run found.
    pub quota_gauges: QuotaGauges,
}

/// An [`Upkeep`] at work, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the upkeep ends when this is dropped"]
pub struct Running(JoinSet<()>);

impl Upkeep {
    /// Runs once an interval from now on, the first time after one interval; listens at once.
    pub fn start(self: &Arc<Self>) -> Running {
        let mut tasks = JoinSet::new();
        let upkeep = Arc::clone(self);
        tasks.spawn(async move { listening::listen(&*upkeep.registry, &upkeep.installs).await });
        let upkeep = Arc::clone(self);
        tasks.spawn(async move {
            let interval = upkeep.interval;
            again_and_again("run", interval, interval, || upkeep.run()).await;
        });
        if let Some(bundles) = &self.bundles {
            let (bundles, upkeep) = (Arc::clone(bundles), Arc::clone(self));
            tasks.spawn(async move {
                let sweep = || upkeep.sweep_old_uploads(&*bundles);
                again_and_again("uploads", FIRST_LOOK, UPLOADS_INTERVAL, sweep).await;
            });
        }
        Running(tasks)
    }

    /// Does once what there is to do. What fails is logged, and left to the next time.
    async fn run(&self) {
        let start = Instant::now();
        if let Some(activity) = &self.activity {
            activity.forget_idle();
        }
        self.sweep().await;
        self.look_at_quotas().await;
        metrics::histogram!("alga_upkeep_run_duration_seconds").record(start.elapsed());
    }

    async fn sweep(&self) {
        let start = Instant::now();
        let swept = sweep(
            self.storage.as_deref(),
            &*self.registry,
            &*self.clock,
            self.audit_retention,
        );
        match swept.await {
            Ok(Swept {
                records: 0,
                audit_records: 0,
                answers: 0,
                ..
            }) => {}
            Ok(swept) => tracing::info!(
                records = swept.records,
                removed_bytes = swept.bytes,
                audit_records = swept.audit_records,
                answers = swept.answers,
                more = swept.more,
                duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                "expired records and answers and old audit records were removed"
            ),
            Err(error) => {
                count_failure("sweep");
                tracing::warn!(
                    error = format!("{error:#}"),
                    error.blame = "host",
                    "cannot remove everything that is expired; it is tried again"
                );
            }
        }
    }

    async fn sweep_old_uploads(&self, bundles: &dyn BundleStore) {
        let registry = &*self.registry as _;
        match sweep_uploads(bundles, registry, self.clock.now(), UPLOADS_KEPT).await {
            // What is known of uploads goes after a day, and tells nobody anything.
            Ok(SweptUploads {
                staged: 0,
                unfinished: 0,
                ..
            }) => {}
            Ok(SweptUploads {
                staged,
                unfinished,
                records,
            }) => {
                tracing::info!(
                    staged,
                    unfinished,
                    records,
                    "uploads that nobody published were removed"
                );
            }
            Err(error) => {
                count_failure("uploads");
                tracing::warn!(
                    error = %ErrorChain(&error),
                    error.blame = "host",
                    "cannot remove all uploads that nobody published; it is tried again"
                );
            }
        }
    }

    async fn look_at_quotas(&self) {
        let Some(storage) = &self.storage else {
            return;
        };
        match quotas::nearly_used_up(&**storage, &self.installs).await {
            Ok(uses) => self.quota_gauges.replace(uses),
            Err(error) => {
                count_failure("quotas");
                tracing::warn!(
                    error = format!("{error:#}"),
                    error.blame = "host",
                    "cannot tell which quotas are nearly used up; it is tried again"
                );
            }
        }
    }
}

impl Running {
    /// Ends it; nothing of it uses the databases any more then.
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// Does `work` after `first` and from then on once an interval, for ever.
async fn again_and_again<F: Future<Output = ()>>(
    part: &'static str,
    first: Duration,
    interval: Duration,
    work: impl Fn() -> F,
) {
    let mut wait = first;
    loop {
        tokio::time::sleep(with_jitter(wait)).await;
        // A panic is a defect, and must not let databases and store fill up from then on.
        let done = AssertUnwindSafe(work()).catch_unwind();
        if done.await.is_err() {
            count_failure(part);
        }
        wait = interval;
    }
}

fn count_failure(part: &'static str) {
    metrics::counter!("alga_upkeep_failures_total", "part" => part).increment(1);
}

/// Up to a tenth longer than `interval`, so that processes started together don't stay in step.
fn with_jitter(interval: Duration) -> Duration {
    // Without a random number there is no jitter.
    let part = getrandom::u32().unwrap_or(0) % 1_001;
    interval + interval * part / 10_000
}

#[cfg(test)]
mod tests {
    use alga_model::TenantId;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::activity::{ActivityLimits, Subject};
    use crate::stage::Stage;

    fn upkeep(stage: &Stage, interval: Duration) -> Arc<Upkeep> {
        let limits = alga_storage::Limits {
            quotas: alga_storage::Quotas {
                namespaces: 1,
                ..alga_storage::Quotas::default()
            },
            ..alga_storage::Limits::default()
        };
        Arc::new(Upkeep {
            storage: Some(Arc::clone(&stage.storage) as _),
            registry: Arc::clone(&stage.registry) as _,
            bundles: None,
            installs: stage.installs_with(limits),
            activity: stage.admin().activity,
            clock: Arc::clone(&stage.clock) as _,
            interval,
            audit_retention: Duration::from_hours(24),
            quota_gauges: QuotaGauges::default(),
        })
    }

    async fn is_empty(stage: &Stage, tenant: TenantId) -> bool {
        let holdings = stage.storage.holdings(tenant).await.unwrap();
        holdings.iter().all(|holding| holding.bytes == 0)
    }

    #[tokio::test]
    async fn it_runs_again_and_again_until_it_is_stopped() {
        let stage = Stage::open().await;
        let tenant = TenantId::generate();
        let install = stage.install(tenant).await;
        let upkeep = upkeep(&stage, Duration::from_millis(1));
        let running = upkeep.start();
        for _ in 0..2 {
            stage.put(install.id, "a", "1", Some(60)).await;
            stage.clock.advance(Duration::from_secs(60));
            let swept = async {
                while !is_empty(&stage, tenant).await {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), swept)
                .await
                .unwrap();
        }
        assert_eq!(Arc::strong_count(&upkeep), 2);
        running.stop().await;
        assert_eq!(Arc::strong_count(&upkeep), 1);
    }

    #[tokio::test]
    async fn a_run_shows_what_is_nearly_used_up_until_it_is_not() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        stage.put(install.id, "a", "1", Some(60)).await;
        let upkeep = upkeep(&stage, Duration::MAX);
        upkeep.run().await;
        let shown = upkeep.quota_gauges.to_string();
        assert!(shown.contains(&install.id.to_string()), "{shown}");
        stage.clock.advance(Duration::from_secs(60));
        upkeep.run().await;
        assert_eq!(upkeep.quota_gauges.to_string(), "");
    }

    #[tokio::test]
    async fn a_run_forgets_what_installs_did_long_ago() {
        let stage = Stage::open().await;
        let upkeep = upkeep(&stage, Duration::MAX);
        let subject = Subject {
            invocation: uuid::Uuid::nil(),
            request_id: "req-1".into(),
            version: "1.0.0".into(),
        };
        let install = alga_model::InstallId::generate();
        let activity = upkeep.activity.as_ref().unwrap();
        drop(activity.record(install, subject, Instant::now()));
        stage.clock.advance(ActivityLimits::default().idle);
        assert!(activity.bytes() > 0);
        upkeep.run().await;
        assert_eq!(activity.bytes(), 0);
    }

    #[test]
    fn a_failure_is_counted_and_leaves_what_was_known() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let stage = Stage::open().await;
                let install = stage.install(TenantId::generate()).await;
                stage.put(install.id, "a", "1", None).await;
                let upkeep = upkeep(&stage, Duration::MAX);
                upkeep.run().await;
                let known = upkeep.quota_gauges.to_string();
                stage.storage.database().close().await;
                upkeep.run().await;
                assert_eq!(upkeep.quota_gauges.to_string(), known);
            });
        });
        let text = recorder.handle().render();
        for line in [
            "alga_upkeep_failures_total{part=\"sweep\"} 1",
            "alga_upkeep_failures_total{part=\"quotas\"} 1",
            "alga_upkeep_run_duration_seconds_count 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_done_again_an_interval_later() {
        let times = std::cell::RefCell::new(Vec::new());
        let start = tokio::time::Instant::now();
        let (first, interval) = (Duration::from_secs(60), Duration::from_secs(3_600));
        let work = || async {
            times.borrow_mut().push(start.elapsed());
            assert!(times.borrow().len() > 1, "the first time fails");
        };
        let for_ever = again_and_again("run", first, interval, work);
        let ended = tokio::time::timeout(Duration::from_secs(6_000), for_ever).await;
        assert!(ended.is_err());
        let times = times.into_inner();
        let [one, two] = times[..] else {
            panic!("{times:?}")
        };
        assert!(one >= first && one < 2 * first, "{one:?}");
        assert!(two >= first + interval, "{two:?}");
    }

    #[test]
    fn jitter_makes_an_interval_longer_by_a_tenth_at_most() {
        let minute = Duration::from_secs(60);
        let waits: Vec<_> = (0..100).map(|_| with_jitter(minute)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| (minute..=Duration::from_secs(66)).contains(wait))
        );
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
