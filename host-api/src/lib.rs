//! What a guest may call, and what it is called with.
//!
//! Every interface of the WIT world `alga:extension/extension` has a file of its own, in which each
//! method converts what the guest gave, calls the host, and converts what came back. Nothing is
//! decided here: whether a call may happen is the gate's business (`alga-storage`), how long and
//! how large an invocation may be is the engine's (`alga-runner`).
//!
//! An embedder keeps a [`HostCtx`] in the data of its `Store`, implements [`HostView`] for that
//! data, and calls [`add_to_linker`] once:
//!
//! ```
//! use alga_host_api::{HostCtx, HostView};
//! use wasmtime::component::Linker;
//! use wasmtime::{Config, Engine};
//!
//! struct State {
//!     host: HostCtx,
//! }
//!
//! impl HostView for State {
//!     fn host(&mut self) -> &mut HostCtx {
//!         &mut self.host
//!     }
//! }
//!
//! # fn main() -> wasmtime::Result<()> {
//! let engine = Engine::new(&Config::new())?;
//! let mut linker: Linker<State> = Linker::new(&engine);
//! alga_host_api::add_to_linker(&mut linker)?;
//! # Ok(()) }
//! ```
//!
//! WASI itself is the embedder's to link; [`GuestOutput`] makes log lines of what a guest writes to
//! its standard output and standard error.

mod bindings;
mod context;
mod convert;
mod ctx;
mod log;
mod logging;
mod request;
mod storage;

pub use bindings::exports::alga::extension::handler::{Header, Request, Response};
pub use bindings::{Extension, ExtensionIndices, ExtensionPre};
pub use ctx::{HostCtx, HostView, Invocation, Served, add_to_linker};
pub use log::{GuestOutput, InvocationLog, LogLimits, LogLine, LogSink, LogSource, OutputStream};
