//! Compiled components: in memory, on disk, or compiled now.

use std::sync::Arc;

use alga_host_api::ExtensionPre;
use alga_model::ContentHash;
use moka::future::Cache;
use tokio::task::spawn_blocking;
use wasmtime::component::{Component, Linker};

use super::Prepared;
use super::code_cache::CodeCache;
use super::state::State;

/// Why a component can't run here.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct InvalidComponent {
    /// What is wrong with it, for its author.
    pub message: String,
}

/// Why a component could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError<E> {
    /// It can't run here.
    #[error("the component can't run: {0}")]
    Invalid(InvalidComponent),
    /// Its bytes could not be had.
    #[error("cannot load the component")]
    Load(Arc<E>),
    /// The work was stopped half-way, as the process ends.
    #[error("the component was not prepared")]
    Stopped,
}

/// The components of a process.
pub(super) struct Components {
    linker: Arc<Linker<State>>,
    code_cache: Option<Arc<CodeCache>>,
    prepared: Cache<ContentHash, (Prepared, u32)>,
}

impl Components {
    pub(super) fn new(
        linker: Linker<State>,
        code_cache: Option<CodeCache>,
        max_bytes: u64,
    ) -> Self {
        let prepared = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, (_, bytes): &(Prepared, u32)| *bytes)
            .build();
        Self {
            linker: Arc::new(linker),
            code_cache: code_cache.map(Arc::new),
            prepared,
        }
    }

    pub(super) async fn prepare<F, E>(
        &self,
        engine: &wasmtime::Engine,
        hash: ContentHash,
        load: F,
    ) -> Result<Prepared, PrepareError<E>>
    where
        F: Future<Output = Result<Vec<u8>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        if let Some((prepared, _)) = self.prepared.get(&hash).await {
            return Ok(prepared);
        }
        let (cache, engine) = (self.prepared.clone(), engine.clone());
        let (linker, code_cache) = (Arc::clone(&self.linker), self.code_cache.clone());
        // In a task of its own: a caller that goes away must not make the others start again.
        let work = tokio::spawn(async move {
            let prepare = prepare_uncached(engine, linker, code_cache, hash, load);
            cache.try_get_with(hash, prepare).await
        });
        match work.await {
            Ok(Ok((prepared, _))) => Ok(prepared),
            Ok(Err(error)) => Err(match &*error {
                PrepareError::Invalid(invalid) => PrepareError::Invalid(invalid.clone()),
                PrepareError::Load(error) => PrepareError::Load(Arc::clone(error)),
                PrepareError::Stopped => PrepareError::Stopped,
            }),
            Err(_) => Err(PrepareError::Stopped),
        }
    }
}

async fn prepare_uncached<F, E>(
    engine: wasmtime::Engine,
    linker: Arc<Linker<State>>,
    code_cache: Option<Arc<CodeCache>>,
    hash: ContentHash,
    load: F,
) -> Result<(Prepared, u32), PrepareError<E>>
where
    F: Future<Output = Result<Vec<u8>, E>>,
{
    let cached = {
        let (engine, linker, code_cache) =
            (engine.clone(), Arc::clone(&linker), code_cache.clone());
        spawn_blocking(move || {
            link(&linker, &from_cache(&engine, code_cache?.as_ref(), hash)?).ok()
        })
        .await
        .map_err(|_| PrepareError::Stopped)?
    };
    if let Some(prepared) = cached {
        return Ok(prepared);
    }
    let bytes = load
        .await
        .map_err(|error| PrepareError::Load(Arc::new(error)))?;
    spawn_blocking(move || {
        let component = compile(&engine, &bytes)?;
        if let (Some(code_cache), Ok(code)) = (code_cache, component.serialize()) {
            code_cache.write(hash, &code);
        }
        link(&linker, &component)
    })
    .await
    .map_err(|_| PrepareError::Stopped)?
    .map_err(PrepareError::Invalid)
}

fn from_cache(
    engine: &wasmtime::Engine,
    code_cache: &CodeCache,
    hash: ContentHash,
) -> Option<Component> {
    let code = code_cache.read(hash)?;
    // SAFETY: `read` gives only bytes that this deployment wrote itself, from `Component::serialize`
    // of an engine with the same compatibility hash: they carry a MAC under a key nobody else has.
    #[expect(unsafe_code, reason = "loading machine code can't be anything else")]
    let component = unsafe { Component::deserialize(engine, &code) };
    component
        .inspect_err(|error| tracing::warn!(bundle = %hash, %error, "cannot load compiled code"))
        .ok()
}

fn compile(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Component, InvalidComponent> {
    ensure_component(bytes)?;
    let start = std::time::Instant::now();
    let component = Component::new(engine, bytes).map_err(invalid);
    metrics::histogram!("alga_engine_compile_duration_seconds").record(start.elapsed());
    component
}

/// Tells the usual mistakes apart, of which the compiler would say less.
fn ensure_component(bytes: &[u8]) -> Result<(), InvalidComponent> {
    // https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md: the preamble of
    // a core module has version 1, layer 0.
    let message = match bytes.split_at_checked(8) {
        Some((b"\0asm\x01\0\0\0", _)) => {
            "this is a core module, not a component; build it for the target wasm32-wasip2"
        }
        Some((start, _)) if start.starts_with(b"\0asm") => return Ok(()),
        _ => "this is not WebAssembly, so no component",
    };
    Err(InvalidComponent {
        message: message.to_owned(),
    })
}

/// Resolves every import and finds the handler, so that an invocation has nothing left to look up.
fn link(
    linker: &Linker<State>,
    component: &Component,
) -> Result<(Prepared, u32), InvalidComponent> {
    let image = component.image_range();
    let bytes = (image.end as usize).saturating_sub(image.start as usize);
    let linked = linker
        .instantiate_pre(component)
        .and_then(ExtensionPre::new)
        .map_err(invalid)?;
    Ok((Prepared(linked), u32::try_from(bytes).unwrap_or(u32::MAX)))
}

/// The whole chain on one line: Wasmtime puts the name of a missing import behind the first colon.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is `map_err`'s"
)]
fn invalid(error: wasmtime::Error) -> InvalidComponent {
    InvalidComponent {
        message: format!("{error:#}"),
    }
}
