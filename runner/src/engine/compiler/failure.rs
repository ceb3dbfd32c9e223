//! Why there is no compiled code.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a component was not compiled.
#[derive(Debug, Clone)]
pub(in crate::engine) enum CompileError {
    /// The compiler says what is wrong with it.
    Refused(String),
    /// It takes more than compiling may take.
    Limit(Limit),
    /// The compiler did not survive it.
    Crashed {
        /// How it ended.
        how: String,
        /// The beginning of what it said last.
        said: String,
    },
    /// The kernel ended the compiler, most likely for lack of memory: that of the machine, or that
    /// which a container may have.
    Killed,
    /// The machine failed; says nothing about the component.
    Host(Arc<CompilerFailure>),
}

/// What compiling a component has a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Limit {
    /// Time.
    Time(Duration),
    /// Bytes of memory.
    Memory(u64),
    /// Bytes of compiled code.
    Code(u64),
}

/// Why nothing can be compiled at the moment.
#[derive(Debug, thiserror::Error)]
pub enum CompilerFailure {
    /// There is no process to compile in.
    #[error("cannot start the compiler")]
    Start(#[source] io::Error),
    /// The pipes to it broke.
    #[error("cannot talk to the compiler")]
    Pipe(#[source] io::Error),
    /// Somebody else ended it.
    #[error("the compiler was killed by signal {0}")]
    Killed(i32),
    /// It gave up for reasons of its own.
    #[error("the compiler ended with {status}: {said:?}")]
    Ended {
        /// Its exit status.
        status: String,
        /// The beginning of what it said.
        said: String,
    },
    /// What it made can't be loaded.
    #[error("cannot load what the compiler made")]
    Output(#[source] wasmtime::Error),
    /// The process ends before the work is done.
    #[error("the work was stopped half-way")]
    Stopped,
}

impl CompileError {
    /// The value of the metric's label.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "invalid",
            Self::Limit(Limit::Time(_)) => "timeout",
            Self::Limit(Limit::Memory(_)) => "memory",
            Self::Limit(Limit::Code(_)) => "code",
            Self::Crashed { .. } => "crash",
            Self::Killed => "killed",
            Self::Host(_) => "unavailable",
        }
    }

    /// What its author should know.
    pub(in crate::engine) fn about_the_component(&self) -> String {
        match self {
            Self::Refused(message) => message.clone(),
            Self::Limit(limit) => limit.to_string(),
            Self::Crashed { how, .. } => format!("the compiler crashed on the component ({how})"),
            Self::Killed => {
                "compiling the component was ended by the kernel, most likely as the machine \
                             has too little memory for it"
                    .to_owned()
            }
            Self::Host(failure) => failure.to_string(),
        }
    }
}

impl From<CompilerFailure> for CompileError {
    fn from(failure: CompilerFailure) -> Self {
        Self::Host(Arc::new(failure))
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(limit) => write!(
                f,
                "compiling the component took more than {} s",
                limit.as_secs_f64()
            ),
            Self::Memory(limit) => write!(
                f,
                "compiling the component needed more than {} of memory",
                size(*limit)
            ),
            Self::Code(limit) => {
                write!(
                    f,
                    "the component compiles to more than {} of code",
                    size(*limit)
                )
            }
        }
    }
}

/// Whole GiB where it is that, else MiB.
fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}
