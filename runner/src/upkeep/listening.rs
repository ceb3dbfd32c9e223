//! Listens to what is changed in the registry by whichever process, so that it bites in this one too.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use alga_model::ErrorChain;
use alga_registry::{RegistryDatabase, RegistryError};
use futures_util::FutureExt as _;

use super::{count_failure, with_jitter};
use crate::installs::Installs;

/// How long to wait before listening again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Has `installs` learn of every change, for ever, or until it turns out that the registry tells of none.
/// While nothing is heard, `installs` looks more often.
pub(super) async fn listen(registry: &dyn RegistryDatabase, installs: &Installs) {
    let mut outage = Outage::default();
    loop {
        // A panic is a defect, and must not keep this process from learning anything from then on.
        let hearing = AssertUnwindSafe(hear(registry, installs, &mut outage)).catch_unwind();
        match hearing.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => outage.tell(&error),
            Err(_) => count_failure("listening"),
        }
        tokio::time::sleep(with_jitter(outage.wait())).await;
    }
}

/// Listens for as long as anything is heard; ends well where nothing ever is.
async fn hear(
    registry: &dyn RegistryDatabase,
    installs: &Installs,
    outage: &mut Outage,
) -> Result<(), RegistryError> {
    let Some(mut listener) = registry.listen().await? else {
        return Ok(());
    };
    outage.end();
    let _told = installs.told();
    loop {
        installs.learn(listener.next().await?);
    }
}

/// A time in which nothing is heard.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    failures: u32,
}

