//! Compiles components: so many at once, within limits, each in a process of its own.
//!
//! A component can be a compile bomb: a few kilobytes that keep Cranelift busy for hours, or have it
//! take all the memory there is. A thread can't be stopped and has no memory of its own, a process
//! can and has. So the runner starts itself once more for each component ([`Compiler::Child`]),
//! gives it the component, and takes the code from it.
//!
//! The code is machine code, made by a process that read hostile bytes, and is loaded unseen. That is
//! as safe as compiling here, and no safer: it is the same Cranelift, and whoever can make it write
//! what it shouldn't has won in either process, as the code is run in the end. A process of its own
//! runs as the same user, and takes away only what a bomb can do. Besides the code cache and
//! [`Compiler::InProcess`], nothing but the output of such a process, taken from the pipe to it, is
//! made a [`Code`].

mod child;
mod failure;
mod in_process;
mod worker;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use alga_model::{ContentHash, ErrorChain};
use metrics::{gauge, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::{Code, CodeSettings};

pub(super) use self::failure::CompileError;
pub use self::failure::CompilerFailure;
pub use self::worker::Task;
pub(super) use self::worker::refusal;

/// What compiles components.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// A process for each component, within the limits of [`CompileOptions`].
    Child {
        /// What is started: alga-runner, which does this with its command `compile`.
        program: PathBuf,
    },
    /// This process, on a thread that nothing can stop. A component from somebody who means harm
    /// can take all the memory and a processor for hours: this is for programs that compile what they trust
    /// and are not alga-runner.
    InProcess,
}

impl Compiler {
    /// Compiles in processes of this very program, whose `main` must be
    /// [`cli::main`](crate::cli::main): nothing else knows what to do when it is started so.
    pub fn this_program() -> Self {
        let program = if cfg!(target_os = "linux") {
            // What runs, also where an upgrade has put another file in its place: only the same
            // compiler makes code that this process can load.
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().unwrap_or_default()
        };
        Self::Child { program }
    }
}

/// How components are compiled.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// What compiles them.
    pub compiler: Compiler,
    /// How long compiling one may take; no limit where it is in process.
    pub timeout: Duration,
    /// Bytes of memory that compiling one may take; no limit where it is in process.
    pub memory_bytes: u64,
    /// How many are compiled at once; where absent, half as many as there are processors.
    pub at_once: Option<NonZeroU32>,
}

/// In process, as a library can't know what the program is that it is part of.
impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            compiler: Compiler::InProcess,
            timeout: Duration::from_secs(120),
            memory_bytes: 2 << 30,
            at_once: None,
        }
    }
}

/// The compilations of a process.
pub(super) struct Compilations {
    options: CompileOptions,
    settings: CodeSettings,
    slots: Arc<Semaphore>,
}

/// A place among the compilations that there are at once.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _running: Counted,
}

impl Compilations {
    pub(super) fn new(options: CompileOptions, settings: CodeSettings) -> Self {
        let at_once = options.at_once.map_or_else(half_the_processors, |at_once| {
            usize::try_from(at_once.get()).unwrap_or(usize::MAX)
        });
        Self {
            options,
            settings,
            slots: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a place. Who comes first is served first.
    pub(super) async fn slot(&self) -> Slot {
        let waiting = Counted::new("alga_engine_compilations_waiting");
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        drop(waiting);
        Slot {
            _permit: permit.expect("nobody closes the semaphore"),
            _running: Counted::new("alga_engine_compilations_running"),
        }
    }

    /// Compiles the component of a bundle; the only place that logs and counts what became of it.
    pub(super) async fn compile(
        &self,
        _slot: &Slot,
        engine: &wasmtime::Engine,
        bundle: ContentHash,
        component: Vec<u8>,
    ) -> Result<Code, CompileError> {
        let (start, component_bytes) = (Instant::now(), component.len());
        let compiled = match &self.options.compiler {
            Compiler::Child { program } => {
                child::compile(program, &self.options, self.settings, component).await
            }
            Compiler::InProcess => in_process::compile(engine, component).await,
        };
        report(bundle, component_bytes, start.elapsed(), &compiled);
        compiled
    }
}

/// One at least. The other half stays for guests, whatever is published.
fn half_the_processors() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// Counted in a gauge until it is dropped.
struct Counted(&'static str);

impl Counted {
    fn new(gauge: &'static str) -> Self {
        gauge!(gauge).increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}

fn report(
    bundle: ContentHash,
    component_bytes: usize,
    duration: Duration,
    compiled: &Result<Code, CompileError>,
) {
    let outcome = compiled
        .as_ref()
        .map_or_else(CompileError::outcome, |_| "ok");
    histogram!("alga_engine_compile_duration_seconds", "outcome" => outcome).record(duration);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match compiled {
        Ok(code) => tracing::info!(
            %bundle,
            duration_ms,
            component_bytes,
            code_bytes = code.bytes().len(),
            "a component was compiled"
        ),
        Err(CompileError::Crashed { how, said }) => tracing::error!(
            %bundle,
            duration_ms,
            component_bytes,
            error = %how,
            said = ?said,
            "the compiler crashed on a component"
        ),
        Err(error @ CompileError::Killed) => tracing::warn!(
            %bundle,
            duration_ms,
            component_bytes,
            outcome,
            error = error.about_the_component(),
            "the compiler was killed on a component"
        ),
        Err(CompileError::Host(failure)) => tracing::warn!(
            %bundle,
            duration_ms,
            component_bytes,
            error = %ErrorChain(&**failure),
            "a component could not be compiled"
        ),
        Err(error @ (CompileError::Refused(_) | CompileError::Limit(_))) => tracing::info!(
            %bundle,
            duration_ms,
            component_bytes,
            outcome,
            error = error.about_the_component(),
            "a component can't be compiled"
        ),
    }
}

#[cfg(test)]
mod tests;
