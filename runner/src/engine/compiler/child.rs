//! Compiling in a process of its own, seen from the process that wants the code.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::CompileOptions;
use super::failure::{CompileError, CompilerFailure, Limit};
use super::worker::{OUT_OF_MEMORY, REFUSAL, REFUSED, Task};
use crate::engine::code::{Code, CodeSettings};

/// The most bytes of compiled code that are taken: code has about three times the bytes of a component,
/// which has 128 MiB at most.
const CODE_BYTES: u64 = 512 << 20;
/// How much of what the process says is kept.
const SAID_BYTES: u64 = 8 << 10;
/// Threads that compile: more gain little for one component, and each takes memory.
const THREADS: usize = 8;
/// The exit status of a Rust program that panicked.
const PANICKED: i32 = 101;
/// What a Rust program says before it aborts for lack of memory.
const NO_MEMORY: &str = "memory allocation of ";

/// Compiles `component`. The process is gone when this returns, and killed when it is dropped.
pub(super) async fn compile(
    program: &Path,
    options: &CompileOptions,
    settings: CodeSettings,
    component: Vec<u8>,
) -> Result<Code, CompileError> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS));
    let task = Task {
        component_bytes: component.len() as u64,
        memory_bytes: options.memory_bytes,
        cpu_seconds: cpu_seconds(options.timeout, threads),
        fuel: settings.fuel,
    };
    let mut child = start(program, &task, threads).map_err(CompilerFailure::Start)?;
    let conversed = timeout(options.timeout, converse(&mut child, component)).await;
    let broken = match conversed {
        Ok(Ok((code, _, status))) if status.success() => return Ok(Code::of_our_own(code, 0)),
        Ok(Ok((_, said, status))) => return Err(failed(status, said, options)),
        Ok(Err(Broken::Pipe(error))) => CompilerFailure::Pipe(error).into(),
        Ok(Err(Broken::TooMuchCode)) => CompileError::Limit(Limit::Code(CODE_BYTES)),
        Err(_) => CompileError::Limit(Limit::Time(options.timeout)),
    };
    // That it is gone already is all that could make this fail.
    let _ = child.kill().await;
    Err(broken)
}

/// A backstop, in case nobody is left to look at the clock.
fn cpu_seconds(timeout: Duration, threads: usize) -> u64 {
    let seconds = timeout.as_secs().saturating_add(2);
    seconds.saturating_mul(threads.try_into().unwrap_or(u64::MAX))
}

fn start(program: &Path, task: &Task, threads: usize) -> io::Result<Child> {
    // In a program that doesn't know the command it would do whatever it does, and that for ever.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == Task::COMMAND)
    {
        return Err(io::Error::other(
            "this process was started to compile itself",
        ));
    }
    Command::new(program)
        .arg0("alga-runner")
        .args(task.arguments())
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        // What the allocator sets aside for later would count as used.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .current_dir("/")
        // What a terminal sends when somebody types Ctrl-C is for the runner to handle.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Why there is nothing to judge.
enum Broken {
    Pipe(io::Error),
    TooMuchCode,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

/// Hands the component over while it takes what comes back, until the process is gone.
async fn converse(
    child: &mut Child,
    component: Vec<u8>,
) -> Result<(Vec<u8>, String, ExitStatus), Broken> {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the process has no pipes").into());
    };
    let (stdin, code, said) =
        tokio::try_join!(feed(stdin, component), read_code(stdout), read_said(stderr))?;
    let status = child.wait().await?;
    drop(stdin);
    Ok((code, said, status))
}

/// Hands the component over, and keeps none of it. The pipe stays open: its end would tell the process
/// that we are gone.
async fn feed(mut stdin: ChildStdin, component: Vec<u8>) -> Result<ChildStdin, Broken> {
    // A process that doesn't want to read has ended, and its status says why.
    let _ = stdin.write_all(&component).await;
    Ok(stdin)
}

async fn read_code(stdout: ChildStdout) -> Result<Vec<u8>, Broken> {
    let mut code = Vec::new();
    stdout.take(CODE_BYTES + 1).read_to_end(&mut code).await?;
    if code.len() as u64 > CODE_BYTES {
        return Err(Broken::TooMuchCode);
    }
    Ok(code)
}

/// The beginning of what it says. The rest is read too, or the process would wait for that.
async fn read_said(mut stderr: ChildStderr) -> Result<String, Broken> {
    let mut said = Vec::new();
    (&mut stderr)
        .take(SAID_BYTES)
        .read_to_end(&mut said)
        .await?;
    tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
}

/// What a process without success means.
fn failed(status: ExitStatus, said: String, options: &CompileOptions) -> CompileError {
    let memory = CompileError::Limit(Limit::Memory(options.memory_bytes));
    let crashed = |said| CompileError::Crashed {
        how: status.to_string(),
        said,
    };
    let Some(signal) = status.signal() else {
        return match (status.code(), said.strip_prefix(REFUSAL)) {
            (Some(REFUSED), Some(message)) => CompileError::Refused(message.to_owned()),
            (Some(OUT_OF_MEMORY), _) => memory,
            (Some(PANICKED), _) => crashed(said),
            _ => CompilerFailure::Ended {
                status: status.to_string(),
                said,
            }
            .into(),
        };
    };
    match Signal::from_named_raw(signal) {
        Some(Signal::XCPU) => CompileError::Limit(Limit::Time(options.timeout)),
        Some(Signal::ABORT) if said.contains(NO_MEMORY) => memory,
        Some(
            Signal::ABORT
            | Signal::SEGV
            | Signal::BUS
            | Signal::ILL
            | Signal::FPE
            | Signal::TRAP
            | Signal::SYS,
        ) => crashed(said),
        Some(Signal::KILL) => CompileError::Killed,
        _ => CompilerFailure::Killed(signal).into(),
    }
}