impl Outage {
    /// Logs the first failure, and counts each.
    fn tell(&mut self, error: &RegistryError) {
        count_failure("listening");
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(
                error = %ErrorChain(error),
                error.blame = "host",
                "cannot hear what other processes change; it is tried again, and looked up more often"
            );
        }
    }

    fn end(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(
                duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                "what other processes change is heard again"
            );
        }
        self.failures = 0;
    }

    /// How long to wait: twice as long each time.
    fn wait(&mut self) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures += 1;
        wait.min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alga_model::{Clock as _, ContentHash, InstallId, Secret, SystemClock, TenantId};
    use alga_postgres::{DriverError, Options};
    use alga_registry::{
        Change, Install, InstallState, NewInstall, NewVersion, PostgresRegistry, Registry as _,
        SwitchesEdit, TenantEdit,
    };
    use alga_storage::{GrantSource as _, Limits};
    use alga_test_postgres::TestDatabase;
    use tokio::task::JoinSet;

    use super::*;
    use crate::stage::Stage;

    const PATIENCE: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// A process that changes things, and another one that is told of it, and else would go by what it
    /// knows for an hour.
    struct Two {
        ours: Arc<PostgresRegistry>,
        theirs: Arc<PostgresRegistry>,
        their_installs: Arc<Installs>,
        _listening: JoinSet<()>,
    }

    impl Two {
        async fn start() -> Self {
            let url = TestDatabase::create().await.url;
            let open = async || {
                let options = Options::at(Secret::new(url.clone()));
                Arc::new(PostgresRegistry::open(&options).await.unwrap())
            };
            let (ours, theirs) = (open().await, open().await);
            let of_theirs = Arc::clone(&theirs) as _;
            let installs = Installs::remembering(of_theirs, Limits::default(), HOUR);
            let their_installs = Arc::new(installs);
            let mut listening = JoinSet::new();
            let (registry, installs) = (Arc::clone(&theirs), Arc::clone(&their_installs));
            listening.spawn(async move { listen(&*registry, &installs).await });
            let two = Self {
                ours,
                theirs,
                their_installs,
                _listening: listening,
            };
            eventually(async || two.their_installs.is_told()).await;
            two
        }

        /// A new install, which the other process has heard of.
        async fn install(&self) -> Install {
            let before = self.their_installs.changes_heard();
            let new = NewVersion {
                name: "com.example.notes".parse().unwrap(),
                publisher: "Tests".to_owned(),
                version: "1.0.0".to_owned(),
                content_hash: ContentHash::of(b"notes"),
                manifest: "{}".to_owned(),
                size: 5,
            };
            let registered = self.ours.register_version(&new, change()).await.unwrap();
            let new = NewInstall::new(TenantId::generate(), registered.version.id);
            let install = self.ours.create_install(&new, change()).await.unwrap();
            eventually(async || self.their_installs.changes_heard() > before).await;
            install
        }

        async fn disable(&self, install: &Install) {
            let disabled = InstallState::Disabled;
            let edited = self.ours.set_state(install.id, disabled, None, change());
            edited.await.unwrap();
        }

        /// Whether the other process thinks that the install may run, and use storage.
        async fn seen(&self, install: InstallId) -> Option<(bool, bool)> {
            let seen = self.their_installs.snapshot(install).await.unwrap()?;
            Some((seen.active, seen.switched_on))
        }

        /// Makes a change, and has the other process hear of it while it is in the middle of looking.
        async fn change_while_looking(
            &self,
            install: &Install,
            change: impl AsyncFnOnce() + Clone,
        ) {
            const WAITING: &str = "SELECT FROM pg_locks WHERE NOT granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let database = self.theirs.database();
            // So that nothing has to connect in between.
            let warm_up = || self.their_installs.warm_up();
            tokio::try_join!(warm_up(), warm_up()).unwrap();
            let looking = database.transact(async |connection| {
                // Who looks has read the install and what is set for its tenant, and then waits here.
                const LOCK: &str = "LOCK TABLE registry_switches IN ACCESS EXCLUSIVE MODE";
                let lock = database.statements().of(LOCK).execute(connection).await;
                lock.map_err(DriverError::from)?;
                let (installs, id) = (Arc::clone(&self.their_installs), install.id);
                installs.forget(id);
                let looking = tokio::spawn(async move { installs.find(id).await });
                eventually(async || self.count(WAITING).await > 0).await;
                let before = self.their_installs.changes_heard();
                change().await;
                eventually(async || self.their_installs.changes_heard() > before).await;
                Ok::<_, DriverError>(looking)
            });
            // It was asked before, so either answer is right.
            looking.await.unwrap().await.unwrap().unwrap();
        }

        /// How many rows a statement finds.
        async fn count(&self, sql: &'static str) -> usize {
            let database = self.ours.database();
            let counting = database.read(async |connection| {
                let found = database.statements().of(sql).fetch_all(connection).await;
                found.map_err(DriverError::from)
            });
            counting.await.unwrap().len()
        }
    }

    fn change() -> Change<'static> {
        Change {
            actor: "admin",
            request_id: None,
            now: SystemClock::default().now(),
        }
    }

    async fn eventually(condition: impl AsyncFn() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_by_another_process_is_learned_long_before_what_is_known_is_too_old() {
        let two = Two::start().await;
        let missing = InstallId::generate();
        assert_eq!(two.seen(missing).await, None);
        let install = two.install().await;
        eventually(async || two.seen(install.id).await == Some((true, true))).await;
        let off = TenantEdit::Storage(false);
        let edited = two.ours.edit_tenant(install.tenant, off, None, change());
        edited.await.unwrap();
        eventually(async || two.seen(install.id).await == Some((true, false))).await;
        let on = TenantEdit::Storage(true);
        let edited = two.ours.edit_tenant(install.tenant, on, None, change());
        edited.await.unwrap();
        eventually(async || two.seen(install.id).await == Some((true, true))).await;
        let off = SwitchesEdit::Storage(false);
        let edited = two.ours.edit_switches(off, None, change());
        edited.await.unwrap();
        eventually(async || two.seen(install.id).await == Some((true, false))).await;
        two.disable(&install).await;
        eventually(async || two.seen(install.id).await == Some((false, false))).await;
    }

    #[tokio::test]
    async fn what_is_changed_while_nothing_is_heard_is_learned_afterwards() {
        const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'alga-runner listener'";
        // Nobody comes in any more, but who is there stays.
        const SHUT: &str = "UPDATE pg_database SET datallowconn = false
            WHERE datname = current_database() RETURNING datname";
        const OPEN: &str = "UPDATE pg_database SET datallowconn = true
            WHERE datname = current_database() RETURNING datname";
        let two = Two::start().await;
        let install = two.install().await;
        assert_eq!(two.seen(install.id).await, Some((true, true)));
        assert_eq!(two.count(SHUT).await, 1);
        assert_eq!(two.count(CUT).await, 1);
        eventually(async || !two.their_installs.is_told()).await;
        two.disable(&install).await;
        assert_eq!(two.seen(install.id).await, Some((true, true)));
        assert_eq!(two.count(OPEN).await, 1);
        eventually(async || two.seen(install.id).await == Some((false, true))).await;
        eventually(async || two.their_installs.is_told()).await;
    }

    #[tokio::test]
    async fn what_was_looked_up_before_a_change_is_not_gone_by_after_it() {
        let two = Two::start().await;
        let install = two.install().await;
        two.change_while_looking(&install, async || {
            let off = TenantEdit::Storage(false);
            let edited = two.ours.edit_tenant(install.tenant, off, None, change());
            edited.await.unwrap();
        })
        .await;
        assert_eq!(two.seen(install.id).await, Some((true, false)));
        two.change_while_looking(&install, async || two.disable(&install).await)
            .await;
        assert_eq!(two.seen(install.id).await, Some((false, false)));
    }

    #[tokio::test]
    async fn nobody_listens_to_a_file() {
        let stage = Stage::open().await;
        let installs = stage.installs_with(Limits::default());
        listen(&*stage.registry, &installs).await;
        assert!(!installs.is_told());
    }

    #[test]
    fn it_waits_longer_each_time_and_never_long() {
        let mut outage = Outage::default();
        let waits: Vec<_> = (0..100).map(|_| outage.wait().as_millis()).collect();
        assert_eq!(waits[..8], [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(waits[99], 5_000);
        outage.end();
        assert_eq!(outage.wait(), FIRST_WAIT);
    }
}
