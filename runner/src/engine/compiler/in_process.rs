//! Compiling in this process, without limits.

use tokio::task::spawn_blocking;

use super::failure::{CompileError, CompilerFailure};
use super::worker::refusal;
use crate::engine::code::Code;

pub(super) async fn compile(
    engine: &wasmtime::Engine,
    component: Vec<u8>,
) -> Result<Code, CompileError> {
    let engine = engine.clone();
    let work = spawn_blocking(move || engine.precompile_component(&component));
    match work.await {
        Ok(Ok(code)) => Ok(Code::of_our_own(code, 0)),
        Ok(Err(error)) => Err(CompileError::Refused(refusal(&error))),
        Err(ended) if ended.is_panic() => Err(CompileError::Crashed {
            how: "it panicked".to_owned(),
            said: String::new(),
        }),
        Err(_) => Err(CompilerFailure::Stopped.into()),
    }
}
