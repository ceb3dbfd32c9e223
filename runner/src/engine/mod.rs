//! Runs guests: one engine for the process, a fresh instance for every invocation.
//!
//! An invocation is bounded on every side. Guest code is interrupted by epochs, host calls by a
//! timeout of the async runtime around the whole; memory, tables and instances by a limiter; the log
//! and the answer by their own limits. Whatever a guest does ends as a [`RunError`].

mod code;
mod code_cache;
mod code_seal;
mod compiler;
mod component_id;
mod components;
mod error;
mod failures;
mod handler;
mod limits;
mod shared_code;
mod state;
mod ticker;
mod turns;

use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use alga_bundles::BundleStore;
use alga_host_api::{
    ExtensionPre, HostCtx, Invocation, InvocationLog, LogLimits, LogSink, Request, Response,
};
use alga_model::Secret;
use alga_storage::{Caller, Gate};
use tokio::runtime::Handle;
use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline,
};

use self::code::CodeSettings;
use self::code_cache::CodeCache;
use self::code_seal::Seal;
use self::compiler::Compilations;
use self::components::{Components, Workshop};
use self::failures::Failures;
use self::limits::{HostCalls, Limiter};
use self::shared_code::SharedCode;
use self::state::State;
use self::ticker::Ticker;
use self::turns::{Turns, resting};
use crate::admission::Permit;
use crate::deadline::within;

pub use self::compiler::{CompileOptions, Compiler, CompilerFailure, Task as CompileTask};
pub use self::component_id::ComponentId;
pub use self::components::{InvalidComponent, PrepareError};
pub use self::error::{EngineError, RunError};
pub(crate) use self::shared_code::OUTCOMES as SHARED_CODE_OUTCOMES;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Invocations at once.
    pub max_instances: u32,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// Bytes of linear memory an invocation may have.
    pub memory_bytes: usize,
    /// Instructions an invocation may execute, counted by Wasmtime's fuel; unlimited when absent.
    pub fuel: Option<u64>,
    /// Host calls an invocation may make, those of WASI included. The first one too many is made, and
    /// the guest is stopped before it does more than go on to its next function or round of a loop.
    pub host_calls: u64,
    /// Bytes of an answer's body.
    pub response_bytes: usize,
    /// What an invocation may log.
    pub log: LogLimits,
    /// Bytes of compiled code kept in memory.
    pub component_bytes: u64,
    /// Where compiled code is kept, and the key it is authenticated with; nowhere when absent.
    pub code_cache: Option<(PathBuf, Secret<[u8; 32]>)>,
    /// Bytes of compiled code kept there.
    pub code_cache_bytes: u64,
    /// The store in which processes with the same key leave it for each other; nowhere when absent, or
    /// where no code is kept.
    pub shared_code: Option<Arc<dyn BundleStore>>,
    /// How components are compiled.
    pub compile: CompileOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_instances: 256,
            timeout: Duration::from_secs(10),
            memory_bytes: 128 << 20,
            fuel: None,
            host_calls: 50_000,
            response_bytes: 10 << 20,
            log: LogLimits::default(),
            component_bytes: 512 << 20,
            code_cache: None,
            code_cache_bytes: 4 << 30,
            shared_code: None,
            compile: CompileOptions::default(),
        }
    }
}

/// Runs guests.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    components: Components,
    options: EngineOptions,
    turns: Turns,
    _ticker: Ticker,
}

/// A component that is compiled and linked, ready to run any number of times.
#[derive(Clone)]
pub struct Prepared(Arc<ExtensionPre<State>>);

/// A component that was prepared, as long as anybody else keeps it so.
#[derive(Clone)]
pub struct LastPrepared(Weak<ExtensionPre<State>>);

/// One invocation.
#[derive(Debug)]
pub struct Run {
    /// Its place among those that run at once, of which there are no more than
    /// [`EngineOptions::max_instances`].
    pub permit: Permit,
    /// What the guest is asked.
    pub request: Request,
    /// Who is being served.
    pub invocation: Invocation,
    /// Whom storage is told to be called by.
    pub caller: Caller,
    /// Who hears the lines of its log, besides the log of the process.
    pub log_sink: Option<Arc<dyn LogSink>>,
    /// When it must have ended; see [`Engine::deadline`].
    pub deadline: Instant,
    /// Narrower limits than the engine's own; wider ones have no effect.
    pub limits: RunLimits,
}

/// What a caller may narrow.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunLimits {
    /// Bytes of linear memory it may have.
    pub memory_bytes: Option<usize>,
    /// Fuel it may use; ignored where the engine counts none.
    pub fuel: Option<u64>,
}

