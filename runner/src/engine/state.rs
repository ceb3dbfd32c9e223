//! The data of a store: everything that belongs to one invocation.

use alga_host_api::{GuestOutput, HostCtx, HostView, InvocationLog, OutputStream};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::Usage;
use super::limits::{HostCalls, Limiter};
use super::turns::Place;

/// WASI resources (streams, pollables) a guest may hold at once.
const RESOURCES: usize = 1_024;
/// Random bytes of one call, which is not interrupted. WASI allows 64 MiB by itself.
const RANDOM_BYTES: u64 = 64 << 10;

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

pub(crate) struct State {
    host: HostCtx,
    log: InvocationLog,
    /// Made when the guest first asks for it, which many never do.
    wasi: Option<Box<Wasi>>,
    limiter: Limiter,
    host_calls: HostCalls,
    /// Whose tick stops the guest after its last host call.
    engine: Engine,
    place: Place,
}

impl State {
    pub(super) fn new(
        host: HostCtx,
        log: InvocationLog,
        limiter: Limiter,
        host_calls: HostCalls,
        engine: Engine,
        place: Place,
    ) -> Self {
        Self {
            host,
            log,
            wasi: None,
            limiter,
            host_calls,
            engine,
            place,
        }
    }

    pub(super) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.limiter
    }

    pub(super) const fn host_calls(&self) -> &HostCalls {
        &self.host_calls
    }

    /// Counts a host call. After the first one too many the guest goes no further than to the next
    /// place where it looks at the epoch: the beginning of a function or of a round of a loop.
    fn count_host_call(&mut self) {
        if self.host_calls.make() {
            self.engine.increment_epoch();
        }
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    pub(super) const fn usage(&self) -> Usage {
        Usage {
            memory_bytes: self.limiter.memory_bytes(),
            host_calls: self.host_calls.made(),
        }
    }

    pub(super) const fn refused_growth(&self) -> bool {
        self.limiter.refused_growth()
    }
}

impl Wasi {
    fn new(log: &InvocationLog) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        // Nothing is inherited and nothing is opened: no files, no environment, no arguments. TCP and
        // UDP are off by name, not by the absence of an allowed address.
        let ctx = WasiCtx::builder()
            .stdout(GuestOutput::new(log.clone(), OutputStream::Stdout))
            .stderr(GuestOutput::new(log.clone(), OutputStream::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES)
            .build();
        Self { ctx, table }
    }
}

impl HostView for State {
    fn host(&mut self) -> &mut HostCtx {
        self.count_host_call();
        &mut self.host
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.count_host_call();
        let log = &self.log;
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::new(log)));
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}
