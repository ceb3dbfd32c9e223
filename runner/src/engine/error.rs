//! How an invocation can fail.

use wasmtime::Trap;

use super::limits::TooManyHostCalls;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Wasmtime refuses the settings, or the machine can't give what they need.
    #[error(
        "cannot set the WebAssembly engine up; if the machine lacks address space, lower engine.max_instances or engine.memory_mb"
    )]
    Wasmtime(#[source] wasmtime::Error),
    /// The folder of compiled code can't be used.
    #[error("cannot use the folder of compiled code")]
    CodeCache(#[source] std::io::Error),
}

/// Why a guest gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guest trapped.
    #[error("the extension trapped: {reason}")]
    Trap {
        /// What kind of trap, without addresses or names of functions.
        reason: String,
        /// Where in the guest it happened; for logs and authors.
        backtrace: String,
    },
    /// The guest answered something that is no answer.
    #[error("the extension's answer makes no sense: {0}")]
    Nonsense(String),
    /// The guest did not answer in time.
    #[error("the extension did not answer in time")]
    Timeout,
    /// The guest used up its fuel.
    #[error("the extension used up its fuel")]
    OutOfFuel,
    /// The guest needed more memory than it may have.
    #[error("the extension needed more memory than it may have")]
    MemoryLimit,
    /// The guest made more host calls than it may.
    #[error("the extension made more than {limit} host calls")]
    HostCallLimit {
        /// How many it may make.
        limit: u64,
    },
    /// The host failed.
    #[error("cannot run the extension")]
    Host(#[source] wasmtime::Error),
}

impl From<TooManyHostCalls> for RunError {
    fn from(TooManyHostCalls { limit }: TooManyHostCalls) -> Self {
        Self::HostCallLimit { limit }
    }
}

impl RunError {
    /// What a failed instantiation means. Unlike a call, it also fails where the machine does.
    pub(super) fn of_instantiation(error: wasmtime::Error, refused_growth: bool) -> Self {
        if refused_growth || error.is::<Trap>() || error.is::<TooManyHostCalls>() {
            Self::classify(error, refused_growth)
        } else {
            Self::Host(error)
        }
    }

    /// What a failed call of Wasmtime means; `refused_growth` tells whether memory or a table was
    /// not allowed to grow before.
    pub(super) fn classify(error: wasmtime::Error, refused_growth: bool) -> Self {
        // No permit without a slot: a pool that is used up is a defect of ours.
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::Host(error);
        }
        if let Some(&too_many) = error.downcast_ref::<TooManyHostCalls>() {
            return too_many.into();
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Timeout,
            Some(Trap::OutOfFuel) => Self::OutOfFuel,
            _ if refused_growth => Self::MemoryLimit,
            Some(trap) => Self::Trap {
                reason: trap.to_string(),
                backtrace: backtrace(&error),
            },
            None if error.is::<wasmtime_wasi::I32Exit>() => Self::Trap {
                reason: "it exited instead of answering".to_owned(),
                backtrace: backtrace(&error),
            },
            None => Self::Trap {
                reason: error.root_cause().to_string(),
                backtrace: backtrace(&error),
            },
        }
    }
}

/// The frames of the guest alone; those of the host say nothing to an author and fill the log.
fn backtrace(error: &wasmtime::Error) -> String {
    error
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
impl RunError {
    /// Every way to fail, once.
    pub(crate) fn each() -> [Self; 7] {
        [
            Self::Trap {
                reason: "why".to_owned(),
                backtrace: "backtrace".to_owned(),
            },
            Self::Nonsense("why".to_owned()),
            Self::Timeout,
            Self::OutOfFuel,
            Self::MemoryLimit,
            Self::HostCallLimit { limit: 1 },
            Self::Host(wasmtime::Error::msg("inner")),
        ]
    }
}
