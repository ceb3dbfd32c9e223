//! Processes that are killed in the middle of their writes, and processes whose clocks are wrong.
//!
//! The processes are this program again, told by its environment to play their part.

#![expect(
    clippy::disallowed_methods,
    reason = "whether this process is one of those is said in its environment, and how late it believes \
              it is, by its own clock"
)]

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alga_model::{InstallId, Secret, TenantId};
use alga_postgres::Options;
use alga_storage::suite::{Install, Stage};
use alga_storage::{
    AuditFilter, AuditRecord, Guard, Maintenance as _, Namespace, PostgresBackend, StorageGrant,
};
use alga_test_postgres::TestDatabase;
use futures_util::future::join_all;

use crate::{is_on_citus, item, of_each_kind, session};

const ROUNDS: usize = 50;
const WRITERS: usize = 4;
const KEYS: usize = 4;
/// Where a process finds its database, tenant and install.
const PART: &str = "ALGA_STORAGE_TEST_PART";
/// What the line of a change that was answered begins with.
const CHANGED: &str = "changed ";

/// An install that processes share.
struct Shared {
    database: TestDatabase,
    tenant: TenantId,
    install: InstallId,
}

impl Shared {
    fn on(database: TestDatabase) -> Self {
        Self {
            database,
            tenant: TenantId::generate(),
            install: InstallId::generate(),
        }
    }

    /// What this process was told, if it is one of those that play a part.
    fn of_environment() -> Option<Self> {
        let told = env::var(PART).ok()?;
        let mut words = told.split(' ').map(str::to_owned);
        Some(Self {
            database: TestDatabase {
                url: words.next().unwrap(),
            },
            tenant: words.next().unwrap().parse().unwrap(),
            install: words.next().unwrap().parse().unwrap(),
        })
    }

    /// As in production, where no clock but the database's is asked.
    async fn open(&self) -> (Stage, Arc<PostgresBackend>) {
        let options = Options::at(Secret::new(self.database.url.clone()));
        let backend = Arc::new(PostgresBackend::open(&options).await.unwrap());
        (Stage::new(Arc::clone(&backend), Stage::clock()), backend)
    }

