//! Compiled code that may be loaded.

use wasmtime::component::Component;
use wasmtime::{Config, Engine, Precompiled};

/// What the settings of an engine change about the code that it compiles and runs. Everything else
/// about an engine may differ between the process that compiles and the one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodeSettings {
    /// Whether the code counts fuel.
    pub(super) fuel: bool,
}

impl CodeSettings {
    /// An engine of these settings that can compile. One that runs guests adds what that takes.
    pub(super) fn config(self) -> Config {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .epoch_interruption(true)
            .consume_fuel(self.fuel);
        config
    }
}

/// Machine code of a component that this deployment compiled itself.
///
/// Loading it lets it do anything as this process. So there are two places alone that make a value
/// of this type: the compiler, out of what it compiled just now, and the code cache, out of a file
/// that carries a MAC under a key nobody else has.
pub(super) struct Code {
    bytes: Vec<u8>,
    start: usize,
}

impl Code {
    /// The bytes from `start` on, for whose origin the caller vouches: `Component::serialize` or
    /// `Engine::precompile_component`, of this program.
    pub(super) const fn of_our_own(bytes: Vec<u8>, start: usize) -> Self {
        Self { bytes, start }
    }

    /// The code itself.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether this is code of a component at all, of whatever engine.
    pub(super) fn is_component(&self) -> bool {
        Engine::detect_precompiled(self.bytes()) == Some(Precompiled::Component)
    }

    /// The component, ready to be linked. Code of another engine is an error.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: whoever made this value vouches for where the bytes come from.
        #[expect(unsafe_code, reason = "loading machine code can't be anything else")]
        unsafe {
            Component::deserialize(engine, self.bytes())
        }
    }
}
