//! Compiled components: in memory, on disk, or compiled now.

use std::sync::Arc;

use alga_host_api::ExtensionPre;
use moka::future::Cache;
use tokio::task::spawn_blocking;
use wasmtime::component::{Component, Linker};

use super::Prepared;
use super::code::Code;
use super::code_cache::CodeCache;
use super::compiler::{Compilations, CompileError, CompilerFailure, refusal};
use super::component_id::ComponentId;
use super::failures::{Failure, Failures};
use super::handler;
use super::shared_code::SharedCode;
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
    /// Nothing can be compiled at the moment.
    #[error("cannot compile the component")]
    Compiler(#[source] Arc<CompilerFailure>),
    /// The work was stopped half-way, as the process ends.
    #[error("the component was not prepared")]
    Stopped,
}

/// The components of a process.
pub(super) struct Components {
    workshop: Arc<Workshop>,
    prepared: Cache<ComponentId, (Prepared, u32)>,
}

/// Everything that a component is made ready with.
pub(super) struct Workshop {
    pub(super) engine: wasmtime::Engine,
    pub(super) linker: Linker<State>,
    pub(super) code_cache: Option<CodeCache>,
    pub(super) shared_code: Option<SharedCode>,
    pub(super) compilations: Compilations,
    pub(super) failures: Failures,
}

impl Components {
    pub(super) fn new(workshop: Workshop, max_bytes: u64) -> Self {
        let prepared = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, (_, bytes): &(Prepared, u32)| *bytes)
            .build();
        Self {
            workshop: Arc::new(workshop),
            prepared,
        }
    }

    /// Waits until what was compiled is where other processes find it, or can't be brought there.
    pub(super) async fn settle(&self) {
        if let Some(shared) = &self.workshop.shared_code {
            shared.settle().await;
        }
    }

    pub(super) async fn prepare<F, E>(
        &self,
        id: ComponentId,
        load: F,
    ) -> Result<Prepared, PrepareError<E>>
    where
        F: Future<Output = Result<Vec<u8>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        if let Some((prepared, _)) = self.prepared.get(&id).await {
            return Ok(prepared);
        }
        let (cache, workshop) = (self.prepared.clone(), Arc::clone(&self.workshop));
        // In a task of its own: a caller that goes away must not make the others start again.
        let work =
            tokio::spawn(async move { cache.try_get_with(id, workshop.prepare(id, load)).await });
        match work.await {
            Ok(Ok((prepared, _))) => Ok(prepared),
            Ok(Err(error)) => Err(match &*error {
                PrepareError::Invalid(invalid) => PrepareError::Invalid(invalid.clone()),
                PrepareError::Load(error) => PrepareError::Load(Arc::clone(error)),
                PrepareError::Compiler(failure) => PrepareError::Compiler(Arc::clone(failure)),
                PrepareError::Stopped => PrepareError::Stopped,
            }),
            Err(_) => Err(PrepareError::Stopped),
        }
    }
}

impl Workshop {
    async fn prepare<F, E>(
        self: Arc<Self>,
        id: ComponentId,
        load: F,
    ) -> Result<(Prepared, u32), PrepareError<E>>
    where
        F: Future<Output = Result<Vec<u8>, E>>,
        E: Send + Sync + 'static,
    {
        if let Some(invalid) = self.failures.of(id).await {
            return Err(PrepareError::Invalid(invalid));
        }
        match self.make(id, load).await {
            Ok(made) => Ok(made),
            Err(Unmade::Bad(failure)) => {
                let invalid = self.failures.remember(id, failure).await;
                Err(PrepareError::Invalid(invalid))
            }
            Err(Unmade::Other(error)) => Err(error),
        }
    }