/// How an invocation ended.
#[derive(Debug)]
pub struct Finished {
    /// What the guest answered, or why it gave no answer.
    pub answer: Result<Response, RunError>,
    /// What it used in any case.
    pub usage: Usage,
}

/// What an invocation used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of linear memory it had in the end, of which it need not have touched all.
    pub memory_bytes: usize,
    /// Host calls it made, those of WASI included.
    pub host_calls: u64,
}

impl Engine {
    /// Sets the engine up; in the async runtime that is to run the guests, as it lets as many compute
    /// at once as that has threads.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let engine =
            wasmtime::Engine::new(&wasmtime_config(&options)).map_err(EngineError::Wasmtime)?;
        let linker = linker(&engine).map_err(EngineError::Wasmtime)?;
        let kept = options.code_cache.as_ref();
        let kept = kept.map(|(folder, key)| (folder.clone(), Seal::new(key.clone(), &engine)));
        let shared_code = kept.as_ref().zip(options.shared_code.clone());
        let shared_code =
            shared_code.map(|((_, seal), store)| SharedCode::new(store, seal.clone()));
        let code_cache = kept
            .map(|(folder, seal)| CodeCache::open(folder, seal, options.code_cache_bytes))
            .transpose()
            .map_err(EngineError::CodeCache)?;
        let workshop = Workshop {
            engine: engine.clone(),
            linker,
            code_cache,
            shared_code,
            compilations: Compilations::new(options.compile.clone(), code_settings(&options)),
            failures: Failures::new(),
        };
        Ok(Self {
            components: Components::new(workshop, options.component_bytes),
            _ticker: Ticker::start(&engine),
            wasmtime: engine,
            turns: Turns::of(threads()),
            options,
        })
    }

    /// A component, compiled and linked: from memory, from the code cache, from what other processes left in the
    /// store, or from the bytes that `load` gives, which must be those of `id`. It is prepared once however
    /// many callers ask, also when they go away meanwhile.
    pub async fn prepare<F, E>(&self, id: ComponentId, load: F) -> Result<Prepared, PrepareError<E>>
    where
        F: Future<Output = Result<Vec<u8>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.components.prepare(id, load).await
    }

    /// Waits until what was compiled is where other processes find it, or can't be brought there.
    pub async fn settle(&self) {
        self.components.settle().await;
    }

    /// When an invocation that begins `now` must have ended: after the engine's own timeout, or
    /// sooner where `timeout` is shorter.
    pub fn deadline(&self, now: Instant, timeout: Option<Duration>) -> Instant {
        let longest = self.options.timeout;
        now + timeout.map_or(longest, |asked| asked.min(longest))
    }

    /// Answers one request with a fresh instance.
    pub async fn run(&self, prepared: &Prepared, gate: &Gate, run: Run) -> Finished {
        // Before the store, as it must outlast it: whoever gets the permit next needs its slot.
        let _permit = run.permit;
        let deadline = run.deadline;
        let place = self.turns.place(run.invocation.served.tenant);
        let log = InvocationLog::new(self.options.log, tracing::Span::current(), run.log_sink);
        let host = HostCtx::new(run.invocation, gate.clone(), run.caller, log.clone());
        let state = State::new(
            host,
            log.clone(),
            Limiter::new(self.memory_bytes(run.limits)),
            HostCalls::limited_to(self.options.host_calls),
            self.wasmtime.clone(),
            place.clone(),
        );
        let mut store = self.store(state, deadline);
        let answer = async {
            place.begin().await;
            self.fuel(&mut store, run.limits)?;
            let response = handle(&mut store, prepared, &run.request).await?;
            // It may have ended before it looked at the epoch.
            store.data().host_calls().check()?;
            self.check(response)
        };
        let answer = within(deadline, pin!(resting(&place, pin!(answer)))).await;
        if log.dropped() > 0 {
            tracing::info!(
                dropped_lines = log.dropped(),
                "the guest wrote more log lines than an invocation may"
            );
        }
        Finished {
            answer: answer.unwrap_or(Err(RunError::Timeout)),
            usage: store.data().usage(),
        }
    }

    fn memory_bytes(&self, limits: RunLimits) -> usize {
        let most = self.options.memory_bytes;
        limits.memory_bytes.map_or(most, |asked| asked.min(most))
    }

    fn fuel(&self, store: &mut Store<State>, limits: RunLimits) -> Result<(), RunError> {
        let Some(most) = self.options.fuel else {
            return Ok(());
        };
        let fuel = limits.fuel.map_or(most, |asked| asked.min(most));
        store.set_fuel(fuel).map_err(RunError::Host)
    }

    fn store(&self, state: State, deadline: Instant) -> Store<State> {
        let mut store = Store::new(&self.wasmtime, state);
        store.limiter(|state| state.limiter());
        store.set_hostcall_fuel(self.options.response_bytes.saturating_add(HOST_CALL_BYTES));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |store| {
            store.data().host_calls().check()?;
            let late = Instant::now() >= deadline;
            Ok(if late {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(store.data().place().next()))
            })
        });
        store
    }

    fn check(&self, response: Response) -> Result<Response, RunError> {
        if !(200..=599).contains(&response.status) {
            return Err(RunError::Nonsense(format!(
                "{} is no status of an answer",
                response.status
            )));
        }
        let bytes = response.body.as_ref().map_or(0, Vec::len);
        if bytes > self.options.response_bytes {
            let limit = self.options.response_bytes;
            return Err(RunError::Nonsense(format!(
                "the body has {bytes} bytes, {limit} are allowed"
            )));
        }
        Ok(response)
    }
}

