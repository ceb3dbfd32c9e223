use std::convert::Infallible;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::failure::Limit;
use super::*;
use crate::engine::failures::PASSING;
use crate::engine::{ComponentId, Engine, EngineOptions, PrepareError, Prepared};

const COMPONENT_BYTES: usize = 1 << 20;

/// What every component starts with, and enough to fill a pipe.
fn component() -> Vec<u8> {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.resize(COMPONENT_BYTES, 0);
    component
}

/// A program that is no compiler, and a file in its folder that it may write to.
struct Program {
    folder: TempDir,
}

impl Program {
    fn of(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Self { folder };
        let log = program.log_file();
        // To the end of the component, not of the pipe, which is the end of the process.
        let take = format!("take() {{ head -c {COMPONENT_BYTES} >/dev/null; }}");
        let script = format!("#!/bin/sh\nlog={}\n{take}\n{script}\n", log.display());
        fs::write(program.path(), script).unwrap();
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o700)).unwrap();
        program
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn options(&self) -> CompileOptions {
        options(&self.path())
    }
}

fn options(program: &Path) -> CompileOptions {
    CompileOptions {
        compiler: Compiler::Child {
            program: program.to_owned(),
        },
        ..CompileOptions::default()
    }
}

fn engine(compile: CompileOptions) -> Engine {
    Engine::new(EngineOptions {
        max_instances: 1,
        memory_bytes: 1 << 20,
        compile,
        ..EngineOptions::default()
    })
    .unwrap()
}

async fn compile(options: CompileOptions) -> Result<Code, CompileError> {
    let settings = CodeSettings { fuel: false };
    let compilations = Compilations::new(options, settings);
    let engine = wasmtime::Engine::new(&settings.config()).unwrap();
    let slot = compilations.slot().await;
    let bundle = ContentHash::of(b"bundle");
    compilations
        .compile(&slot, &engine, bundle, component())
        .await
}

async fn failure(script: &str) -> CompileError {
    let program = Program::of(script);
    let compiled = compile(program.options()).await;
    compiled
        .err()
        .expect("what is no compiler compiles nothing")
}

async fn prepare(engine: &Engine, bundle: &[u8]) -> Result<Prepared, PrepareError<Infallible>> {
    let load = async { Ok(component()) };
    let id = ComponentId::alone(ContentHash::of(bundle));
    engine.prepare(id, load).await
}

#[tokio::test]
async fn what_the_compiler_says_is_told_without_what_marks_it() {
    let refused = failure("take; echo 'refused: an odd import' >&2; exit 10").await;
    assert!(matches!(refused, CompileError::Refused(why) if why == "an odd import"));
}

#[tokio::test]
async fn each_way_to_end_has_its_meaning() {
    let limit = CompileOptions::default().memory_bytes;
    for script in [
        "exit 11",
        "echo 'memory allocation of 64 bytes failed' >&2; kill -ABRT $$",
    ] {
        let failure = failure(script).await;
        let right = matches!(failure, CompileError::Limit(Limit::Memory(bytes)) if bytes == limit);
        assert!(right, "{script}: {failure:?}");
    }
    for script in ["kill -SEGV $$", "kill -ABRT $$", "kill -ILL $$", "exit 101"] {
        let failure = failure(script).await;
        let crashed = matches!(failure, CompileError::Crashed { .. });
        assert!(crashed, "{script}: {failure:?}");
    }
    let failure_of = async |script| match failure(script).await {
        CompileError::Host(failure) => failure,
        other => panic!("{script}: {other:?}"),
    };
    for script in ["exit 1", "exit 2", "exit 10", "echo why >&2; exit 10"] {
        let failure = failure_of(script).await;
        assert!(
            matches!(*failure, CompilerFailure::Ended { .. }),
            "{script}"
        );
    }
    let ended = failure_of("kill -TERM $$").await;
    assert!(matches!(*ended, CompilerFailure::Killed(15)));
    let killed = failure("kill -KILL $$").await;
    assert!(matches!(killed, CompileError::Killed), "{killed:?}");
    let late = failure("kill -XCPU $$").await;
    assert!(matches!(late, CompileError::Limit(Limit::Time(_))));
}

#[tokio::test]
async fn a_compiler_that_can_not_be_started_is_a_fault_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    for program in [folder.path().join("missing"), folder.path().to_owned()] {
        let compiled = compile(options(&program)).await;
        let Err(CompileError::Host(failure)) = compiled else {
            panic!("it was started");
        };
        assert!(matches!(*failure, CompilerFailure::Start(_)));
    }
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_gone_afterwards() {
    let program = Program::of("echo $$ >> $log; exec sleep 600");
    let compiled = compile(CompileOptions {
        timeout: Duration::from_secs(2),
        ..program.options()
    });
    let failed = compiled.await.err().unwrap();
    assert!(matches!(failed, CompileError::Limit(Limit::Time(_))));
    assert_eq!(
        failed.about_the_component(),
        "compiling the component took more than 2 s"
    );
    let id = program.log();
    assert!(!id.is_empty(), "it had no time to begin");
    let process = Path::new("/proc").join(id.trim());
    assert!(!process.exists(), "{}", process.display());
}