    async fn make<F, E>(
        self: &Arc<Self>,
        id: ComponentId,
        load: F,
    ) -> Result<(Prepared, u32), Unmade<E>>
    where
        F: Future<Output = Result<Vec<u8>, E>>,
        E: Send + Sync + 'static,
    {
        let cached = self.blocking(move |workshop| {
            let component = workshop.cached(id)?;
            Some(workshop.link(&component))
        });
        if let Some(made) = cached.await? {
            return made;
        }
        if let Some(shared) = &self.shared_code
            && let Some(code) = shared.take(id).await
        {
            let taken = self.blocking(move |workshop| {
                let component = workshop.load(id, &code)?;
                workshop.keep(id, &code);
                Some(workshop.link(&component))
            });
            if let Some(made) = taken.await? {
                return made;
            }
            shared.give_up(id);
        }
        // Before the bytes are loaded: those of all who wait would add up.
        let slot = self.compilations.slot().await;
        let bytes = load
            .await
            .map_err(|error| PrepareError::Load(Arc::new(error)))?;
        ensure_component(&bytes)?;
        let code = self
            .compilations
            .compile(&slot, &self.engine, id.bundle(), bytes)
            .await?;
        let made = self.blocking(move |workshop| {
            let component = code.load(&workshop.engine).map_err(|error| {
                // Where it is code, it is that of an engine like this one, and what keeps it from being
                // loaded is that its memories or tables don't fit into the pool.
                if code.is_component() {
                    Unmade::Bad(Failure::lasting(refusal(&error)))
                } else {
                    PrepareError::Compiler(Arc::new(CompilerFailure::Output(error))).into()
                }
            })?;
            let made = workshop.link(&component)?;
            workshop.keep(id, &code);
            Ok::<_, Unmade<E>>(made)
        });
        let made = made.await??;
        if let (Some(shared), Some(cache)) = (&self.shared_code, &self.code_cache) {
            shared.leave(id, cache.path(id));
        }
        Ok(made)
    }

    /// What would hold up others, on a thread that may be held up.
    async fn blocking<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, PrepareError<E>>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> T + Send + 'static,
    {
        let workshop = Arc::clone(self);
        spawn_blocking(move || work(&workshop))
            .await
            .map_err(|_| PrepareError::Stopped)
    }

    fn cached(&self, id: ComponentId) -> Option<Component> {
        let code = self.code_cache.as_ref()?.read(id)?;
        self.load(id, &code)
    }

    fn load(&self, id: ComponentId, code: &Code) -> Option<Component> {
        code.load(&self.engine)
            .inspect_err(
                |error| tracing::warn!(bundle = %id.bundle(), %error, "cannot load compiled code"),
            )
            .ok()
    }

    fn keep(&self, id: ComponentId, code: &Code) {
        if let Some(code_cache) = &self.code_cache {
            code_cache.write(id, code);
        }
    }

    /// Resolves every import and finds the handler, so that an invocation has nothing left to look up.
    fn link<E>(&self, component: &Component) -> Result<(Prepared, u32), Unmade<E>> {
        let image = component.image_range();
        let bytes = (image.end as usize).saturating_sub(image.start as usize);
        let linked = self
            .linker
            .instantiate_pre(component)
            .and_then(ExtensionPre::new)
            .and_then(|linked| handler::ensure_type(component).map(|()| linked))
            .map_err(|error| Unmade::Bad(Failure::lasting(refusal(&error))))?;
        Ok((
            Prepared(Arc::new(linked)),
            u32::try_from(bytes).unwrap_or(u32::MAX),
        ))
    }
}

/// Why a component is not ready: something to remember, or not.
enum Unmade<E> {
    Bad(Failure),
    Other(PrepareError<E>),
}

impl<E> From<PrepareError<E>> for Unmade<E> {
    fn from(error: PrepareError<E>) -> Self {
        Self::Other(error)
    }
}

impl<E> From<Failure> for Unmade<E> {
    fn from(failure: Failure) -> Self {
        Self::Bad(failure)
    }
}

impl<E> From<CompileError> for Unmade<E> {
    fn from(error: CompileError) -> Self {
        let message = error.about_the_component();
        match error {
            CompileError::Refused(_) => Self::Bad(Failure::lasting(message)),
            CompileError::Limit(_) | CompileError::Crashed { .. } | CompileError::Killed => {
                Self::Bad(Failure::passing(message))
            }
            CompileError::Host(failure) => Self::Other(PrepareError::Compiler(failure)),
        }
    }
}

/// Tells the usual mistakes apart, of which the compiler would say less.
fn ensure_component(bytes: &[u8]) -> Result<(), Failure> {
    // https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md: the preamble of
    // a core module has version 1, layer 0.
    let message = match bytes.split_at_checked(8) {
        Some((b"\0asm\x01\0\0\0", _)) => {
            "this is a core module, not a component; build it for the target wasm32-wasip2"
        }
        Some((start, _)) if start.starts_with(b"\0asm") => return Ok(()),
        _ => "this is not WebAssembly, so no component",
    };
    Err(Failure::lasting(message.to_owned()))
}
