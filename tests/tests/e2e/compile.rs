//! Components that are compiled in a process of their own: what it costs, and what it costs nobody.
//!
//! Some of these look at the processes that the test's own has started, so each test needs a process of
//! its own, as `cargo nextest` gives it. With `cargo test`, in threads of one, they would see each
//! other's.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use alga_model::ContentHash;
use alga_runner::engine::{
    CompileOptions, Compiler, ComponentId, Engine, EngineOptions, PrepareError, Prepared,
};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};

use crate::deployment::{Deployment, Installed, RUNNER, get, path};

/// How long a process may take to be gone. Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes many seconds and gigabytes; some 30 kB.
const BOMB: usize = 3_000;
/// Takes a second or so, and more than the least memory that can be set.
const HEAVY: usize = 100_000;

/// Of a process that computed for longer than it may.
const SIGXCPU: i32 = 24;

/// How many copies of a component are cut short.
const CUTS: usize = 20;

/// The processes that `parent` started and that are still at work.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name, which may be anything, is in parentheses; behind it are the state and the parent.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after.split_whitespace();
        let (state, of) = (fields.next(), fields.next());
        state != Some("Z") && of == Some(parent.to_string().as_str())
    })
    .collect()
}

fn is_at_work(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server with these settings, and what was installed without them: something heavy, which is to be
/// compiled again, and something good, which isn't.
fn with_something_heavy(settings: &[(&str, &str)]) -> (Deployment, Installed, Installed) {
    let mut deployment = Deployment::new();
    let heavy = deployment.install("com.example.heavy", &guest::long_function(HEAVY));
    fs::remove_dir_all(deployment.data().join("cache/code")).unwrap();
    let good = deployment.install("com.example.good", &guest::echo());
    for (name, value) in settings {
        deployment.set(name, value);
    }
    deployment.start();
    (deployment, heavy, good)
}

async fn a_limit_is_clear(settings: &[(&str, &str)], outcome: &str, said: &str) {
    let (deployment, heavy, good) = with_something_heavy(settings);
    for _ in 0..3 {
        let answer = deployment.execute(&heavy.envelope(&get("/"))).await;
        assert_eq!(answer.status(), 502);
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "INVALID_COMPONENT", "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
        assert_eq!(deployment.call(&good, get("/")).await.status, 200);
    }
    let server = deployment.process().number();
    assert!(children(server).is_empty(), "nothing is left behind");
    let metrics = deployment.metrics().await;
    let once = format!(r#"alga_engine_compile_duration_seconds_count{{outcome="{outcome}"}} 1"#);
    assert!(metrics.contains(&once), "{metrics}");
    let running = "alga_engine_compilations_running 0";
    assert!(metrics.contains(running), "{metrics}");
    let log = deployment.log();
    assert_eq!(
        log.matches("a component can't be compiled").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn a_component_that_takes_too_long_to_compile_is_refused_and_others_go_on() {
    let short = [("ALGA_ENGINE_COMPILE_TIMEOUT_MS", "100")];
    let said = "compiling the component took more than 0.1 s";
    a_limit_is_clear(&short, "timeout", said).await;
}

#[tokio::test]
async fn a_component_that_takes_too_much_memory_to_compile_is_refused_and_others_go_on() {
    let small = [("ALGA_ENGINE_COMPILE_MEMORY_MB", "128")];
    let said = "compiling the component needed more than 128 MiB of memory";
    a_limit_is_clear(&small, "memory", said).await;
}

#[test]
fn a_compile_bomb_is_not_published() {
    let mut deployment = Deployment::new();
    let bomb = guest::compile_bomb(BOMB);
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let bundle = deployment.pack("com.example.bomb", "1.0.0", &bomb);
    deployment.set("ALGA_ENGINE_COMPILE_TIMEOUT_MS", "1000");
    let error = deployment.fails(&["bundle", "add", path(&bundle)]);
    let said = "compiling the component took more than 1 s";
    assert!(
        error.contains("INVALID_COMPONENT") && error.contains(said),
        "{error}"
    );

    deployment.set("ALGA_ENGINE_COMPILE_TIMEOUT_MS", "60000");
    deployment.set("ALGA_ENGINE_COMPILE_MEMORY_MB", "128");
    let said = "compiling the component needed more than 128 MiB of memory";
    for command in ["add", "verify"] {
        let error = deployment.fails(&["bundle", command, path(&bundle)]);
        assert!(error.contains(said), "{command}: {error}");
    }
}

/// A command that has begun to compile a bomb, and the process that does it.
fn compiling(deployment: &Deployment) -> (Child, u32) {
    let bundle = deployment.pack("com.example.bomb", "1.0.0", &guest::compile_bomb(BOMB));
    let command = deployment
        .command(&["bundle", "add", path(&bundle)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("nothing is compiled", || !children(command.id()).is_empty());
    let [child] = children(command.id())[..] else {
        panic!("several are compiled");
    };
    (command, child)
}

#[test]
fn nothing_is_compiled_any_more_when_the_runner_is_gone_however_it_went() {
    let deployment = Deployment::new();
    for signal in ["-KILL", "-INT", "-TERM"] {
        let (mut command, child) = compiling(&deployment);
        let id = command.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        command.wait().unwrap();
        wait_until(signal, || !is_at_work(child));
    }
}

/// The process that compiles, with a file open that nobody meant for it and so many seconds to
/// compute.
fn worker(component: &[u8], cpu_seconds: u32) -> Child {
    let command = format!(
        "exec 7</dev/null; exec {RUNNER} compile --component-bytes {} --memory-bytes {} \
         --cpu-seconds {cpu_seconds}",
        component.len(),
        4_u64 << 30,
    );
    Command::new("/bin/sh")
        .args(["-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn what_compiles_has_nothing_open_but_its_pipes() {
    let mut worker = worker(&guest::echo(), 60);
    let process = Path::new("/proc").join(worker.id().to_string());
    let runner = fs::canonicalize(RUNNER).unwrap();
    wait_until("the shell stays", || {
        fs::read_link(process.join("exe")).unwrap() == runner
    });
    wait_until("a file stays open", || {
        let open = fs::read_dir(process.join("fd")).unwrap().flatten();
        let mut open: Vec<_> = open.map(|file| file.file_name()).collect();
        open.sort();
        open == ["0", "1", "2"]
    });
    // The end of its standard input is its own.
    drop(worker.stdin.take());
    assert!(!worker.wait().unwrap().success());
}

#[test]
fn who_computes_for_too_long_is_told_from_who_was_killed() {
    let bomb = guest::compile_bomb(BOMB);
    let mut worker = worker(&bomb, 1);
    let mut stdin = worker.stdin.take().unwrap();
    stdin.write_all(&bomb).unwrap();
    let status = worker.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGXCPU), "{status}");
}

/// An engine that compiles so many at once with `program`.
fn engine(program: &Path, at_once: u32) -> Engine {
    Engine::new(EngineOptions {
        max_instances: 1,
        compile: CompileOptions {
            compiler: Compiler::Child {
                program: program.to_owned(),
            },
            at_once: NonZeroU32::new(at_once),
            ..CompileOptions::default()
        },
        ..EngineOptions::default()
    })
    .unwrap()
}

async fn prepare(
    engine: &Engine,
    component: Vec<u8>,
) -> Result<Prepared, PrepareError<std::convert::Infallible>> {
    let id = ComponentId::alone(ContentHash::of(&component));
    engine.prepare(id, async { Ok(component) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_at_once_has_a_component_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let (program, log) = (folder.path().join("program"), folder.path().join("log"));
    let script = format!(
        "#!/bin/sh\necho . >> {}\nexec {RUNNER} \"$@\"\n",
        path(&log)
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();

    let engine = engine(&program, 1);
    let callers = (0..32).map(|_| prepare(&engine, guest::notes_component()));
    for prepared in join_all(callers).await {
        prepared.unwrap();
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), ".\n");
    prepare(&engine, guest::echo()).await.unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), ".\n.\n");
}

#[test]
fn work_that_is_dropped_ends_at_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = engine(Path::new(RUNNER), 1);
    let id = std::process::id();
    runtime.block_on(async {
        let bomb = prepare(&engine, guest::compile_bomb(BOMB));
        let gone = tokio::time::timeout(Duration::from_secs(1), bomb).await;
        assert!(gone.is_err(), "{gone:?}");
    });
    assert_eq!(children(id).len(), 1, "who waits is gone, the work goes on");
    runtime.shutdown_timeout(Duration::from_secs(1));
    wait_until("it goes on", || children(id).is_empty());
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// One below `end`.
    fn below(&mut self, end: usize) -> usize {
        // https://prng.di.unimi.it/splitmix64.c
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_component_is_good_or_invalid_and_nothing_else() {
    let mut numbers = Numbers(48);
    let mut damaged = Vec::new();
    for (whole, flips) in [(guest::notes_component(), 60), (guest::echo(), 240)] {
        for _ in 0..flips {
            let mut bytes = whole.clone();
            bytes[numbers.below(whole.len())] ^= 1 << numbers.below(8);
            damaged.push(bytes);
        }
        for _ in 0..CUTS {
            damaged.push(whole[..numbers.below(whole.len())].to_vec());
        }
    }

    let engine = engine(Path::new(RUNNER), 4);
    let outcomes: Vec<_> = stream::iter(damaged)
        .map(|component| prepare(&engine, component))
        .buffer_unordered(8)
        .map(|prepared| match prepared {
            Ok(_) => true,
            Err(PrepareError::Invalid(invalid)) => {
                assert!(!invalid.message.is_empty());
                assert!(!invalid.message.contains("crashed"), "{invalid}");
                false
            }
            Err(other) => panic!("{other:?}"),
        })
        .collect()
        .await;
    let good = outcomes.iter().filter(|good| **good).count();
    assert!(
        good > 0 && outcomes.len() - good > 2 * CUTS,
        "{good} are good"
    );
    assert!(children(std::process::id()).is_empty());
    prepare(&engine, guest::echo()).await.unwrap();
}