#[tokio::test]
async fn one_that_talks_and_does_not_listen_holds_up_nobody() {
    let failed = failure("yes | head -c 1000000 >&2; yes | head -c 1000000; exit 101").await;
    let CompileError::Crashed { said, .. } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(said.len(), 8191, "the last end of line doesn't count");
}

#[tokio::test]
async fn it_is_told_nothing_but_its_task() {
    let program =
        Program::of("env | sort >> $log; pwd >> $log; ls -l /proc/self/fd >> $log; exit 11");
    let ours = File::create(program.folder.path().join("ours")).unwrap();
    compile(program.options()).await.err().unwrap();
    drop(ours);
    let log = program.log();
    let (told, files) = log.split_once("\n/\n").unwrap();
    let told: Vec<_> = told
        .lines()
        .filter(|line| !line.starts_with("_=") && !line.starts_with("PWD="))
        .collect();
    let [memory, threads] = told[..] else {
        panic!("{log}");
    };
    assert_eq!(memory, "MIMALLOC_ARENA_EAGER_COMMIT=0");
    assert!(threads.starts_with("RAYON_NUM_THREADS="));
    assert!(files.contains("pipe:") && !files.contains("ours"), "{log}");
}

#[tokio::test]
async fn what_is_no_code_is_not_loaded_and_not_held_against_the_component() {
    let program = Program::of("take; echo . >> $log; echo nonsense");
    let engine = engine(program.options());
    for _ in 0..2 {
        let Err(PrepareError::Compiler(failure)) = prepare(&engine, b"bundle").await else {
            panic!("it was prepared, or refused");
        };
        assert!(matches!(*failure, CompilerFailure::Output(_)));
    }
    assert_eq!(program.log(), ".\n.\n");
}

#[tokio::test]
async fn what_is_wrong_with_a_component_is_remembered() {
    for end in [
        "exit 11",
        "echo 'refused: why' >&2; exit 10",
        "kill -SEGV $$",
        "kill -KILL $$",
    ] {
        let program = Program::of(&format!("take; echo . >> $log; {end}"));
        let engine = engine(program.options());
        for _ in 0..3 {
            let failed = prepare(&engine, b"bad").await;
            assert!(matches!(failed, Err(PrepareError::Invalid(_))), "{end}");
        }
        assert_eq!(program.log(), ".\n", "{end}");
        prepare(&engine, b"other").await.unwrap_err();
        assert_eq!(program.log(), ".\n.\n", "{end}");
    }
    assert!(
        PASSING < Duration::from_secs(300),
        "a machine is busy for a while"
    );
}

#[tokio::test]
async fn no_more_are_compiled_at_once_than_may_be() {
    let program = Program::of("take; echo begin >> $log; sleep 0.05; echo end >> $log; exit 11");
    let engine = engine(CompileOptions {
        at_once: NonZeroU32::new(1),
        ..program.options()
    });
    let bundles = [b"1", b"2", b"3", b"4"];
    join_all(bundles.map(|bundle| prepare(&engine, bundle))).await;
    assert_eq!(program.log(), "begin\nend\n".repeat(4));
}

#[tokio::test]
async fn callers_who_go_away_leave_the_work_and_its_place_to_it() {
    let program = Program::of("take; echo begin >> $log; sleep 0.3; echo end >> $log; exit 11");
    let engine = engine(CompileOptions {
        at_once: NonZeroU32::new(1),
        ..program.options()
    });
    let waiting = prepare(&engine, b"bad");
    let gone = tokio::time::timeout(Duration::from_millis(100), waiting).await;
    assert!(gone.is_err(), "it was too fast");
    // Both come after the work that nobody waits for any more.
    for bundle in [b"bad".as_slice(), b"other"] {
        prepare(&engine, bundle).await.unwrap_err();
    }
    assert_eq!(program.log(), "begin\nend\n".repeat(2));
}

#[test]
fn code_of_a_process_of_its_own_is_code_for_the_engine_that_runs_guests() {
    let hash = |engine: &wasmtime::Engine| {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    };
    let hashes = [None, Some(1_000)].map(|fuel| {
        let options = EngineOptions {
            fuel,
            max_instances: 1,
            ..EngineOptions::default()
        };
        let settings = CodeSettings {
            fuel: fuel.is_some(),
        };
        let compiles = wasmtime::Engine::new(&settings.config()).unwrap();
        let runs = Engine::new(options).unwrap();
        assert_eq!(hash(&compiles), hash(&runs.wasmtime), "fuel: {fuel:?}");
        hash(&compiles)
    });
    assert_ne!(hashes[0], hashes[1], "what counts fuel is other code");
}

#[test]
fn limits_are_told_in_whole_units() {
    for (limit, said) in [
        (
            Limit::Time(Duration::from_secs(120)),
            "took more than 120 s",
        ),
        (Limit::Memory(2 << 30), "needed more than 2 GiB of memory"),
        (Limit::Memory(96 << 20), "needed more than 96 MiB of memory"),
        (Limit::Code(1 << 30), "compiles to more than 1 GiB of code"),
    ] {
        assert!(limit.to_string().ends_with(said), "{limit}");
    }
}