    fn install<'a>(&self, stage: &'a Stage) -> Install<'a> {
        let mut install = stage.install_with(self.tenant, Stage::roomy());
        install.caller.install = self.install;
        let namespaces = ["notes", "cache"].map(|name| Namespace::parse(name).unwrap());
        install.grant(Some(StorageGrant::all_of(namespaces)), Stage::roomy(), true);
        install
    }

    /// Has another process play `part`, by a clock that is so many hours late.
    fn start(&self, part: &str, clock: Option<i32>) -> Process {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", part, "--nocapture"])
            .env(
                PART,
                format!("{} {} {}", self.database.url, self.tenant, self.install),
            )
            .stdout(Stdio::piped());
        if let Some(hours) = clock {
            command
                .env("LD_PRELOAD", libfaketime())
                .env("FAKETIME", format!("{hours:+}h"))
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    async fn audit(&self, backend: &PostgresBackend) -> Vec<AuditRecord> {
        let filter = AuditFilter {
            tenant: Some(self.tenant),
            ..AuditFilter::default()
        };
        backend.audit(&filter, None, 1_000_000).await.unwrap()
    }

    /// Waits until the server has noticed that a process is gone, and finished what it had begun for it.
    async fn let_go(&self) {
        const SESSIONS: &str = "
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // Nodes have sessions with one another that stay, for whoever comes next and for looking after themselves.
        const SESSIONS_ON_NODES: &str = "
            SELECT count(*) FROM citus_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend'
              AND global_pid <> citus_backend_gpid()
              AND (application_name NOT LIKE 'citus\\_internal%' OR state <> 'idle')";
        let mut session = session(&self.database).await;
        let statement = if is_on_citus(&mut session).await {
            SESSIONS_ON_NODES
        } else {
            SESSIONS
        };
        loop {
            let sessions: i64 = sqlx::query_scalar(statement)
                .fetch_one(&mut session)
                .await
                .unwrap();
            if sessions == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A process that plays a part.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// The next change that was answered, if there is one.
    fn change(&mut self) -> Option<String> {
        let lines = self.lines.by_ref().map(Result::unwrap);
        let mut changes = lines.filter_map(|line| line.strip_prefix(CHANGED).map(str::to_owned));
        changes.next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists());
    let library = library.expect("there is no libfaketime here; install it as scripts/test does");
    library.to_str().unwrap().to_owned()
}

/// Tells a change that was answered, in one piece.
fn tell(change: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{CHANGED}{change}\n").as_bytes())
        .unwrap();
    stdout.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_test_that_writes_until_it_is_killed() {
    let Some(shared) = Shared::of_environment() else {
        println!("skipped: it is another test that starts this");
        return;
    };
    let (stage, _backend) = shared.open().await;
    let install = shared.install(&stage);
    join_all((0..WRITERS).map(|writer| write(&install, writer))).await;
}

/// Writes, and tells what was answered.
async fn write(install: &Install<'_>, writer: usize) {
    for nth in 0.. {
        let key = format!("w{writer}-{}", nth % KEYS);
        match nth % 5 {
            3 => {
                if install.delete(&key).await.unwrap() {
                    tell(&format!("{key} 0"));
                }
            }
            4 => {
                let pair =
                    ["a", "b"].map(|half| item(&format!("w{writer}-{half}"), None, Guard::Any));
                for written in install.bulk_put(pair.to_vec()).await.unwrap() {
                    tell(&format!("{} {}", written.key, written.revision));
                }
            }
            _ => {
                let written = install.put(&key, "1").await.unwrap();
                tell(&format!("{key} {}", written.revision));
            }
        }
    }
}

/// Changes of keys, to a revision or to nothing, which is 0; with how often there was each.
type Changes = BTreeMap<String, usize>;

fn count(changes: impl IntoIterator<Item = String>) -> Changes {
    let mut counted = Changes::new();
    for change in changes {
        *counted.entry(change).or_default() += 1;
    }
    counted
}

#[tokio::test]
async fn of_a_process_that_is_killed_every_answered_write_is_there_and_none_half_or_twice() {
    for database in of_each_kind().await {
        kill_processes(&Shared::on(database)).await;
    }
}

async fn kill_processes(shared: &Shared) {
    let mut answered = Vec::new();
    let mut unanswered = 0;
    let mut cut_off = 0;
    for round in 0..ROUNDS {
        let part = "crash::a_process_of_another_test_that_writes_until_it_is_killed";
        let mut process = shared.start(part, None);
        for _ in 0..20 + (round * 7) % 23 {
            answered.push(process.change().expect("it writes until it is killed"));
        }
        process.child.kill().unwrap();
        answered.extend(std::iter::from_fn(|| process.change()));
        shared.let_go().await;

        let (stage, backend) = shared.open().await;
        let audit = shared.audit(&backend).await;
        let (done, told) = (count(audit.iter().map(change_of)), count(answered.clone()));
        for (change, times) in &told {
            assert!(
                done.get(change) >= Some(times),
                "round {round}: {change} is lost"
            );
        }
        check_chains(&audit);
        // Each writer waited for one answer at most, of a change of two records at most.
        let more = audit.len() - answered.len() - unanswered;
        assert!(
            more <= 2 * WRITERS,
            "round {round}: {more} changes were not answered"
        );
        unanswered += more;
        cut_off += usize::from(more > 0);
        check_records(&shared.install(&stage), &audit).await;
        assert_eq!(
            backend.verify_usage(shared.tenant, false).await.unwrap(),
            []
        );
        backend.database().close().await;
    }
    assert!(answered.len() > ROUNDS * 20, "{} writes", answered.len());
    assert!(cut_off > ROUNDS / 10, "only {cut_off} kills met a write");
}

fn key_of(record: &AuditRecord) -> String {
    record.key.clone().unwrap()
}

fn change_of(record: &AuditRecord) -> String {
    let revision = record.revision_after.unwrap_or_default();
    format!("{} {revision}", key_of(record))
}

/// Each change of a record began where the one before had ended, so none was done twice.
fn check_chains(audit: &[AuditRecord]) {
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for record in audit {
        let before = known
            .insert(key_of(record), record.revision_after)
            .flatten();
        assert_eq!(record.revision_before, before, "{record:?}");
        assert!(
            record
                .revision_after
                .is_none_or(|after| Some(after) > before),
            "{record:?}"
        );
    }
}

/// What is stored is what the audit says, and both halves of a pair are as old.
async fn check_records(install: &Install<'_>, audit: &[AuditRecord]) {
    let named = |record| -> (String, &AuditRecord) { (key_of(record), record) };
    let last: BTreeMap<_, _> = audit.iter().map(named).collect();
    for (key, record) in &last {
        let stored = install.get_many(&[key]).await.unwrap();
        let record_of_key = stored.first().unwrap();
        let revision = record_of_key.as_ref().map(|record| record.revision.get());
        assert_eq!(revision, record.revision_after, "{key}");
    }
    for writer in 0..WRITERS {
        let id = |half| {
            let record = last.get(&format!("w{writer}-{half}"));
            record.map(|record| record.id)
        };
        assert_eq!(id("a"), id("b"), "half a change of writer {writer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_test_whose_clock_is_wrong() {
    let Some(shared) = Shared::of_environment() else {
        println!("skipped: it is another test that starts this");
        return;
    };
    let (stage, backend) = shared.open().await;
    let install = shared.install(&stage);
    let process = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    // What others wrote is there, and what has not expired is not removed.
    if env::var("FAKETIME").is_ok_and(|late| late.starts_with('+')) {
        assert_eq!(backend.remove_expired(100).await.unwrap().records, 0);
    }
    let written = install
        .bulk_put(vec![item(&format!("k{process}"), Some(60), Guard::Absent)])
        .await;
    let [written] = &written.unwrap()[..] else {
        panic!("one record was written");
    };
    let expires_at = written.expires_at.unwrap();
    tell(&format!(
        "{process} {} {}",
        written.created_at.as_millis(),
        expires_at.as_millis()
    ));
}

#[tokio::test]
async fn clocks_of_processes_that_differ_by_hours_decide_nothing() {
    const MINUTE: i64 = 60_000;
    const HOURS: [i32; 3] = [5, -5, 5];
    let shared = Shared::on(TestDatabase::create().await);
    let mut keys = Vec::new();
    for hours in HOURS {
        let part = "crash::a_process_of_another_test_whose_clock_is_wrong";
        let told = shared.start(part, Some(hours)).change().expect("it writes");
        let times: Vec<i64> = told.split(' ').map(|time| time.parse().unwrap()).collect();
        let [of_process, created, expires] = times[..] else {
            panic!("{told}");
        };
        let late = of_process - created;
        assert!(
            (late - i64::from(hours) * 60 * MINUTE).abs() < MINUTE,
            "{hours} h late: {late} ms"
        );
        assert_eq!(expires - created, MINUTE);
        keys.push(format!("k{of_process}"));
    }
    let (stage, backend) = shared.open().await;
    let install = shared.install(&stage);
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let records = install.get_many(&keys).await.unwrap();
    assert!(records.iter().all(Option::is_some), "{records:?}");
    let audit = shared.audit(&backend).await;
    assert_eq!(audit.len(), HOURS.len());
    let now: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&mut session(&shared.database).await)
            .await
            .unwrap();
    // In the order in which they came, also by their ids, whatever the processes believed.
    for (record, key) in audit.iter().zip(keys) {
        assert_eq!(record.key.as_deref(), Some(key));
        assert!((now - record.time.as_millis()).abs() < MINUTE, "{record:?}");
    }
    assert!(audit.is_sorted_by_key(|record| (record.time, record.id)));
}
