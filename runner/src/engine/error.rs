//! How an invocation can fail.

use wasmtime::Trap;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Wasmtime refuses the settings, or the machine can't give what they need.
    #[error("cannot set the WebAssembly engine up")]
    Wasmtime(#[source] wasmtime::Error),
    /// The folder of compiled code can't be used.
    #[error("cannot use the folder of compiled code")]
    CodeCache(#[source] std::io::Error),
}

/// Why a guest gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guest trapped. The source holds the wasm backtrace, which is for logs.
    #[error("the extension trapped: {reason}")]
    Trap {
        /// What kind of trap, without addresses or names of functions.
        reason: String,
        /// The trap and where it happened.
        #[source]
        source: wasmtime::Error,
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
    /// Every slot is in use.
    #[error("too many extensions are running")]
    Overloaded,
    /// The host failed.
    #[error("cannot run the extension")]
    Host(#[source] wasmtime::Error),
}

impl RunError {
    /// What a failed call of Wasmtime means; `refused_memory` tells whether a growth was refused
    /// before.
    pub(super) fn classify(error: wasmtime::Error, refused_memory: bool) -> Self {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::Overloaded;
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Timeout,
            Some(Trap::OutOfFuel) => Self::OutOfFuel,
            _ if refused_memory => Self::MemoryLimit,
            Some(trap) => Self::Trap {
                reason: trap.to_string(),
                source: error,
            },
            None if error.is::<wasmtime_wasi::I32Exit>() => Self::Trap {
                reason: "it exited instead of answering".to_owned(),
                source: error,
            },
            None => Self::Trap {
                reason: error.root_cause().to_string(),
                source: error,
            },
        }
    }
}

#[cfg(test)]
impl RunError {
    /// Every way to fail, once.
    pub(crate) fn each() -> [Self; 7] {
        [
            Self::Trap {
                reason: "why".to_owned(),
                source: wasmtime::Error::msg("backtrace"),
            },
            Self::Nonsense("why".to_owned()),
            Self::Timeout,
            Self::OutOfFuel,
            Self::MemoryLimit,
            Self::Overloaded,
            Self::Host(wasmtime::Error::msg("inner")),
        ]
    }
}