async fn handle(
    store: &mut Store<State>,
    prepared: &Prepared,
    request: &Request,
) -> Result<Response, RunError> {
    let instantiated = prepared.0.instantiate_async(&mut *store).await;
    let extension = instantiated
        .map_err(|error| RunError::of_instantiation(error, store.data().refused_growth()))?;
    let handled = extension
        .alga_extension_handler()
        .call_handle(&mut *store, request)
        .await;
    handled.map_err(|error| RunError::classify(error, store.data().refused_growth()))
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    /// Something to come back to it with, which doesn't keep its code in memory.
    pub fn downgrade(&self) -> LastPrepared {
        LastPrepared(Arc::downgrade(&self.0))
    }
}

impl LastPrepared {
    /// The component, unless it is gone from memory meanwhile.
    pub fn upgrade(&self) -> Option<Prepared> {
        self.0.upgrade().map(Prepared)
    }
}

impl std::fmt::Debug for LastPrepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LastPrepared")
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prepared")
    }
}

/// What a guest may hand to one host call beyond a whole answer: the largest `bulk-put` and what
/// surrounds it. Wasmtime copies it before any limit of ours can look at it, and allows 128 MiB by
/// itself.
const HOST_CALL_BYTES: usize = 4 << 20;

/// Threads of the async runtime; where there is none yet, as many as the machine has cores for this
/// process.
fn threads() -> usize {
    Handle::try_current().map_or_else(
        |_| std::thread::available_parallelism().map_or(1, NonZero::get),
        |runtime| runtime.metrics().num_workers(),
    )
}

/// Everything a guest may import.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    alga_host_api::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Core instances of the largest guests known: a Python component has 108.
const CORE_INSTANCES: u32 = 120;
/// Tables and memories of a component; most have one of each, Python dozens of tables.
const TABLES: u32 = 64;
const MEMORIES: u32 = 2;
/// Elements of one table; as many as Wasmtime allows by itself.
const TABLE_ELEMENTS: usize = 20_000;

/// Stack of a guest. A parser that calls itself for every level of what it reads needs some.
const GUEST_STACK: usize = 1 << 20;
/// What is left of the stack for the host's part of a call that a guest makes at the end of its own.
const HOST_STACK: usize = 2 << 20;

/// How Wasmtime is set up; for whoever compares, since an engine of one's own can run no more than
/// what is compared with these settings.
pub fn wasmtime_config(options: &EngineOptions) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.max_instances)
        .total_stacks(options.max_instances)
        .total_core_instances(options.max_instances.saturating_mul(CORE_INSTANCES))
        .total_memories(options.max_instances.saturating_mul(MEMORIES))
        .total_tables(options.max_instances.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(options.memory_bytes);
    // Where the kernel can say which pages a guest touched (Linux 6.7), a slot is reset by copying
    // those and keeps the rest mapped; elsewhere only the first pages are worth keeping.
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    pool.pagemap_scan(if scan { Enabled::Yes } else { Enabled::No })
        .linear_memory_keep_resident(if scan { 2 << 20 } else { 64 << 10 })
        .table_keep_resident(64 << 10);

    let mut config = code_settings(options).config();
    config
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(GUEST_STACK + HOST_STACK)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

const fn code_settings(options: &EngineOptions) -> CodeSettings {
    CodeSettings {
        fuel: options.fuel.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn there_are_turns_for_the_threads_of_the_runtime_whatever_the_machine_has() {
        assert_eq!(threads(), 3);
    }
}
